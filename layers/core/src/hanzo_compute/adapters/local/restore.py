"""Unpacks a backup into a folder, after which all of it has been verified."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final

from hanzo_compute.adapters.local import archive, rows, schema
from hanzo_compute.adapters.local.archive import FORMAT, BackupHead, Reader
from hanzo_compute.errors import InvalidRequest

SPARE: Final = 16 << 20


def unpack(file: BinaryIO, size: int, folder: Path, say: Callable[[str], None]) -> BackupHead:
    """Unpack a backup of ``size`` bytes below ``folder``, files 0600, folders 0700; it is durable on return.

    Raises:
        InvalidRequest: it is no backup, is damaged, or is of a newer release.
        Unavailable: the disk is full.
    """
    head: BackupHead | None = None
    reader = Reader(file)
    try:
        with archive.room_on_disk(folder):
            for member in reader.members():
                path = folder / member.name
                _make_folders(path.parent, folder)
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
                    for piece in reader.pieces():
                        target.write(piece)
                if member.name == archive.HEAD:
                    head = _head(path)
                say(f"unpacking: {100 * file.tell() // max(size, 1)} %")
            if head is None or not (folder / archive.DATABASE).is_file():
                raise InvalidRequest("the backup holds no database", hint="use another copy of it")
            say("checking the database")
            _check_database(folder / archive.DATABASE, head)
            (folder / archive.HEAD).unlink()
            # All of it at once: a sync for each blob would take the disk's time for each.
            os.sync()
    finally:
        reader.close()
    return head


def _head(path: Path) -> BackupHead:
    try:
        found = json.loads(path.read_text("utf-8"))
        form, schema_version = int(found["format"]), int(found["schema"])
        release, created_at, created_s = str(found["release"]), str(found["created_at"]), int(found["created_s"])
    except (ValueError, KeyError, TypeError):
        raise InvalidRequest("the head of the backup cannot be read", hint="use another copy of it") from None
    if form != FORMAT:
        raise InvalidRequest(
            f"the backup has format {form}, this release knows {FORMAT}", hint=f"restore it with release {release}"
        )
    if schema_version > len(schema.MIGRATIONS):
        raise InvalidRequest(
            f"the backup has schema version {schema_version}, this release knows {len(schema.MIGRATIONS)}",
            hint=f"install release {release} or a newer one",
        )
    return BackupHead(schema_version, release, created_at, created_s)


def _check_database(path: Path, head: BackupHead) -> None:
    try:
        with closing(schema.open_for_reading(path)) as db:
            problems = rows.integrity(db)
            version: int = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute("SELECT count(*) FROM records").fetchone()
    except sqlite3.Error as error:
        problems, version = [str(error)], head.schema
    if problems:
        raise InvalidRequest(f"the database in the backup is damaged: {problems[0]}", hint="use an earlier backup")
    if version != head.schema:
        raise InvalidRequest(f"the database has schema version {version}, and the backup says {head.schema}")


def _make_folders(folder: Path, root: Path) -> None:
    if folder != root and not folder.is_dir():
        _make_folders(folder.parent, root)
        folder.mkdir(mode=0o700)
