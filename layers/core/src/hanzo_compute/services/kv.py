"""A function's key-value store as one call sees it: read as it goes, written when its outcome is.

Every entry that was looked at is checked in the transaction that commits, so calls are serializable: what a call read
is what there is when it takes effect, or it does not take effect. Removed entries leave a record for a while that holds
their version, so that a revision that was seen never comes again while somebody may still compare with it.

A call that runs on an agent has its entries in a :class:`Buffer` there; what it leaves comes with its outcome as
:class:`~hanzo_compute.ports.Touched` entries, and :func:`of_touched` makes of them what commits it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hanzo_compute.errors import Conflict, FieldProblem, InternalError, InvalidRequest
from hanzo_compute.model import bounds, keys
from hanzo_compute.ports import (
    ABSENT,
    Body,
    Check,
    GuestRefusal,
    Operation,
    Put,
    Record,
    Seen,
    Status,
    Touched,
    WriteConflict,
)
from hanzo_compute.services.context import Context

ANY: Final = -1
"""As ``expect``: whatever is there. 0 is for nothing, a higher number for that version."""


@dataclass(slots=True)
class _Entry:
    """An entry as it was read, and as the call has left it."""

    rev: int
    stored: bool
    """Whether there was a value, not only a record of one that was removed."""
    version: int
    """The highest that the entry has had."""
    value: bytes | None
    changed: bool = False

    def meets(self, expect: int) -> bool:
        return expect in (ANY, 0 if self.value is None else self.version)


Read = Callable[[bytes, bool], Seen]
"""How an entry is read; ``True``: as it is now, however new that is. Raises what keeps it from being read."""


class Buffer:
    """The entries of one function as one call has read and left them; nothing is written. ``fresh``: a second try."""

    def __init__(self, read: Read, *, fresh: bool = False) -> None:
        self._read_entry = read
        self._fresh = fresh
        self._entries: dict[bytes, _Entry] = {}
        self._held = 0

    @property
    def writes(self) -> bool:
        """Whether there is anything to commit but checks."""
        return any(entry.changed for entry in self._entries.values())

    def get(self, key: bytes) -> tuple[bytes, int] | None:
        """The value and its version, or None; what this call has put or deleted before counts.

        Raises:
            GuestRefusal: the key has no or too many bytes (INVALID), or the call has used too many keys (LIMIT).
        """
        entry = self._entry(key)
        return None if entry.value is None else (entry.value, entry.version)

    def put(self, key: bytes, value: bytes, expect: int = ANY) -> Status:
        """Write a value if the entry is as expected: OK, or CONFLICT. Raises GuestRefusal as :meth:`get`."""
        if len(value) > bounds.KV_VALUE_MAX:
            raise GuestRefusal(Status.INVALID, f"kv: a value has at most {bounds.KV_VALUE_MAX} bytes")
        entry = self._expected(key, expect)
        if entry is None:
            return Status.CONFLICT
        held = self._held - (len(entry.value or b"") if entry.changed else 0) + len(value)
        if held > bounds.KV_WRITTEN_MAX:
            raise GuestRefusal(Status.LIMIT, f"kv: a call writes at most {bounds.KV_WRITTEN_MAX} bytes")
        self._held = held
        entry.value, entry.version, entry.changed = value, entry.version + 1, True
        return Status.OK

    def delete(self, key: bytes, expect: int = ANY) -> Status:
        """Remove an entry if it is as expected: OK, also where there is none and none or any was; or CONFLICT."""
        entry = self._expected(key, expect)
        if entry is None:
            return Status.CONFLICT
        if entry.changed:
            self._held -= len(entry.value or b"")
        entry.changed = entry.changed or entry.value is not None
        entry.value = None
        return Status.OK

    def touched(self) -> list[Touched]:
        """What the call has read and left, each key once: goes with its outcome if that is not decided here."""
        return [
            Touched(key, entry.rev, entry.version, entry.value, entry.changed) for key, entry in self._entries.items()
        ]

    def _expected(self, key: bytes, expect: int) -> _Entry | None:
        """The entry if it is as expected; what was not read before is read again before that is denied."""
        if expect < ANY:
            raise GuestRefusal(Status.INVALID, "kv: expect is -1, 0 or a version")
        first = key not in self._entries
        entry = self._entry(key)
        if not entry.meets(expect) and first and not self._fresh:
            entry = self._entries[key] = self._read(key, fresh=True)
        return entry if entry.meets(expect) else None

    def _entry(self, key: bytes) -> _Entry:
        found = self._entries.get(key)
        if found is None:
            if not 0 < len(key) <= bounds.KV_KEY_MAX:
                raise GuestRefusal(Status.INVALID, f"kv: a key has 1 to {bounds.KV_KEY_MAX} bytes")
            if len(self._entries) >= bounds.KV_TOUCHED_MAX:
                raise GuestRefusal(Status.LIMIT, f"kv: a call uses at most {bounds.KV_TOUCHED_MAX} keys")
            found = self._entries[key] = self._read(key, fresh=self._fresh)
        return found

    def _read(self, key: bytes, *, fresh: bool) -> _Entry:
        seen = self._read_entry(key, fresh)
        return _Entry(seen.rev, seen.value is not None, seen.version, seen.value)


class Session(Buffer):
    """The entries of one function during one call. ``fresh`` reads go through the writer: for a second try."""

    def __init__(self, ctx: Context, tenant: str, function: str, *, fresh: bool = False) -> None:
        super().__init__(lambda key, fresh: read(ctx, tenant, function, key, fresh=fresh), fresh=fresh)
        self._ctx = ctx
        self._tenant = tenant
        self._function = function

    def operations(self) -> list[Operation]:
        """What commits this call, one operation for each key: belongs to the transaction that accepts its outcome."""
        return [_operation(self._ctx, self._tenant, self._function, key, each) for key, each in self._entries.items()]

    def commit(self, operations: Sequence[Operation] = ()) -> None:
        """Commit this call's entries with ``operations``, or nothing of them.

        Raises:
            Conflict: an entry has changed since it was read: run the call again, in a fresh session.
            WriteConflict: one of ``operations`` does not hold.
            Unavailable: it may have been committed: ``operations`` should hold what tells.
        """
        own = self.operations()
        if not own and not operations:
            return
        try:
            self._ctx.store.transact([*own, *operations])
        except WriteConflict as conflict:
            if self.lost(conflict.current):
                raise changed(self._function) from None
            raise

    def lost(self, conflicting: Iterable[keys.Key]) -> bool:
        """Whether a conflict on these keys is one on this call's entries."""
        own = {keys.kv(self._tenant, self._function, key) for key in self._entries}
        return not own.isdisjoint(conflicting)


def read(ctx: Context, tenant: str, function: str, key: bytes, *, fresh: bool = False) -> Seen:
    """An entry as it is in the store."""
    record = ctx.store.get(keys.kv(tenant, function, key), fresh=fresh)
    if record is None:
        return Seen(ABSENT, 0, None)
    return Seen(record.rev, record.body["version"], value_of(record))


def of_touched(ctx: Context, tenant: str, function: str, touched: Sequence[Touched]) -> list[Operation]:
    """What commits a call that ran elsewhere: as :meth:`Session.operations`, from what the call says that it saw.

    Of that only the revisions are believed, since the transaction compares them; bounds are checked here again.

    Raises:
        InvalidRequest: these are no entries that one call can leave.
        Conflict: an entry has changed since it was read.
    """
    problem = _problem(touched)
    if problem is not None:
        raise InvalidRequest(f"entries {problem.message}", fields=[problem])
    operations = []
    for each in touched:
        seen = read(ctx, tenant, function, each.key)
        if seen.rev != each.rev:
            seen = read(ctx, tenant, function, each.key, fresh=True)
        if seen.rev != each.rev:
            raise changed(function)
        # A version that was seen means one value for good: so it grows with every change, and by nothing else.
        version = max(each.version, seen.version + (each.value is not None)) if each.changed else seen.version
        entry = _Entry(each.rev, seen.value is not None, version, each.value, each.changed)
        operations.append(_operation(ctx, tenant, function, each.key, entry))
    return operations


def _problem(touched: Sequence[Touched]) -> FieldProblem | None:
    if len(touched) > bounds.KV_TOUCHED_MAX:
        return FieldProblem("entries", f"are over {bounds.KV_TOUCHED_MAX}", "too_many")
    if len({each.key for each in touched}) != len(touched):
        return FieldProblem("entries", "have a key twice", "twice")
    if any(not 0 < len(each.key) <= bounds.KV_KEY_MAX for each in touched):
        return FieldProblem("entries", f"have a key that is not of 1 to {bounds.KV_KEY_MAX} bytes", "too_large")
    sizes = [len(each.value) for each in touched if each.changed and each.value is not None]
    if sum(sizes) > bounds.KV_WRITTEN_MAX or max(sizes, default=0) > bounds.KV_VALUE_MAX:
        message = f"have a value over {bounds.KV_VALUE_MAX} bytes, or over {bounds.KV_WRITTEN_MAX} together"
        return FieldProblem("entries", message, "too_large")
    return None


def _operation(ctx: Context, tenant: str, function: str, key: bytes, entry: _Entry) -> Operation:
    at = keys.kv(tenant, function, key)
    now = ctx.clock.now_ms()
    if not entry.changed or (entry.value is None and not entry.stored):
        return Check(at, entry.rev)
    if entry.value is None:
        expires = now + ctx.policy.idempotency_ms
        left: Body = {"version": entry.version, "expires_ms": expires}
        return Put(at, left, expect=entry.rev, index={keys.BY_DUE: keys.expiry_entry(expires, at)})
    body = {"value": base64.b64encode(entry.value).decode(), "version": entry.version, "at_ms": now}
    return Put(at, body, expect=entry.rev)


def value_of(record: Record) -> bytes | None:
    """The value that a record holds; None if it is what was left of one."""
    try:
        return base64.b64decode(record.body["value"], validate=True) if "value" in record.body else None
    except (TypeError, ValueError):
        raise InternalError(
            f"the entry {record.key.sk} of {record.key.pk} cannot be read", hint="restore a backup, or write it again"
        ) from None


def changed(function: str) -> Conflict:
    """The error for a call that lost against another one."""
    return Conflict(
        f"entries of function {function} changed while a call was using them, so it changed nothing",
        hint="call it again",
    )
