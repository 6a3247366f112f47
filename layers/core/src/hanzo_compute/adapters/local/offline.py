"""A state folder that no platform runs in: its store without a writer process, and what lies below the ports."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json, to_json

from hanzo_compute.adapters import blob_ids
from hanzo_compute.adapters.local import leftovers, rows, schema
from hanzo_compute.adapters.local.engine import BatchLost, Engine, StoreUnusable
from hanzo_compute.adapters.local.frames import Frame
from hanzo_compute.adapters.local.integrity import DamagedDatabase, DatabaseRefused
from hanzo_compute.errors import Conflict, InternalError, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model.bounds import BLOB_MAX
from hanzo_compute.model.keys import Key
from hanzo_compute.model.stored import BlobUse, LeftAttempt, Row, StoredMessage
from hanzo_compute.ports import Entries

STRAYS: Final = 500
"""Entries that one transaction removes."""

_INDEX: Final = "messages_visible"
_ROWS: Final = "SELECT pk, sk, rev, body, entries FROM records ORDER BY pk, sk"
_STRAY: Final = (
    "SELECT e.name, e.ipk, e.isk, e.pk, e.sk, r.entries FROM entries AS e LEFT JOIN records AS r USING (pk, sk)"
    " WHERE (e.name, e.ipk, e.isk, e.pk, e.sk) > (?, ?, ?, ?, ?) ORDER BY 1, 2, 3, 4, 5"
)
_REMOVE: Final = "DELETE FROM entries WHERE name = ? AND ipk = ? AND isk = ? AND pk = ? AND sk = ?"


class OfflineClient:
    """The writer's requests, each in a commit of its own: stands in for a :class:`WriterClient`."""

    def __init__(self, home: Path, db: sqlite3.Connection) -> None:
        self.home = home
        self.written: set[str] = set()
        self._engine = Engine(db, schema.path_of(home))

    def connect(self) -> None:
        """There is nobody to connect to."""

    def request(self, operation: str, *args: Any) -> Frame:
        """Apply a request durably. Raises Unavailable when the disk does not take it."""
        # As it would come from a socket: lists, no tuples.
        frame = from_json(to_json({"op": operation, "args": args}))
        try:
            answer = self._engine.apply(frame)
            self._engine.commit()
        except (BatchLost, StoreUnusable) as error:
            raise Unavailable(f"the store could not write: {error}", hint="look at the disk: is it full?") from error
        self.written.clear()  # all that is written can be read at once
        if "error" not in answer:
            return answer
        if answer["invalid"]:
            raise InternalError(f"the store refused {operation}: {answer['error']}")
        raise Unavailable(f"the store could not write: {answer['error']}", hint="free some disk space")


class OfflineState:
    """A state folder opened for repair; close it. Implements ``hanzo_compute.services.repair.StateFolder``.

    Raises:
        NotFound: there is no database.
        Conflict: a writer still runs there, or the database is of a newer release.
        InvalidRequest: the database is damaged.
        Unavailable: it cannot be opened for another reason.
    """

    def __init__(self, home: Path, cache: Path) -> None:
        self.home = home
        self._cache = cache
        path = schema.path_of(home)
        if not path.is_file():
            raise NotFound(f"{home} holds no platform's database", hint="set HZC_HOME to the state folder")
        self._lock = _writer_lock(home)
        self._strays_after: tuple[str, ...] = ("",) * 5
        self._recovered = _size(path.with_name(f"{path.name}-wal"))
        try:
            self.db = _open(path)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Move the log into the database, and let go of it."""
        with suppress(sqlite3.Error):
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()
        os.close(self._lock)

    def integrity(self) -> list[str]:
        """What SQLite finds wrong with the file."""
        try:
            return rows.integrity(self.db)
        except sqlite3.DatabaseError as error:
            return [str(error)]

    def rebuild_indexes(self) -> None:
        """Make SQLite's own index anew; the others are the tables themselves."""
        self.db.execute(f"REINDEX {_INDEX}")

    def is_of_index(self, problem: str) -> bool:
        """Whether :meth:`rebuild_indexes` could put it right."""
        return _INDEX in problem

    def recovered_bytes(self) -> int:
        """Bytes in the log when this was opened."""
        return self._recovered

    def rows(self) -> Iterator[Row]:
        """All records at one moment, in the order of their keys."""
        db = schema.open_for_reading(schema.path_of(self.home))
        try:
            db.execute("BEGIN")
            for pk, sk, rev, body, entries in db.execute(_ROWS):
                yield Row(Key(pk, sk), rev, _text(body), None if entries is None else _text(entries))
        finally:
            db.close()

    def correct_entries(self, expected: Iterable[tuple[Row, Entries]]) -> list[Row]:
        """Give records these entries where the record or the table has others; returns those records."""
        wrong: list[Row] = []
        self.db.execute("BEGIN IMMEDIATE")
        try:
            for row, entries in expected:
                key = row.key
                missing = [(name, *entry, *key) for name, entry in entries.items() if not self._has(name, entry, key)]
                if missing or _entries(row.entries) != {name: list(entry) for name, entry in entries.items()}:
                    column = to_json(dict(entries)).decode() if entries else None
                    self.db.execute("UPDATE records SET entries = ? WHERE pk = ? AND sk = ?", (column, *key))
                    self.db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", missing)
                    wrong.append(row)
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        return wrong

    def _has(self, name: str, entry: tuple[str, str], key: Key) -> bool:
        sql = "SELECT 1 FROM entries WHERE name = ? AND ipk = ? AND isk = ? AND pk = ? AND sk = ?"
        return self.db.execute(sql, (name, *entry, *key)).fetchone() is not None

    def stray_entries(self) -> list[str]:
        """Remove up to 500 entries that no record has; names them."""
        found: list[tuple[str, ...]] = []
        for name, ipk, isk, pk, sk, text in self.db.execute(_STRAY, self._strays_after):
            if _entries(text).get(name) != [ipk, isk]:
                found.append((name, ipk, isk, pk, sk))
                if len(found) == STRAYS:
                    self._strays_after = found[-1]  # what comes before it has been seen
                    break
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(_REMOVE, found)
        self.db.execute("COMMIT")
        return [f"{name} of {pk} {sk}" for name, _, _, pk, sk in found]

    def messages(self) -> Iterator[StoredMessage]:
        """Every message of every queue."""
        for seq, queue, body in self.db.execute("SELECT seq, queue, body FROM messages").fetchall():
            yield StoredMessage(seq, queue, _text(body))

    def drop_messages(self, seqs: Sequence[int]) -> None:
        """Remove messages."""
        self.db.executemany("DELETE FROM messages WHERE seq = ?", [(seq,) for seq in seqs])

    def blob_uses(self) -> Iterator[BlobUse]:
        """Every blob that a job's records name."""
        return rows.blob_uses(self.db)

    def blob_fault(self, tenant: str, blob: str, *, digest: bool) -> str | None:
        """``it is missing``, ``it is damaged`` or None."""
        path = self.home / "blobs" / tenant / blob[3:5] / blob
        try:
            blob_ids.check(tenant, blob)
            if not path.is_file():
                return "it is missing"
            if digest and (path.stat().st_size > BLOB_MAX or not blob.endswith(_digest(path))):
                return "it is damaged"
        except (InvalidRequest, OSError) as error:
            return f"it cannot be read ({error})"
        return None

    def temporary_files(self) -> Iterator[Path]:
        """What killed processes had not finished."""
        return leftovers.temporary(self.home, self._cache)

    def attempts(self) -> Iterator[LeftAttempt]:
        """What agents that do not run have kept of attempts."""
        return leftovers.attempts(self.home)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder."""
        if path.is_dir() and not path.is_symlink():
            # Renamed first, so that nobody ever sees a half of it.
            gone = path.with_name(f".new-removed-{path.name.lstrip('.')}")
            path.rename(gone)
            shutil.rmtree(gone)
        else:
            path.unlink(missing_ok=True)


def _open(path: Path) -> sqlite3.Connection:
    try:
        return schema.open_for_writing(path)
    except schema.NewerSchema as error:
        raise Conflict(str(error), hint="use the release that wrote it") from error
    except DamagedDatabase as error:
        raise InvalidRequest(str(error), hint="restore a backup: hzc restore FILE --force") from error
    except DatabaseRefused as error:
        raise Unavailable(str(error), hint="see to that, then try again") from error


def _writer_lock(home: Path) -> int:
    (home / "run").mkdir(mode=0o700, exist_ok=True)
    lock = os.open(home / "run" / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Conflict(f"a writer still owns the database of {home}", hint="wait until it has ended") from None
    return lock


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _entries(text: str | None) -> dict[str, Any]:
    try:
        found = from_json(text) if text else {}
    except ValueError:
        return {"": text}
    return found if isinstance(found, dict) else {"": text}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
