"""Writes a backup of a state folder, whether its platform runs or not.

The database comes first, as one snapshot that a reading transaction holds: nobody waits for it. Blobs never
change and are stored before what refers to them, so those that exist afterwards are all that the snapshot needs.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hanzo_compute import __version__
from hanzo_compute.adapters.local import archive, rows, schema
from hanzo_compute.adapters.local.archive import BackupHead, Reader, Writer
from hanzo_compute.errors import Conflict, InternalError, NotFound, Unavailable
from hanzo_compute.model.bounds import BLOB_MAX

Say = Callable[[str], None]

PAGES: Final = 1024
"""Pages of the database that are copied between two reports of progress."""
SHOWN_MAX: Final = 20
"""Names of missing or damaged blobs in a report."""

_TENANT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_BLOB: Final = re.compile(r"b1-[0-9a-f]{64}")


@dataclass
class BackupReport:
    """What a backup holds. ``lost``: blobs that jobs refer to and that are missing or damaged in the state folder."""

    size: int = 0
    jobs: int = 0
    blobs: int = 0
    lost: list[str] = field(default_factory=list)
    lost_count: int = 0

    def lose(self, name: str) -> None:
        """Count a blob that is not in the backup."""
        self.lost_count += 1
        if len(self.lost) < SHOWN_MAX:
            self.lost.append(name)


def write(home: Path, target: Path, scratch: Path, say: Say) -> BackupReport:
    """Write a backup of ``home`` to the new file ``target``, and read it once to verify it.

    ``scratch`` is an empty folder on a disk with room for a copy of the database.

    Raises:
        NotFound: there is no database.
        Unavailable: it cannot be read now, or the disk is full.
        InternalError: the database is damaged.
        Conflict: the state folder was replaced meanwhile.
    """
    if not schema.path_of(home).is_file():
        raise NotFound(f"{home} holds no platform's database", hint="set HZC_HOME to the state folder")
    before = _identity(home)
    copy = scratch / "database"
    with archive.room_on_disk(scratch):
        version = _copy(schema.path_of(home), copy, say)
        now = datetime.now(UTC)
        head = BackupHead(version, __version__, f"{now:%Y-%m-%dT%H:%M:%SZ}", int(now.timestamp()))
        report = BackupReport()
        with os.fdopen(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            writer = Writer(file, head, scratch)
            try:
                _members(home, copy, writer, report, say)
            finally:
                writer.close()
            file.flush()
            report.size = file.tell()
            os.fsync(file.fileno())
            if _identity(home) != before:
                raise Conflict(f"{home} was replaced meanwhile", hint="make the backup again")
            file.seek(0)
            _verify(file, report.size, say)
    return report


def _identity(home: Path) -> tuple[int, int]:
    status = home.stat()
    return status.st_dev, status.st_ino


def _copy(path: Path, target: Path, say: Say) -> int:
    """Copy the database as it is at one moment; returns its schema version."""

    def progress(_status: int, left: int, pages: int) -> None:
        say(f"copying the database: {100 * (pages - left) // max(pages, 1)} %")

    try:
        with closing(schema.open_for_reading(path)) as source, closing(sqlite3.connect(target)) as copy:
            source.execute("BEGIN")
            # The transaction begins at its first read; while it lasts, the copy need not start again.
            version: int = source.execute("PRAGMA user_version").fetchone()[0]
            source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            copy.execute("PRAGMA synchronous = OFF")
            source.backup(copy, pages=PAGES, progress=progress)
            source.execute("ROLLBACK")
            say("checking the copy of the database")
            copy.execute("PRAGMA journal_mode = DELETE")
            problems = rows.integrity(copy)
    except sqlite3.OperationalError as error:
        if archive.is_of_disk(error):
            raise
        raise Unavailable(f"the database cannot be read: {error}", hint="try again; see also: hzc doctor") from error
    except sqlite3.DatabaseError as error:
        problems, version = [str(error)], 0
    if problems:
        raise InternalError(
            f"the database is damaged: {problems[0]}",
            hint="stop the platform, keep a copy of the state folder, and restore an earlier backup: hzc restore",
        )
    return version


def _members(home: Path, copy: Path, writer: Writer, report: BackupReport, say: Say) -> None:
    for name, path in _small(home):
        try:
            data = _read(path, archive.SMALL_MAX)
        except FileNotFoundError:  # written anew at each start, by a rename
            continue
        if data is not None:
            writer.add(name, data)
    with copy.open("rb") as source:
        say("writing the database")
        writer.add_file(archive.DATABASE, source, copy.stat().st_size)
    damaged: set[str] = set()
    for name, path in _blobs(home):
        data = _read(path, BLOB_MAX)
        if data is None or not name.endswith(hashlib.sha256(data).hexdigest()):
            damaged.add(name)
            continue
        writer.add(name, data)
        report.blobs += 1
        if report.blobs % 100 == 0:
            say(f"writing blobs: {report.blobs}")
    with closing(schema.open_for_reading(copy)) as db:
        say("comparing blobs with the jobs that need them")
        report.jobs = rows.count_jobs(db)
        for use in rows.blob_uses(db):
            name = f"blobs/{use.tenant}/{use.blob[3:5]}/{use.blob}"
            if name in damaged or not (home / name).is_file():
                report.lose(name)
    writer.finish()


def _small(home: Path) -> Iterator[tuple[str, Path]]:
    yield archive.CREDENTIALS, home / archive.CREDENTIALS
    folder = home / "keys"
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name[0] != ".":  # what is being written has a dot in front
                yield f"{archive.KEYS}{path.name}", path


def _blobs(home: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths in the order of a backup. Uploads in progress have other names than blobs."""
    for tenant in _folders(home / "blobs", _TENANT):
        for prefix in _folders(tenant, re.compile(r"[0-9a-f]{2}")):
            for name in sorted(entry.name for entry in os.scandir(prefix) if _BLOB.fullmatch(entry.name)):
                if name[3:5] == prefix.name:
                    yield f"blobs/{tenant.name}/{prefix.name}/{name}", prefix / name


def _folders(parent: Path, form: re.Pattern[str]) -> list[Path]:
    if not parent.is_dir():
        return []
    with os.scandir(parent) as entries:
        names = [entry.name for entry in entries if form.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)]
    return [parent / name for name in sorted(names)]


def _read(path: Path, most: int) -> bytes | None:
    """The bytes of a plain file of at most ``most``, else None. Raises FileNotFoundError."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return None
    with path.open("rb") as file:
        data = file.read(most + 1)
    return data if len(data) <= most else None


def _verify(file: Any, size: int, say: Say) -> None:
    reader = Reader(file)
    try:
        for member in reader.members():
            for _ in reader.pieces():
                pass
            say(f"verifying: {100 * file.tell() // max(size, 1)} % ({member.name.partition('/')[0]})")
    finally:
        reader.close()
