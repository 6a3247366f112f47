"""Batches of requests on the database: each request in a savepoint, all of them in one commit."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.local import integrity, messages, records, schema
from hanzo_compute.adapters.local.frames import Frame
from hanzo_compute.ports import DEAD_LETTERS, queue_wake

log = logging.getLogger("hanzo_compute.writer")


class BatchLost(Exception):
    """Nothing of the open batch happened; requests that were answered as applied are lost."""


class StoreUnusable(Exception):
    """The writer must not go on with this database: damage, or a disk that does not confirm what it was given."""


LOG_STEP: Final = 16 * 2**20
"""Bytes by which a log that could not be emptied must have grown before that is tried again."""

SETTLE_TRIES: Final = 20
SUSPECT_S: Final = 60.0
"""However many readers meet damage, the database is read as a whole at most this often."""


class Engine:
    """Applies requests one after the other; :meth:`commit` makes them durable together.

    ``path`` is the database of the connection ``db``, which was opened for writing.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._log = integrity.log_of(path)
        self._log_max = schema.WAL_BYTES_MAX
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
            "hasten": self._hasten,
            "suspect": self._suspect,
        }
        self._suspect_at = 0.0
        self.size = 0
        """Requests in the open batch."""
        self.commits = 0
        self.requests = 0
        self.largest = 0

    def apply(self, request: Frame) -> Frame:
        """The answer to a request without its id.

        Raises:
            BatchLost: the whole batch is gone.
            StoreUnusable: so it is, and the database is damaged.
        """
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
        if isinstance(error, sqlite3.Error) and integrity.is_damage(error):
            raise self._damaged(error) from error
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
        """Make the batch durable; returns the partitions that changed.

        Raises:
            BatchLost: nothing of it happened, and the next one may go well.
            StoreUnusable: nothing of it was called durable, and this connection is at its end.
        """
        try:
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if integrity.is_damage(error):
                raise self._damaged(error) from error
            self._reset()
            if integrity.is_failed_sync(error):
                self._distrust(error)
            raise BatchLost(str(error)) from error
        woken = list(self._woken)
        self.commits += 1
        self.largest = max(self.largest, self.size)
        self._woken.clear()
        self.size = 0
        return woken

    def _distrust(self, failed: sqlite3.Error) -> None:
        """Have what the log says, up to the lost batch, written and synced elsewhere before anything is added."""
        log.error("the disk did not confirm a commit: %s", failed)
        try:
            settled = any(schema.settle(self._db) for _ in range(SETTLE_TRIES))
        except sqlite3.Error as error:
            raise StoreUnusable(
                f"the disk under {self._path.parent} does not confirm what is written: {error}; "
                "nothing that was called durable is given up; look at the disk"
            ) from error
        if not settled:
            raise StoreUnusable(f"readers keep the log of {self._path} from being emptied after a failed commit")

    def _damaged(self, error: sqlite3.Error) -> StoreUnusable:
        integrity.mark(self._path, integrity.DAMAGED, f"{error}\n")
        return StoreUnusable(f"{self._path} is damaged: {error}; {integrity.RESTORE}")

    def _suspect(self) -> None:
        """A reader has met damage: read the whole database, past the pages that are held in memory."""
        if time.monotonic() < self._suspect_at:
            return
        self._suspect_at = time.monotonic() + SUSPECT_S
        db = schema.open_for_reading(self._path)
        try:
            found: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            found = str(error)
        finally:
            db.close()
        if found != "ok":
            raise self._damaged(sqlite3.DatabaseError(" ".join(found.split())))

    def tend(self) -> None:
        """Keep the log from growing: SQLite begins it anew by itself only at a moment without readers."""
        try:
            size = self._log.stat().st_size
            if size <= self._log_max:
                return
            emptied = schema.settle(self._db)
        except (OSError, sqlite3.Error) as error:
            emptied, size = False, self._log_max
            log.warning("the log of the database could not be emptied: %s", error)
        self._log_max = schema.WAL_BYTES_MAX if emptied else size + LOG_STEP
        if not emptied:
            log.warning("the log of the database has %d MiB: a reader holds it, or the disk fails", size >> 20)

    def _reset(self) -> None:
        self._woken.clear()
        self.size = 0
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Move the log into the database and close it."""
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:  # a full disk, say: the log stays, and is as good
            log.warning("the log of the database stays: %s", error)
        self._db.close()

    def _get(self, pk: str, sk: str) -> Any:
        return records.get(self._db, pk, sk)

    def _query(self, pk: str, prefix: str, after: str, limit: int, reverse: bool) -> Any:
        return records.query(self._db, pk, prefix, after, limit, reverse)

    def _transact(self, operations: list[records.Row], sends: list[records.Row]) -> Any:
        conflicts = records.transact(self._db, operations)
        if conflicts:
            return {"conflict": conflicts}
        for kind, pk, _, _, *rest in operations:
            if kind != "check":
                self._wake(pk)
            if kind == "put":  # who waits for a place in an index waits for its partition
                self._wake(*(entry[0] for entry in rest[1].values()))
        for message in sends:
            self._send(*message)
        return None

    def _send(self, queue: str, message: str, body: str, now_ms: int, visible_ms: int) -> None:
        messages.send(self._db, queue, message, body, now_ms, visible_ms)
        if visible_ms <= now_ms:
            self._wake(queue_wake(queue))

    def _receive(self, queue: str, now_ms: int, visible_ms: int, limit: int, most: int | None) -> Any:
        found, moved = messages.receive(self._db, queue, now_ms, visible_ms, limit, most)
        if moved:
            self._wake(queue_wake(queue + DEAD_LETTERS))
        return found

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

    def _hasten(self, queue: str, now_ms: int, by_ms: int) -> int:
        moved = messages.hasten(self._db, queue, now_ms, by_ms)
        if moved:
            self._wake(queue_wake(queue))
        return moved

    def _wake(self, *partitions: str) -> None:
        self._woken.update(dict.fromkeys(partitions))
