"""JobStore on SQLite: writes and fresh reads through the writer, other reads on a connection of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any, TypeVar

from hanzo_compute.adapters.checks import check_index, check_limit, check_operations, decode_body
from hanzo_compute.adapters.local import integrity, records, schema
from hanzo_compute.adapters.local.client import Requests
from hanzo_compute.adapters.local.queue import SqliteQueue
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, Check, Operation, Put, Record, Send, WriteConflict

T = TypeVar("T")


class SqliteStore:
    """Reads see what is committed; those of records also what this caller has written since its last ticket.

    With the ``queue`` of the same writer, transactions can send messages.
    """

    def __init__(self, client: Requests, queue: SqliteQueue | None = None) -> None:
        self._client = client
        self._queue = queue
        self._db: sqlite3.Connection | None = None
        self._lock = RLock()

    @property
    def sends(self) -> bool:
        """Whether transactions can send messages."""
        return self._queue is not None

    def get(self, key: Key, *, fresh: bool = False) -> Record | None:
        """The record at ``key``."""
        if fresh or key.pk in self._client.written:
            row = self._client.request("get", *key)["ok"]
        else:
            row = self._read(lambda db: records.get(db, *key))
        return _record(key, *row) if row else None

    def query(
        self, pk: str, *, prefix: str = "", after: str = "", limit: int = 100, reverse: bool = False
    ) -> list[Record]:
        """Records of a partition whose sort key starts with ``prefix``, in order of sort key."""
        check_limit(limit)
        found: list[Record] = []
        more = True
        while more and len(found) < limit:
            args = (pk, prefix, after, limit - len(found), reverse)
            rows, more = self._query(args)
            found.extend(_record(Key(pk, sk), rev, body) for sk, rev, body in rows)
            after = found[-1].key.sk if found else after
        return found

    def _query(self, args: tuple[str, str, str, int, bool]) -> tuple[list[records.Row], bool]:
        if args[0] not in self._client.written:
            return self._read(lambda db: records.query(db, *args))
        rows, more = self._client.request("query", *args)["ok"]
        return rows, more

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
        rows = self._read(lambda db: records.query_index(db, index, pk, after, before, limit, reverse))
        return [(isk, _record(Key(rpk, rsk), rev, body)) for isk, rpk, rsk, rev, body in rows]

    def count_index(self, index: str, pk: str, most: int) -> int:
        """How many entries an index partition has, counted up to ``most``."""
        check_index(index)
        check_limit(most)
        return self._read(lambda db: records.count_index(db, index, pk, most))

    def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        """Apply all operations or none, with the messages; durable when the client's next ticket is.

        Raises:
            WriteConflict: an expectation did not hold.
            Unavailable: the outcome is not known, or nothing was applied; repeat it safely.
        """
        bodies = check_operations(operations)
        rows = [_row(operation, body) for operation, body in zip(operations, bodies, strict=True)]
        if sends and self._queue is None:
            raise ValueError("this store was made without a queue: it sends no messages")
        queue = self._queue
        messages = [queue.row(each.queue, each.body, each.delay_s) for each in sends] if queue else []
        self._client.written.update(operation.key.pk for operation in operations)
        conflicts = self._client.request("transact", rows, messages).get("conflict")
        if conflicts:
            raise WriteConflict(
                {
                    Key(pk, sk): None if rev == ABSENT else _record(Key(pk, sk), rev, body)
                    for pk, sk, rev, body in conflicts
                }
            )

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                if self._db is None:
                    # The writer makes the file, so it is there once the writer answers.
                    self._client.connect()
                    self._db = schema.open_for_reading(schema.path_of(self._client.home))
                return query(self._db)
            except sqlite3.Error as error:
                self.close()
                if integrity.is_damage(error):
                    with suppress(Unavailable):  # the writer looks for itself, and stops before it makes it worse
                        self._client.request("suspect")
                raise Unavailable(f"the store cannot be read: {error}", hint=_hint(error)) from error

    def close(self) -> None:
        """Close the reading connection; the next read opens one."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None


def _hint(error: sqlite3.Error) -> str:
    if integrity.is_damage(error):
        return "the database is damaged: tell the operator, who finds what to do with hzc doctor"
    return "repeat the request; if it stays so: hzc doctor"


def _record(key: Key, rev: int, body: str) -> Record:
    return Record(key, rev, decode_body(body))


def _row(operation: Operation, body: bytes | None) -> list[Any]:
    if isinstance(operation, Put) and body is not None:
        return ["put", *operation.key, operation.expect, body.decode(), dict(operation.index)]
    kind = "check" if isinstance(operation, Check) else "delete"
    return [kind, *operation.key, operation.expect]
