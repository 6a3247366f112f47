"""Batches of invocations: one signature, one leaf and two records for many statements.

A batch belongs to one tenant. It is named by the last invocation in it, so that writing one again writes it once, and
begins at most ``SPAN_MS`` before that, so that an invocation's batch is found by a short range of leaves.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hanzo_compute.errors import InternalError, NotFound
from hanzo_compute.model import invocation as forms
from hanzo_compute.model import keys, statement
from hanzo_compute.model.invocation import Invocation, Kind, Row
from hanzo_compute.model.statement import Signed, Stated
from hanzo_compute.ports import ABSENT, Body, KeyKind, Put, Record, WriteConflict
from hanzo_compute.services import agents, leaves, log
from hanzo_compute.services.context import Context
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.form import FORMAT

INVOCATIONS_MAX: Final = 512
"""Invocations of one batch."""
SPAN_MS: Final = 60_000
"""From the first start in a batch to the last."""
LATE_MS: Final = 5_000
"""From the end of an invocation to its batch, while nothing is wrong."""
BYTES_MAX: Final = 380_000
"""Of a batch's kinds and rows, at most; the rest of its record is small."""
ROW_BYTES: Final = 380
OUTPUT_BYTES: Final = 90
LESSEE: Final = "platform"
MARK: Final = 3
"""Characters of an invocation's id that its batch's leaf has, to be found by: they are random."""
PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch that has been signed, as it is written: the same however often."""

    ids: tuple[str, ...]
    leaf: Put
    statements: Put


def introduce(ctx: Context, agent: str) -> None:
    """See that the platform's own agent has a key, and that it is the one it had before.

    Raises:
        PermissionDenied: the name has another key.
    """
    agents.introduce(ctx, LESSEE, agent, statement.key_id(ctx.vault.public_key(agent, KeyKind.P256)))


Part = list[tuple[int, Invocation]]
"""Invocations of one batch, each with a number that it shares with those that are alike."""


class _Alike:
    """Says which invocations are alike. Terms are mostly one object for each version, and are looked at once."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._terms: dict[int, tuple[int, int]] = {}

    def _number(self, what: Any) -> int:
        return self._numbers.setdefault(what, len(self._numbers))

    def of(self, each: Invocation) -> tuple[int, int]:
        """What those of one batch have in common, and what those have whose statements are alike."""
        terms, end = each.terms, each.outcome
        if id(terms) not in self._terms:
            group = self._number((terms.rates.token, terms.settlement))
            self._terms[id(terms)] = group, self._number((terms.rates.digest, terms.most, terms.tier, group))
        group, price = self._terms[id(terms)]
        what = (price, each.function, each.spec, each.code, each.runtime, end.runtime_version)
        how = (end.exit_code, end.signal, end.trap, end.oom, end.child_oom, end.timed_out, *end.truncated)
        return group, self._number((*what, end.category.value, *how))


def cut(invocations: Sequence[Invocation]) -> Iterator[Part]:
    """Those that go into one batch, each time: in the order of their ids."""
    alike, sizes = _Alike(), dict[int, int]()
    groups: dict[tuple[str, int], Part] = {}
    for each in invocations:
        group, kind = alike.of(each)
        groups.setdefault((each.tenant, group), []).append((kind, each))
        if kind not in sizes:
            sizes[kind] = _kind_bytes(each)
    for found in groups.values():
        found.sort(key=lambda pair: pair[1].id)
        yield from _parts(found, sizes)


def _parts(found: Part, sizes: Mapping[int, int]) -> Iterator[Part]:
    part, known = Part(), set[int]()
    size, until = 0, ""
    for kind, each in found:
        own = ROW_BYTES + sum([OUTPUT_BYTES + len(output.name) for output in each.outcome.outputs])
        whole = size + own + (0 if kind in known else sizes[kind])
        if part and (len(part) == INVOCATIONS_MAX or whole > BYTES_MAX or each.id > until):
            yield part
            part, known = [], set()
            whole = own + sizes[kind]
        if not part:
            until = f"i-{forms.ulid_before(forms.began_ms(each.id[2:]) + SPAN_MS)}"
        part.append((kind, each))
        known.add(kind)
        size = whole
    yield part


def _kind_bytes(invocation: Invocation) -> int:
    kind = Kind.of(invocation, "")
    return len(json.dumps(kind.shared)) + len(json.dumps(kind.rates.as_json())) + 256


def seal(ctx: Context, agent: str, part: Part) -> Sealed:
    """Make the statements of a batch, and sign it with the key of this name."""
    kinds: dict[int, Kind] = {}
    places: dict[int, int] = {}
    rows: list[Row] = []
    digests: list[bytes] = []
    for number, each in part:
        if number not in kinds:
            places[number] = len(kinds)
            kinds[number] = Kind.of(each, agent)
        made = forms.row(each)
        rows.append(made)
        digests.append(forms.root(kinds[number], made))
    first, last = part[0][1], part[-1][1]
    tenant, ulid = last.tenant, last.id[2:]
    tree = merkle.BulkRoot()
    tree.update(b"".join(digests))
    header = forms.header(f"b-{ulid}", agent, tree.root(), rows, last.terms)
    stated = _signed(ctx, agent, header)
    leaf = leaves.of_batch(ctx, tenant, header, stated)
    record = {
        "header": header,
        "signature": stated.signed.signature.hex(),
        "key": stated.signed.key.hex(),
        "leaf": leaf.as_json(),
        "digests": base64.b64encode(b"".join(digests)).decode(),
        "kinds": [{"shared": kind.shared, "rates": kind.rates.as_json()} for kind in kinds.values()],
        "rows": [[places[number], *made] for (number, _), made in zip(part, rows, strict=True)],
    }
    ids = tuple([each.id for _, each in part])
    marks = "".join([each[-MARK:] for each in ids])
    at_ms = forms.began_ms(ulid)
    return Sealed(
        ids,
        leaf.put_at(keys.batch_leaf(tenant, at_ms, ulid), first=first.id[2:], marks=marks),
        Put(keys.batch(tenant, at_ms, ulid), record, expect=ABSENT),
    )


def _signed(ctx: Context, agent: str, header: Body) -> Stated:
    root = statement.root(statement.field_digests(header))
    signature = ctx.vault.sign(agent, KeyKind.P256, forms.signing_digest(header, root))
    return Stated(header, root, Signed(ctx.vault.public_key(agent, KeyKind.P256), signature))


def write(ctx: Context, sealed: Sealed) -> None:
    """Write a batch, all of it or nothing. Writing it again is the same as once.

    Raises:
        InternalError: another batch has an invocation of this one.
        Unavailable: it may have been written, or not.
    """
    try:
        ctx.store.transact([sealed.statements, sealed.leaf])
    except WriteConflict as conflict:
        there = conflict.current.get(sealed.leaf.key)
        if there is None or there.body["leaf"] != sealed.leaf.body["leaf"]:
            raise InternalError(f"invocation {sealed.ids[-1]} was in another batch before") from None


@dataclass(frozen=True, slots=True)
class Found:
    """The receipt of an invocation, or None while its leaf waits for a checkpoint."""

    receipt: dict[str, Any] | None


def expected(ctx: Context, invocation: str) -> bool:
    """Whether an invocation of this id may be running, or wait for its batch."""
    match = forms.ID.fullmatch(invocation)
    return match is not None and abs(ctx.clock.now_ms() - forms.began_ms(match[1])) < SPAN_MS + LATE_MS


def receipt(ctx: Context, tenant: str, invocation: str) -> Found:
    """The receipt of an invocation.

    Raises:
        NotFound: no batch of the tenant has it (yet).
    """
    match = forms.ID.fullmatch(invocation)
    found = None if match is None else _find(ctx, tenant, match[1])
    if found is None:
        raise NotFound(
            f"there is no receipt of an invocation {invocation}",
            hint="it comes a second after the answer: try again; what the platform failed to run has none",
            invocation=invocation,
        )
    leaf, stored, place = found
    newest = ctx.store.get(keys.checkpoint())
    index = leaf.body.get("index")
    if newest is None or index is None or index >= newest.body["size"]:
        return Found(None)
    return Found(_made(ctx, leaf, stored, place, newest.body))


def _find(ctx: Context, tenant: str, ulid: str) -> tuple[Record, Body, int] | None:
    """Leaf and statements of the batch that has an invocation, and its place there."""
    began_ms = forms.began_ms(ulid)
    after = f"{keys.LEAF}{ulid[:-1]}{chr(ord(ulid[-1]) - 1)}~"  # just before its own
    for at_ms in dict.fromkeys((began_ms >> 20 << 20, began_ms + SPAN_MS >> 20 << 20)):
        partition = keys.batch_partition(tenant, at_ms)
        start = after
        while rows := ctx.store.query(partition, prefix=keys.LEAF, after=start, limit=PAGE):
            for leaf in rows:
                last = leaf.key.sk.removeprefix(keys.LEAF)
                if forms.began_ms(last) > began_ms + SPAN_MS:
                    return None
                if leaf.body["first"] <= ulid and (found := _within(ctx, tenant, leaf, last, ulid)) is not None:
                    return leaf, *found
            start = rows[-1].key.sk
    return None


def _within(ctx: Context, tenant: str, leaf: Record, last: str, ulid: str) -> tuple[Body, int] | None:
    marks: str = leaf.body["marks"]
    if all(marks[at : at + MARK] != ulid[-MARK:] for at in range(0, len(marks), MARK)):
        return None
    record = ctx.store.get(keys.batch(tenant, forms.began_ms(last), last))
    if record is None:
        raise InternalError(f"the statements of batch b-{last} are not there", hint="hzc doctor")
    ids = [row[1] for row in record.body["rows"]]
    return (record.body, ids.index(f"i-{ulid}")) if f"i-{ulid}" in ids else None


def _made(ctx: Context, leaf: Record, stored: Body, place: int, newest: Body) -> dict[str, Any]:
    number, *own = stored["rows"][place]
    kind = stored["kinds"][number]
    stated = forms.body(kind["shared"], own)
    fields = statement.field_digests(stated)
    data = base64.b64decode(stored["digests"])
    digests = [data[at : at + 32] for at in range(0, len(data), 32)]
    if statement.root(fields) != digests[place]:
        raise InternalError(
            f"the statement about {own[0]} is not what was signed", hint="restore a backup: hzc restore"
        )
    nodes = merkle.nodes_over([merkle.leaf_hash(each) for each in digests])
    header, kept = stored["header"], stored["leaf"]
    return {
        "format": FORMAT,
        "leaf": {
            "salt": kept["salt"],
            "data": leaf.body["leaf"],
            "body": kept["body"],
            "fields": statement.field_digests(kept["body"]),
        },
        "proof": {"index": leaf.body["index"], "hashes": log.inclusion(ctx, leaf.body["index"], newest["size"])},
        "checkpoint": newest["note"],
        "platform_key": str(log.verifier_key(ctx)),
        "batch": {
            "header": header,
            "fields": statement.field_digests(header),
            "proof": {
                "index": place,
                "hashes": [node.hex() for node in merkle.inclusion_proof(place, len(digests), nodes)],
            },
        },
        "statement": stated,
        "fields": fields,
        "signature": stored["signature"],
        "agent_key": stored["key"],
        "rates": kind["rates"],
    }
