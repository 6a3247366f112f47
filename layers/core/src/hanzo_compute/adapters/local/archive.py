"""The form of a backup: a tar of plain files in one fixed order, closed by a list of their digests.

    backup.json  credentials.json  db/hanzo.sqlite3  keys/…  blobs/<tenant>/<2 digits>/<id> …  digests.jsonl

Any ``tar`` unpacks it. The reader here takes nothing but what the writer makes: no links, devices, extended
headers or other names, each byte of it checked; both hold one piece at a time in memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from hanzo_compute.errors import InvalidRequest, Unavailable

FORMAT: Final = 1
HEAD: Final = "backup.json"
DATABASE: Final = "db/hanzo.sqlite3"
CREDENTIALS: Final = "credentials.json"
DIGESTS: Final = "digests.jsonl"
KEYS: Final = "keys/"
BLOBS: Final = "blobs/"
SMALL_MAX: Final = 1 << 20
"""Bytes of the head, of the credentials, of a key."""
PIECE: Final = 1 << 20

_BLOCK: Final = 512
_OCTAL_MAX: Final = 8**11
_NAMES: Final = re.compile(
    rf"{HEAD}|{CREDENTIALS}|{DATABASE}|{DIGESTS}|keys/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,90}}"
    r"|blobs/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}/([0-9a-f]{2})/b1-\1[0-9a-f]{62}"
)
_HINT: Final = "use another copy of it; nothing was changed"


@dataclass(frozen=True)
class BackupHead:
    """What a backup is, before anything else is read of it."""

    schema: int
    release: str
    created_at: str
    """RFC 3339, UTC."""
    created_s: int
    format: int = FORMAT


@dataclass(frozen=True)
class Member:
    """One file; ``size`` in bytes."""

    name: str
    size: int


def is_blob(name: str) -> bool:
    """Whether a member is a blob: its last part is its digest."""
    return name.startswith(BLOBS)


class Writer:
    """Writes members; :meth:`finish` adds their digests and the end. ``scratch`` is a folder for a temporary file."""

    def __init__(self, file: BinaryIO, head: BackupHead, scratch: Path) -> None:
        self._file = file
        self._time = head.created_s
        self._list = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 — closed by finish
        try:
            self.add(HEAD, json.dumps(asdict(head), sort_keys=True).encode())
        except BaseException:
            self.close()
            raise

    def add(self, name: str, data: bytes) -> None:
        """Add a file of these bytes."""
        self._begin(Member(name, len(data)))
        self._file.write(data)
        self._end(Member(name, len(data)), hashlib.sha256(data).hexdigest())

    def add_file(self, name: str, source: BinaryIO, size: int) -> None:
        """Add a file from a stream that must hold ``size`` bytes."""
        member, digest, left = Member(name, size), hashlib.sha256(), size
        self._begin(member)
        while left and (piece := source.read(min(PIECE, left))):
            digest.update(piece)
            self._file.write(piece)
            left -= len(piece)
        if left:
            raise Unavailable(f"{name} became shorter while it was read", hint="make the backup again")
        self._end(member, digest.hexdigest())

    def finish(self) -> None:
        """Add the list of digests, and the end."""
        with self._list as listed:
            size = listed.tell()
            listed.seek(0)
            self._begin(Member(DIGESTS, size))
            while piece := listed.read(PIECE):
                self._file.write(piece)
            self._file.write(_padding(size))
        self._file.write(bytes(2 * _BLOCK))

    def close(self) -> None:
        """Give up what :meth:`finish` would have needed."""
        self._list.close()

    def _begin(self, member: Member) -> None:
        self._file.write(_header(member, self._time))

    def _end(self, member: Member, digest: str) -> None:
        self._file.write(_padding(member.size))
        self._list.write(_line(member, digest))


class Reader:
    """Reads members in order: after each that :meth:`members` yields, take all of its :meth:`pieces`.

    Raises InvalidRequest where it is not what a :class:`Writer` makes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._list = tempfile.TemporaryFile()  # noqa: SIM115 — closed by close
        self._member = Member("", 0)
        self._time = 0
        self._names: set[str] = set()
        self._last_blob: list[str] = []

    def members(self) -> Iterator[Member]:
        """All members but the digests, which are compared with what was read."""
        while True:
            member = self._next()
            self._place(member)
            if member.name == DIGESTS:
                self._compare(member)
                return
            self._member = member
            yield member

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the member, checked against their digest if it is a blob."""
        member, digest = self._member, hashlib.sha256()
        for piece in self._take(member):
            digest.update(piece)
            yield piece
        found = digest.hexdigest()
        if is_blob(member.name) and not member.name.endswith(found):
            raise _damaged(f"{member.name} is not what its digest says")
        self._list.write(_line(member, found))

    def close(self) -> None:
        """Remove the temporary list."""
        self._list.close()

    def _next(self) -> Member:
        block = self._file.read(_BLOCK)
        if len(block) < _BLOCK or not any(block):
            raise _damaged("it ends too early") if self._names else _no_backup()
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            if not self._names:
                raise _no_backup() from error
            raise _damaged(f"a header after {self._member.name} is no header") from error
        _check_form(info)
        if not self._names and info.name != HEAD:
            raise _no_backup()
        member = Member(info.name, info.size)
        self._time = self._time or int(info.mtime)
        if block != _header(member, self._time):
            raise _damaged(f"the header of {member.name} is not one of a backup")
        return member

    def _place(self, member: Member) -> None:
        if is_blob(member.name):
            parts = member.name.split("/")
            if parts <= self._last_blob:
                raise _damaged(f"{member.name} is there twice, or out of order")
            self._last_blob = parts
            return
        if member.name in self._names:
            raise _damaged(f"{member.name} is there twice")
        self._names.add(member.name)

    def _take(self, member: Member) -> Iterator[bytes]:
        left = member.size
        while left:
            piece = self._file.read(min(PIECE, left))
            if not piece:
                raise _damaged(f"it ends within {member.name}")
            left -= len(piece)
            yield piece
        padding = _padding(member.size)
        if self._file.read(len(padding)) != padding:
            raise _damaged(f"what follows {member.name} is not empty, or is missing")

    def _compare(self, digests: Member) -> None:
        self._list.seek(0)
        rest = b""
        for piece in self._take(digests):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                self._same(line + b"\n")
        if rest or self._list.readline():
            raise _damaged("its list of digests is not complete")
        if self._file.read(2 * _BLOCK + 1) != bytes(2 * _BLOCK):
            raise _damaged("it does not end where it should")

    def _same(self, line: bytes) -> None:
        expected = self._list.readline()
        if line != expected:
            name = json.loads(expected)["name"] if expected else "a member that is missing"
            raise _damaged(f"{name} is not what the list of digests says")


def _check_form(info: tarfile.TarInfo) -> None:
    name = info.name.encode("utf-8", "backslashreplace").decode()
    if info.issym() or info.islnk():
        raise _foreign(f"{name} is a link")
    if info.isdev():
        raise _foreign(f"{name} is a device")
    if info.type != tarfile.REGTYPE:
        raise _foreign(f"{name} is no plain file")
    if name.startswith("/") or ".." in name.split("/"):
        raise _foreign(f"{name} leads out of the state folder")
    if not _NAMES.fullmatch(name):
        raise _foreign(f"{name} has no place in a backup")
    if info.size < 0 or (info.size > SMALL_MAX and not is_blob(name) and name not in (DATABASE, DIGESTS)):
        raise _foreign(f"{name} has {info.size} bytes")


def _header(member: Member, time_s: int) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.size, info.mtime, info.mode = member.size, time_s, 0o600
    # Names fit into the plain form; sizes over 8 GiB do not.
    return info.tobuf(tarfile.USTAR_FORMAT if member.size < _OCTAL_MAX else tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _line(member: Member, digest: str) -> bytes:
    shown = {"name": member.name, "size": member.size, "sha256": digest}
    return json.dumps(shown).encode() + b"\n"


def _damaged(what: str) -> InvalidRequest:
    return InvalidRequest(f"the backup is damaged: {what}", hint=_HINT)


def _no_backup() -> InvalidRequest:
    return InvalidRequest("this is no backup of a platform", hint="backups are made by: hzc backup")


def _foreign(what: str) -> InvalidRequest:
    return InvalidRequest(f"this is no backup that `hzc backup` made: {what}", hint=_HINT)


@contextmanager
def room_on_disk(folder: Path) -> Iterator[None]:
    """A disk that is full or does not take a file says so, with where. Raises Unavailable."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
            raise
        raise Unavailable(
            f"{folder} cannot hold it: {error.strerror}", hint="free some space there, or use another disk"
        ) from error
    except sqlite3.OperationalError as error:
        if not is_of_disk(error):
            raise
        hint = "free some space there; if there is enough, look into the kernel's log"
        raise Unavailable(f"{folder} cannot hold it: {error}", hint=hint) from error


def is_of_disk(error: sqlite3.Error) -> bool:
    """Whether it is the disk that SQLite complains about."""
    return "full" in str(error) or "disk I/O" in str(error)
