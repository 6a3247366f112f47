"""What the database's files say about themselves: looked at before anything is written to them.

SQLite takes an empty file for a new database, a file of another shape for an error at some later read, and a log
whose head is damaged for no log at all. Each of these would lose what was accepted, without a word.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

MADE: Final = "made"
"""File beside the database: there was one, so that an empty or missing file is damage and not a beginning."""
DAMAGED: Final = "damaged"
"""File beside the database: a running writer found damage; the whole is checked before it is used again."""

_WAL_HEAD: Final = struct.Struct(">8I")
_WAL_MAGIC: Final = (0x377F0682, 0x377F0683)
_FRAME_HEAD: Final = 24
_LOCK_BYTE: Final = 2**30
"""SQLite never uses the page with this byte."""

RESTORE: Final = "restore a backup (hzc restore FILE), or see what can be saved: hzc doctor --repair"


class DatabaseRefused(Exception):
    """The file cannot be used as it is; the message says why and what to do."""


class DamagedDatabase(DatabaseRefused):
    """The file is not a database of ours, or is damaged."""


def log_of(path: Path) -> Path:
    """The write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def check_files(path: Path) -> None:
    """Look at the files without opening the database. Raises DatabaseRefused."""
    for each in (path, log_of(path), path.with_name(path.name + "-shm")):
        _check_file(each)
    if path.with_name(MADE).exists() and not (path.exists() and path.stat().st_size):
        found = "empty" if path.exists() else "gone"
        raise DamagedDatabase(
            f"{path} is {found}, and there was a database; {RESTORE}; "
            f"to begin anew on purpose, move the folder {path.parent} away"
        )
    _check_log(log_of(path))


def _check_file(path: Path) -> None:
    try:
        info = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(info.st_mode):
        raise DamagedDatabase(f"{path} is not a file: move it away, then {RESTORE}")
    if info.st_uid != os.geteuid():
        raise DatabaseRefused(
            f"{path} belongs to uid {info.st_uid}, and this is uid {os.geteuid()}: "
            f"run the platform as its owner, or chown it"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        raise DatabaseRefused(f"{path} may not be read and written (mode {info.st_mode & 0o777:04o}): chmod 600 it")


def _check_log(log: Path) -> None:
    """A log that has frames has a head whose checksum fits: SQLite syncs it before the first frame."""
    try:
        with log.open("rb") as file:
            head = file.read(_WAL_HEAD.size)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatabaseRefused(f"{log} cannot be read: {error.strerror}; look at the disk") from error
    if not head:
        return
    if len(head) < _WAL_HEAD.size:
        raise DamagedDatabase(f"{log} is cut off in its head; {RESTORE}")
    fields = _WAL_HEAD.unpack(head)
    if fields[0] not in _WAL_MAGIC or _checksum(head[:24], big=bool(fields[0] & 1)) != fields[6:8]:
        raise DamagedDatabase(f"{log} is damaged: its head is not that of a log; {RESTORE}")


def _checksum(data: bytes, *, big: bool) -> tuple[int, int]:
    """The checksum of SQLite's log: two sums over pairs of 32-bit words."""
    first = second = 0
    for left, right in struct.iter_unpack(">2I" if big else "<2I", data):
        first = (first + left + second) & 0xFFFFFFFF
        second = (second + right + first) & 0xFFFFFFFF
    return first, second


def check_length(db: sqlite3.Connection, path: Path) -> None:
    """Every page is in the file or in the log. Raises DamagedDatabase: the file was cut off."""
    pages: int = db.execute("PRAGMA page_count").fetchone()[0]
    size: int = db.execute("PRAGMA page_size").fetchone()[0]
    there = path.stat().st_size // size
    if there >= pages:
        return
    missing = set(range(there + 1, pages + 1)) - {_LOCK_BYTE // size + 1} - _logged(log_of(path), size)
    if missing:
        raise DamagedDatabase(f"{path} is cut off: {len(missing)} of its {pages} pages are missing; {RESTORE}")


def _logged(log: Path, size: int) -> set[int]:
    """Numbers of the pages that the log has."""
    found: set[int] = set()
    try:
        with log.open("rb") as file:
            at = _WAL_HEAD.size
            while head := os.pread(file.fileno(), 4, at):
                found.add(int.from_bytes(head, "big"))
                at += _FRAME_HEAD + size
    except FileNotFoundError:
        pass
    return found


def check_all(db: sqlite3.Connection, path: Path) -> None:
    """If a writer has found damage before: read the whole database, and forget it if all is well by now."""
    marker = path.with_name(DAMAGED)
    if not marker.exists():
        return
    found: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise DamagedDatabase(f"{path} is damaged: {' '.join(found.split())}; {RESTORE}")
    marker.unlink(missing_ok=True)


def mark(path: Path, name: str, text: str) -> None:
    """Leave a note beside the database; a disk that takes none is no reason to stop."""
    note = path.with_name(name)
    with suppress(OSError):
        if not note.exists():
            note.touch(mode=0o600)
            note.write_text(text, encoding="utf-8")
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file is damaged, rather than that the disk or the request is at fault."""
    return _primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk has no room."""
    return _primary(error) == sqlite3.SQLITE_FULL


def is_failed_sync(error: sqlite3.Error) -> bool:
    """Whether the disk did not confirm what was written: what of it is there is not known, and cannot be asked."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)


def _primary(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
