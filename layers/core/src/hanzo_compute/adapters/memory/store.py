"""JobStore in memory."""

from __future__ import annotations

from collections.abc import Sequence

from hanzo_compute.adapters.checks import check_index, check_limit, check_operations, decode_body, page
from hanzo_compute.adapters.memory.commits import MemoryCommits
from hanzo_compute.adapters.memory.database import StoredRecord, alone
from hanzo_compute.adapters.memory.queue import MemoryQueue
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, Check, Operation, Put, Record, Send, WriteConflict


class MemoryStore:
    """The strict twin of the other stores; its reads are never stale. Bodies are copied in and out.

    With the ``queue`` of the same database, transactions can send messages.
    """

    def __init__(self, commits: MemoryCommits | None = None, queue: MemoryQueue | None = None) -> None:
        self._commits = commits or MemoryCommits()
        self._queue = queue
        self._database = self._commits.database

    @property
    def sends(self) -> bool:
        """Whether transactions can send messages."""
        return self._queue is not None

    @alone
    def get(self, key: Key, *, fresh: bool = False) -> Record | None:
        """The record at ``key``."""
        if fresh:
            self._commits.check()
            self._commits.touch()
        return _record(key, self._database.record(key))

    @alone
    def query(
        self, pk: str, *, prefix: str = "", after: str = "", limit: int = 100, reverse: bool = False
    ) -> list[Record]:
        """Records of a partition whose sort key starts with ``prefix``, in order of sort key."""
        check_limit(limit)
        partition = self._database.partitions.get(pk, {})
        found = sorted(sk for sk in partition if sk.startswith(prefix) and _beyond(sk, after, reverse))
        return [_present(Key(pk, sk), partition[sk]) for sk in page(found, limit, reverse)]

    @alone
    def query_index(
        self,
        index: str,
        pk: str,
        *,
        after: str = "",
        before: str = "",
        limit: int = 100,
        reverse: bool = False,
    ) -> list[tuple[str, Record]]:
        """Sort keys and records of an index partition strictly between ``after`` and ``before``."""
        check_index(index)
        check_limit(limit)
        entries = self._database.entries.get((index, pk), {})
        found = sorted((sk, key) for key, sk in entries.items() if sk > after and (not before or sk < before))
        return [(sk, _present(key, self._database.record(key))) for sk, key in page(found, limit, reverse)]

    @alone
    def count_index(self, index: str, pk: str, most: int) -> int:
        """How many entries an index partition has, counted up to ``most``."""
        check_index(index)
        check_limit(most)
        return min(len(self._database.entries.get((index, pk), {})), most)

    @alone
    def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        """Apply all operations or none, with the messages. Raises WriteConflict: an expectation did not hold."""
        bodies = check_operations(operations)
        queue = self._queue
        if sends and queue is None:
            raise ValueError("this store was made without a queue: it sends no messages")
        messages = [queue.message(each.queue, each.body, each.delay_s) for each in sends] if queue else []
        found = {operation.key: self._database.record(operation.key) for operation in operations}
        self._commits.check()
        conflicts = {
            operation.key: _record(operation.key, found[operation.key])
            for operation in operations
            if operation.expect is not None and operation.expect != _rev(found[operation.key])
        }
        if conflicts:
            self._commits.touch()
            raise WriteConflict(conflicts)
        for operation, body in zip(operations, bodies, strict=True):
            if isinstance(operation, Put) and body is not None:
                rev = _rev(found[operation.key]) + 1
                self._database.set_record(operation.key, StoredRecord(rev, body, dict(operation.index)))
            elif not isinstance(operation, Check) and found[operation.key]:
                self._database.set_record(operation.key, None)
        for message in messages:
            assert queue is not None
            queue.insert(message)
        self._commits.touch()


def _rev(record: StoredRecord | None) -> int:
    return record.rev if record else ABSENT


def _beyond(sk: str, after: str, reverse: bool) -> bool:
    return not after or (sk < after if reverse else sk > after)


def _present(key: Key, record: StoredRecord | None) -> Record:
    assert record is not None
    return Record(key, record.rev, decode_body(record.body))


def _record(key: Key, record: StoredRecord | None) -> Record | None:
    return _present(key, record) if record else None
