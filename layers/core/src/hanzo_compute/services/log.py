"""The transparency log: leaves get their place in one order, and a checkpoint is signed over it.

Leaves wait under an index of their own. A pass takes those that wait, appends them to the RFC 6962 tree, and in the
same transaction moves the tree's head by compare-and-set: whatever passes run at a time, there is one order, and a leaf
has one place. Stored are entry bundles (256 leaves each) and tiles of the levels above (C2SP tlog-tiles), so that
proofs cost a few reads however long the log is.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from hanzo_compute.errors import InternalError, NotFound
from hanzo_compute.model import keys
from hanzo_compute.ports import ABSENT, TRANSACTION_MAX, Body, KeyKind, Operation, Put, Record, WriteConflict
from hanzo_compute.services import outbox
from hanzo_compute.services.context import Context
from hanzo_compute.services.leaves import placed
from hanzo_compute.services.read import invalid
from hanzo_compute.transparency import checkpoint as notes
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.checkpoint import Checkpoint, VerifierKey
from hanzo_compute.transparency.parts import origin_of
from hanzo_compute.transparency.tiles import BUNDLE, TileNodes

KEY: Final = "log"
"""Name of the log's signing key in the vault."""
SIGN_MS: Final = 1000
"""Checkpoints are signed at most this often."""
PASS_MAX: Final = 1024
"""Leaves that one pass looks at, of each shard."""
ROOM: Final = TRANSACTION_MAX - 8
"""Leaves in one transaction: the rest is for the head, the checkpoint, two bundles and the tiles above them."""
ENTRIES_MAX: Final = 16_384
"""Leaves in one answer."""
LEAF_BYTES: Final = 32


def verifier_key(ctx: Context) -> VerifierKey:
    """The log's public key under its name, which is the origin of its checkpoints and made from the key."""
    public = ctx.vault.public_key(KEY, KeyKind.ED25519)[-32:]  # the last 32 bytes of SPKI: RFC 8410 section 4
    return VerifierKey(origin_of(public), public)


@dataclass(frozen=True, slots=True)
class Sequenced:
    """What a pass did: leaves that got their place, and whether a checkpoint was signed."""

    appended: int = 0
    signed: bool = False


def sequence(ctx: Context) -> Sequenced:
    """One pass. Passes may overlap and may be cut short: what one did not finish, the next one does."""
    waiting = _waiting(ctx)
    record = ctx.store.get(keys.tree_head())
    tree = _Tree(ctx, record)
    if not waiting and tree.signed_size == tree.size:
        return Sequenced()
    hurried = tree.signed_size < tree.size
    appended, signed = 0, False
    try:
        for start in range(0, max(1, len(waiting)), ROOM):
            batch = waiting[start : start + ROOM]
            signed = tree.append(batch, sign=start + ROOM >= len(waiting))
            appended += len(batch)
    except WriteConflict:  # another pass was quicker, or what we read was old
        return Sequenced(appended)
    if not signed and not hurried:
        _hurry(ctx, waiting)
    return Sequenced(appended, signed)


def _waiting(ctx: Context) -> list[Record]:
    partitions = [keys.unlogged_partition(shard) for shard in range(keys.SHARDS)]
    rows = chain.from_iterable(ctx.store.query_index(keys.BY_LOG, pk, limit=PASS_MAX) for pk in partitions)
    return [record for _, record in sorted(rows, key=lambda row: row[0])]


def _hurry(ctx: Context, leaves: Sequence[Record]) -> None:
    """Have somebody look again in a second: who waits for a receipt should not wait for the reconciler.

    Who wrote a batch looks again anyhow: see :class:`hanzo_compute.services.invocations.Batcher`.
    """
    jobs = [leaf.key.pk.partition("#")[2] for leaf in leaves if not leaf.key.pk.startswith(keys.BATCH)]
    if jobs:
        ctx.queue.send(outbox.COMPLETION, {"job": jobs[-1]}, delay_s=1)


class _Tree:
    """The log as a pass sees it, and what the pass has changed."""

    def __init__(self, ctx: Context, record: Record | None) -> None:
        self._ctx = ctx
        self._rev = ABSENT if record is None else record.rev
        empty: Body = {"size": 0, "peaks": [], "signed_size": 0, "signed_ms": 0}
        body = empty if record is None else record.body
        self._frontier = merkle.Frontier(body["size"], [bytes.fromhex(peak) for peak in body["peaks"]])
        self.signed_size: int = body["signed_size"]
        self._signed_ms: int = body["signed_ms"]
        self._tiles: dict[tuple[int, int], bytearray] = {}
        """Tiles that are being filled, by level and number; those of the last transaction only."""

    @property
    def size(self) -> int:
        """Leaves in the log."""
        return self._frontier.size

    def append(self, leaves: Sequence[Record], *, sign: bool) -> bool:
        """Give the leaves the next places, in one transaction; with ``sign`` also sign if it is time to.

        Returns whether a checkpoint was signed. Raises WriteConflict: nothing was done, and this object is spent.
        """
        operations: list[Operation] = []
        changed: set[tuple[int, int]] = set()
        for record in leaves:
            data = bytes.fromhex(record.body["leaf"])
            index = self.size
            operations.append(Put(record.key, placed(record.body, index), expect=record.rev))
            changed.add(self._fill(0, index, data))
            for level, number, node in self._frontier.append(merkle.leaf_hash(data)):
                if level and level % 8 == 0:
                    changed.add(self._fill(level // 8, number, node))
        operations += [Put(keys.tile(*place), {"data": _text(bytes(self._tiles[place]))}) for place in sorted(changed)]
        now = self._ctx.clock.now_ms()
        due = sign and not self._signed_ms <= now < self._signed_ms + SIGN_MS  # also when the clock was set back
        if due:
            operations.append(self._sign(now))
            self.signed_size, self._signed_ms = self.size, now
        head = {
            "size": self.size,
            "peaks": [peak.hex() for peak in self._frontier.peaks],
            "signed_size": self.signed_size,
            "signed_ms": self._signed_ms,
        }
        operations.append(Put(keys.tree_head(), head, expect=self._rev))
        if leaves or due:
            self._ctx.store.transact(operations)
            self._rev += 1
        for place in [place for place, tile in self._tiles.items() if len(tile) == BUNDLE * LEAF_BYTES]:
            del self._tiles[place]
        return due

    def _fill(self, level: int, number: int, data: bytes) -> tuple[int, int]:
        """Put the entry ``number`` of a level into its tile."""
        place, within = (level, number // BUNDLE), number % BUNDLE * LEAF_BYTES
        if place not in self._tiles:
            kept = _read(self._ctx, *place, within)[:within] if within else b""
            if level == 0:
                self._check(kept, number // BUNDLE)
            self._tiles[place] = bytearray(kept)
        self._tiles[place] += data
        return place

    def _check(self, kept: bytes, bundle: int) -> None:
        """A bundle that was damaged must not be built on: its leaves make the head's last peaks."""
        rebuilt = merkle.Frontier()
        for at in range(0, len(kept), LEAF_BYTES):
            rebuilt.append(merkle.leaf_hash(kept[at : at + LEAF_BYTES]))
        if rebuilt.peaks != self._frontier.peaks[len(self._frontier.peaks) - len(rebuilt.peaks) :]:
            raise InternalError(
                f"bundle {bundle} of the log is not what was logged", hint="restore a backup: hzc restore"
            )

    def _sign(self, now: int) -> Put:
        key = verifier_key(self._ctx)
        made = Checkpoint(key.name, self.size, self._frontier.root())
        note = notes.note(made, key, lambda message: self._ctx.vault.sign(KEY, KeyKind.ED25519, message))
        return Put(keys.checkpoint(), {"size": made.size, "root": made.root.hex(), "note": note, "at_ms": now})


def _read(ctx: Context, level: int, number: int, least: int) -> bytes:
    """What a tile holds, at least so many bytes of it."""
    at = keys.tile(level, number)
    for fresh in (False, True):
        record = ctx.store.get(at, fresh=fresh)
        found = b"" if record is None else base64.b64decode(record.body["data"])
        if len(found) >= least:
            return found
    raise InternalError(f"tile {number} of level {level} lacks hashes that are logged", hint="hzc doctor")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


# What clients see


def checkpoint(ctx: Context) -> dict[str, Any]:
    """The newest checkpoint, and the key that it is signed with.

    Raises:
        NotFound: nothing has been logged yet.
    """
    record = ctx.store.get(keys.checkpoint())
    if record is None:
        raise NotFound("nothing has been logged yet", hint="the log begins with the first job that ends")
    body = record.body
    return {
        "origin": verifier_key(ctx).name,
        "key": str(verifier_key(ctx)),
        "size": body["size"],
        "root": body["root"],
        "note": body["note"],
        "at_ms": body["at_ms"],
    }


def _nodes(ctx: Context, size: int) -> TileNodes:
    """The nodes of the log of ``size`` leaves."""

    def read(level: int, number: int) -> bytes:
        return _read(ctx, level, number, _length(size >> 8 * level, number))

    return TileNodes(lambda number: read(0, number), read)


def _length(count: int, number: int) -> int:
    """Bytes that a tile must have in a level of ``count`` hashes."""
    return min(BUNDLE, count - number * BUNDLE) * LEAF_BYTES


def inclusion(ctx: Context, index: int, size: int) -> list[str]:
    """Hashes, hex, that prove the leaf ``index`` to be in the log of ``size`` leaves (RFC 9162 section 2.1.3).

    Raises:
        InvalidRequest: there is no such leaf, or no checkpoint is that large.
    """
    _check_size(ctx, size, "size")
    if not 0 <= index < size:
        raise invalid("index", f"{index} is not below size {size}")
    return [node.hex() for node in merkle.inclusion_proof(index, size, _nodes(ctx, size))]


def consistency(ctx: Context, old: int, new: int) -> list[str]:
    """Hashes, hex, that prove the log of ``new`` leaves to extend that of ``old`` (RFC 9162 section 2.1.4)."""
    _check_size(ctx, new, "to")
    if not 0 < old <= new:
        raise invalid("from", f"{old} is not between 1 and {new}")
    return [node.hex() for node in merkle.consistency_proof(old, new, _nodes(ctx, new))]


def entries(ctx: Context, start: int, limit: int) -> bytes:
    """Up to ``limit`` leaves (32 bytes each) from ``start`` on, as far as the newest checkpoint goes."""
    end = min(start + min(limit, ENTRIES_MAX), _size(ctx))
    numbers = range(start // BUNDLE, -(-end // BUNDLE))
    found = b"".join(_read(ctx, 0, number, _length(end, number)) for number in numbers)
    skipped = start % BUNDLE * LEAF_BYTES
    return found[skipped : skipped + max(0, end - start) * LEAF_BYTES]


def _size(ctx: Context) -> int:
    record = ctx.store.get(keys.checkpoint())
    return 0 if record is None else int(record.body["size"])


def _check_size(ctx: Context, size: int, name: str) -> None:
    newest = _size(ctx)
    if not 0 < size <= newest:
        raise invalid(name, f"{size} is not between 1 and {newest}, the size of the newest checkpoint")
