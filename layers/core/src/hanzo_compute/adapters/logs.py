"""LogStore on any JobStore and BlobStore: small chunks in the record, larger ones in a blob."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pydantic_core import from_json, to_json

from hanzo_compute.errors import Conflict, InternalError, InvalidRequest, PayloadTooLarge
from hanzo_compute.model import keys
from hanzo_compute.model.bounds import INLINE_OUTPUT_MAX, LOG_CHUNK_MAX, LOG_CHUNKS_MAX
from hanzo_compute.ports import (
    ABSENT,
    BlobStore,
    Body,
    Check,
    JobStore,
    LogEntry,
    LogPage,
    Put,
    Record,
    WriteConflict,
)

_CURSOR: Final = re.compile(r"([0-9]{1,8})\.([0-9]{1,8})")
_ATTEMPT_MAX: Final = 10**8 - 1


class RecordLogs:
    """Logs as records of one partition per job; the cursor names the last chunk read."""

    def __init__(self, store: JobStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs

    def append(
        self,
        tenant: str,
        job: str,
        attempt: int,
        seq: int,
        entries: Sequence[LogEntry],
        *,
        guard: Sequence[Check] = (),
    ) -> None:
        """Store one chunk; the same again is the same as once.

        Raises:
            WriteConflict: the chunk is new, and the ``guard`` did not hold.
            PayloadTooLarge: more than 256 KiB of text, or too many chunks.
            Conflict: another chunk has this number.
        """
        put = self.chunk(tenant, job, attempt, seq, entries)
        try:
            self._store.transact([put, *guard])
        except WriteConflict as conflict:
            if put.key not in conflict.current:
                raise
            found = conflict.current[put.key]
            if found is None or found.body != put.body:
                raise Conflict(
                    f"log chunk {seq} of attempt {attempt} is there with other text", hint="count on from it"
                ) from None

    def chunk(self, tenant: str, job: str, attempt: int, seq: int, entries: Sequence[LogEntry]) -> Put:
        """The write that stores a new chunk, for a transaction of the caller's.

        Raises:
            PayloadTooLarge: more than 256 KiB of text, or too many chunks.
        """
        if not (1 <= attempt <= _ATTEMPT_MAX and seq >= 1):
            raise InvalidRequest(f"attempt and seq count from 1, not {attempt} and {seq}")
        if seq > LOG_CHUNKS_MAX:
            raise PayloadTooLarge(f"an attempt has at most {LOG_CHUNKS_MAX} log chunks", hint="send larger ones")
        return Put(keys.log(job, attempt, seq), self._body(tenant, entries), expect=ABSENT)

    def read(self, tenant: str, job: str, cursor: str = "", *, limit: int = 16) -> LogPage:
        """Up to ``limit`` chunks after ``cursor``, attempts in order. Raises InvalidRequest: bad cursor."""
        after = _after(job, cursor)
        found = self._store.query(keys.log_partition(job), after=after, limit=limit)
        entries: list[LogEntry] = []
        for record in found:
            if record.body["tenant"] == tenant:
                entries.extend(self._entries(tenant, record))
        return LogPage(entries, _cursor(found[-1]) if found else cursor)

    def _body(self, tenant: str, entries: Sequence[LogEntry]) -> Body:
        rows = [[entry.at_ms, entry.stream, entry.text] for entry in entries]
        size = sum(len(entry.text.encode()) for entry in entries)
        if size > LOG_CHUNK_MAX:
            raise PayloadTooLarge(f"a log chunk of {size} bytes is over {LOG_CHUNK_MAX}", hint="split it")
        text = to_json(rows)
        if len(text) <= INLINE_OUTPUT_MAX:
            return {"tenant": tenant, "entries": rows}
        return {"tenant": tenant, "blob": self._blobs.put(tenant, text)}

    def _entries(self, tenant: str, record: Record) -> list[LogEntry]:
        rows = record.body.get("entries")
        if rows is None:
            rows = from_json(self._blobs.get(tenant, record.body["blob"]), cache_strings="keys")
        return [LogEntry(at_ms, stream, text) for at_ms, stream, text in rows]


def _after(job: str, cursor: str) -> str:
    if not cursor:
        return ""
    parts = _CURSOR.fullmatch(cursor)
    if not parts:
        raise InvalidRequest("not a log cursor", hint="use the cursor of the last page, or none")
    return keys.log(job, int(parts[1]), int(parts[2])).sk


def _cursor(record: Record) -> str:
    attempt, _, seq = record.key.sk.partition("#")
    if not (attempt.isdecimal() and seq.isdecimal()):
        raise InternalError(f"{record.key} is not a log chunk")
    return f"{int(attempt)}.{int(seq)}"
