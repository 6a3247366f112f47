"""Batches of requests on the database: each request in a savepoint, all of them in one commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from hanzo_compute.adapters.local import messages, records
from hanzo_compute.adapters.local.frames import Frame
from hanzo_compute.ports import DEAD_LETTERS, queue_wake


class BatchLost(Exception):
    """Nothing of the open batch happened; requests that were answered as applied are lost."""


class Engine:
    """Applies requests one after the other; :meth:`commit` makes them durable together."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._woken: dict[str, None] = {}
        self._operations: dict[str, Callable[..., Any]] = {
            "get": self._get,
            "query": self._query,
            "transact": self._transact,
            "send": self._send,
            "receive": self._receive,
            "ack": self._ack,
            "nack": self._nack,
            "redrive": self._redrive,
        }
        self.size = 0
        """Requests in the open batch."""
        self.commits = 0
        self.requests = 0
        self.largest = 0

    def apply(self, request: Frame) -> Frame:
        """The answer to a request without its id. Raises BatchLost when the whole batch is gone."""
        self.requests += 1
        try:
            operation, args = self._operations[request["op"]], request["args"]
            self._begin()
            self._db.execute("SAVEPOINT request")
            answer = operation(*args)
            self._db.execute("RELEASE request")
            return answer if isinstance(answer, dict) else {"ok": answer}
        except sqlite3.ProgrammingError as error:
            return self._undo(error, invalid=True)
        except sqlite3.Error as error:
            return self._undo(error, invalid=False)
        except (LookupError, TypeError, ValueError) as error:
            return self._undo(error, invalid=True)

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
        self.size += 1

    def _undo(self, error: Exception, *, invalid: bool) -> Frame:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO request")
                self._db.execute("RELEASE request")
        except sqlite3.Error as second:
            self._reset()
            raise BatchLost(f"{error}; {second}") from error
        if not self._db.in_transaction:
            # Out of disk space or an I/O error: SQLite has rolled the whole transaction back.
            others = self.size > 1
            self._reset()
            if others:
                raise BatchLost(str(error)) from error
        return {"error": f"{type(error).__name__}: {error}", "invalid": invalid}

    def commit(self) -> list[str]:
        """Make the batch durable; returns the partitions that changed. Raises BatchLost."""
        try:
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._reset()
            raise BatchLost(str(error)) from error
        woken = list(self._woken)
        self.commits += 1
        self.largest = max(self.largest, self.size)
        self._woken.clear()
        self.size = 0
        return woken

    def _reset(self) -> None:
        self._woken.clear()
        self.size = 0
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Move the log into the database and close it."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    def _get(self, pk: str, sk: str) -> Any:
        return records.get(self._db, pk, sk)

    def _query(self, pk: str, prefix: str, after: str, limit: int, reverse: bool) -> Any:
        return records.query(self._db, pk, prefix, after, limit, reverse)

    def _transact(self, operations: list[records.Row]) -> Any:
        conflicts = records.transact(self._db, operations)
        if conflicts:
            return {"conflict": conflicts}
        for kind, pk, _, _, *rest in operations:
            if kind != "check":
                self._wake(pk)
            if kind == "put":  # who waits for a place in an index waits for its partition
                self._wake(*(entry[0] for entry in rest[1].values()))
        return None

    def _send(self, queue: str, message: str, body: str, now_ms: int, visible_ms: int) -> None:
        messages.send(self._db, queue, message, body, now_ms, visible_ms)
        if visible_ms <= now_ms:
            self._wake(queue_wake(queue))

    def _receive(self, queue: str, now_ms: int, visible_ms: int, limit: int, most: int | None) -> Any:
        if most is not None and messages.bury(self._db, queue, now_ms, most, limit):
            self._wake(queue_wake(queue + DEAD_LETTERS))
        return messages.receive(self._db, queue, now_ms, visible_ms, limit)

    def _ack(self, held: list[tuple[str, messages.Receipt]], now_ms: int) -> None:
        messages.ack(self._db, held, now_ms)

    def _nack(self, queue: str, receipt: messages.Receipt, now_ms: int, visible_ms: int) -> None:
        if messages.nack(self._db, queue, receipt, now_ms, visible_ms) and visible_ms <= now_ms:
            self._wake(queue_wake(queue))

    def _redrive(self, queue: str, now_ms: int, limit: int) -> int:
        moved = messages.redrive(self._db, queue, now_ms, limit)
        if moved:
            self._wake(queue_wake(queue))
        return moved

    def _wake(self, *partitions: str) -> None:
        self._woken.update(dict.fromkeys(partitions))
