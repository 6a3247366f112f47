"""A function's key-value store as one call sees it: read as it goes, written when its outcome is.

Every entry that was looked at is checked in the transaction that commits, so calls are serializable: what a call read
is what there is when it takes effect, or it does not take effect. Removed entries leave a record for a while that holds
their version, so that a revision that was seen never comes again while somebody may still compare with it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hanzo_compute.errors import Conflict, InternalError
from hanzo_compute.model import bounds, keys
from hanzo_compute.ports import (
    ABSENT,
    Body,
    Check,
    GuestRefusal,
    Operation,
    Put,
    Record,
    Status,
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


class Session:
    """The entries of one function during one call. ``fresh`` reads go through the writer: for a second try."""

    def __init__(self, ctx: Context, tenant: str, function: str, *, fresh: bool = False) -> None:
        self._ctx = ctx
        self._tenant = tenant
        self._function = function
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

    def operations(self) -> list[Operation]:
        """What commits this call, one operation for each key: belongs to the transaction that accepts its outcome."""
        return [self._operation(key, entry) for key, entry in self._entries.items()]

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

    def _operation(self, key: bytes, entry: _Entry) -> Operation:
        at = keys.kv(self._tenant, self._function, key)
        now = self._ctx.clock.now_ms()
        if not entry.changed or (entry.value is None and not entry.stored):
            return Check(at, entry.rev)
        if entry.value is None:
            expires = now + self._ctx.policy.idempotency_ms
            left: Body = {"version": entry.version, "expires_ms": expires}
            return Put(at, left, expect=entry.rev, index={keys.BY_DUE: keys.expiry_entry(expires, at)})
        body = {"value": base64.b64encode(entry.value).decode(), "version": entry.version, "at_ms": now}
        return Put(at, body, expect=entry.rev)

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
        record = self._ctx.store.get(keys.kv(self._tenant, self._function, key), fresh=fresh)
        if record is None:
            return _Entry(ABSENT, False, 0, None)
        value = value_of(record)
        return _Entry(record.rev, value is not None, record.body["version"], value)


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
