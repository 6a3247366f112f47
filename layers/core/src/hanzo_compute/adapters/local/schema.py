"""The database file: its tables, its version, and how it is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hanzo_compute.adapters.local import integrity
from hanzo_compute.adapters.local.integrity import RESTORE, DamagedDatabase, DatabaseRefused

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        # ``entries`` repeats the record's rows of the table below as JSON, so that a write finds them.
        "CREATE TABLE records (pk TEXT NOT NULL, sk TEXT NOT NULL, rev INTEGER NOT NULL, body TEXT NOT NULL,"
        " entries TEXT, PRIMARY KEY (pk, sk)) WITHOUT ROWID",
        "CREATE TABLE entries (name TEXT NOT NULL, ipk TEXT NOT NULL, isk TEXT NOT NULL, pk TEXT NOT NULL,"
        " sk TEXT NOT NULL, PRIMARY KEY (name, ipk, isk, pk, sk)) WITHOUT ROWID",
        "CREATE TABLE messages (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, queue TEXT NOT NULL,"
        " body TEXT NOT NULL, sent_ms INTEGER NOT NULL, visible_ms INTEGER NOT NULL,"
        " receives INTEGER NOT NULL DEFAULT 0, deliveries INTEGER NOT NULL DEFAULT 0)",
        "CREATE INDEX messages_visible ON messages (queue, visible_ms, seq)",
    ),
)
"""Statements that lead from version n to n+1. Append only: databases out there have run the earlier ones."""

CHECKPOINT_PAGES: Final = 1000
WAL_BYTES_MAX: Final = 64 * 2**20
"""A log over this size is emptied even if readers must be waited for, and never kept larger."""
BUSY_MS: Final = 5000
SETTLE_BUSY_MS: Final = 100
"""How long readers are waited for at most when the log is to be emptied: nobody is served meanwhile."""
TABLES: Final = frozenset({"records", "entries", "messages"})


class NewerSchema(DatabaseRefused):
    """A newer release has written this database."""


def path_of(home: Path) -> Path:
    """The database of a state folder."""
    return home / "db" / "hanzo.sqlite3"


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The one connection that writes: WAL, synchronous, migrated, its log emptied.

    Raises:
        DatabaseRefused: the files are not what they should be; they are left as they are.
    """
    integrity.check_files(path)
    try:
        _inspect(path)
        db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        try:
            _prepare(db, path)
        except BaseException:
            db.close()
            raise
    except sqlite3.OperationalError as error:
        raise DatabaseRefused(
            f"cannot open {path}: {error}; see whether the disk is full, read-only or failing"
        ) from error
    except sqlite3.DatabaseError as error:
        raise DamagedDatabase(f"{path} is damaged: {error}; {RESTORE}") from error
    integrity.mark(path, integrity.MADE, "")
    return db


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that sees what is committed. Raises sqlite3.Error."""
    # The file's owner uses it from one thread at a time, not always the same one.
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)


def _inspect(path: Path) -> None:
    """Raise DatabaseRefused unless it is a whole database of ours, or none yet.

    By a connection that cannot write: closing one that can would move the log into a file that is damaged.
    """
    if not path.exists() or not path.stat().st_size:
        return
    db = open_for_reading(path)
    try:
        db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if (version and not tables >= TABLES and version <= len(MIGRATIONS)) or (not version and tables):
            raise DamagedDatabase(f"{path} is a database of another program; move it away")
        if version > len(MIGRATIONS):
            raise NewerSchema(
                f"{path} has schema version {version}, this release knows {len(MIGRATIONS)}: "
                "install a newer one, or start with another HZC_HOME"
            )
        integrity.check_length(db, path)
        integrity.check_all(db, path)
    finally:
        db.close()


def version(path: Path) -> int:
    """The schema version of a database that is there. Raises sqlite3.Error."""
    db = open_for_reading(path)
    try:
        found: int = db.execute("PRAGMA user_version").fetchone()[0]
    finally:
        db.close()
    return found


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    mode: str = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise DatabaseRefused(f"{path} is on a file system without shared memory (mode {mode}); use a local disk")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if 0 < version < len(MIGRATIONS):
        _keep_copy(db, path, version)
    _migrate(db, version)
    try:
        settle(db)
    except sqlite3.OperationalError as error:
        # With a full disk nothing is in doubt, and what is there can be read.
        if not integrity.is_full(error):
            raise


def settle(db: sqlite3.Connection) -> bool:
    """Move the whole log into the database, synced, and empty it; False when readers were in the way.

    After a sync that failed, the kernel may hold pages for written that are not: reading them back proves nothing.
    So nothing is trusted that a log said before: all of it is written once more, to another file, and that is synced.
    """
    db.execute(f"PRAGMA busy_timeout = {SETTLE_BUSY_MS}")
    try:
        busy: int = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return not busy


def copy_of(path: Path, version: int) -> Path:
    """Where the database is kept as it was before it was migrated from ``version``."""
    return path.with_name(f"{path.name}.v{version}.bak")


def _keep_copy(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the database, for the release that wrote it: a migration is not undone. Raises DatabaseRefused."""
    fresh = path.with_name(f"{path.name}.copy.new")
    try:
        fresh.unlink(missing_ok=True)
        db.execute("VACUUM INTO ?", (str(fresh),))
        _sync(fresh)
        fresh.replace(copy_of(path, version))
        _sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        fresh.unlink(missing_ok=True)
        raise DatabaseRefused(
            f"{path} cannot be copied before it is migrated from schema version {version}: {error}; "
            "nothing was changed: free as much disk as it has, then start again"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _migrate(db: sqlite3.Connection, version: int) -> None:
    if version == len(MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
