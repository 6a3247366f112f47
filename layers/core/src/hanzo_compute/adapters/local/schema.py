"""The database file: its tables, its version, and how it is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

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
BUSY_MS: Final = 5000


class DatabaseRefused(Exception):
    """The file cannot be used as it is; the message says why and what to do."""


class NewerSchema(DatabaseRefused):
    """A newer release has written this database."""


class DamagedDatabase(DatabaseRefused):
    """The file is not a database of ours, or is damaged."""


def path_of(home: Path) -> Path:
    """The database of a state folder."""
    return home / "db" / "hanzo.sqlite3"


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The one connection that writes: WAL, synchronous, migrated. Raises DatabaseRefused."""
    try:
        db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        try:
            _prepare(db, path)
        except BaseException:
            db.close()
            raise
        return db
    except sqlite3.OperationalError as error:
        raise DatabaseRefused(f"cannot open {path}: {error}; check its owner and free disk space") from error
    except sqlite3.DatabaseError as error:
        raise DamagedDatabase(f"{path} is damaged: {error}; restore it and its -wal from a backup") from error


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that sees what is committed. Raises sqlite3.Error."""
    # The file's owner uses it from one thread at a time, not always the same one.
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)


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
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    tables: int = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if version == 0 and tables:
        raise DamagedDatabase(f"{path} is a database of another program; move it away")
    if version > len(MIGRATIONS):
        raise NewerSchema(
            f"{path} has schema version {version}, this release knows {len(MIGRATIONS)}: install a newer one"
        )
    mode: str = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise DatabaseRefused(f"{path} is on a file system without shared memory (mode {mode}); use a local disk")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
    if 0 < version < len(MIGRATIONS):
        _keep_copy(db, path, version)
    _migrate(db, version)


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
