"""Compiled modules on disk, authenticated: a compiled module is native code that a worker would run.

An entry is wasmtime's artefact with a trailer of 32 bytes: HMAC-SHA256 over the entry's name and the artefact, in one
file, made by one rename. Whatever fails the check is removed and compiled anew. The key lives beside the entries, so
the check finds damage and stale or foreign files; who can read the 0700 folder is trusted anyway.

A worker never reads the folder: it gets a sealed copy in memory (memfd), taken while the check read it. So what was
checked is what is mapped, nobody can change it afterwards, and all workers share its pages.

A module that cannot be compiled is remembered, too (``.bad``): it would cost as much the next time.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MAC_SIZE: Final = 32
KEY_SIZE: Final = 32
MAX_BYTES: Final = 2 << 30
MAX_ENTRIES: Final = 4096
SUFFIX: Final = ".cwasm"
BAD: Final = ".bad"
BAD_S: Final = 24 * 3600
"""How long a module that could not be compiled is remembered: the next time more memory may be free."""
PIECE: Final = 4 << 20
_F_ADD_SEALS: Final = 1033
_SEALS: Final = 0x1 | 0x2 | 0x4 | 0x8
"""F_SEAL_SEAL, SHRINK, GROW, WRITE: fcntl has no names for them before Python 3.12."""
ABANDONED_S: Final = 600
"""Age at which a temporary file must be what a killed worker left."""


class ArtefactCache:
    """Artefacts of one engine configuration in ``root/artefacts``, bounded by size and number.

    ``tag`` names all that an artefact depends on besides the module: wasmtime's version, its configuration,
    the processor. Several processes may share a folder.
    """

    def __init__(self, root: Path, tag: str, *, max_bytes: int = MAX_BYTES, max_entries: int = MAX_ENTRIES) -> None:
        self._dir = private_dir(private_dir(root) / "artefacts")
        self._key = _key(root / "artefact.key")
        self._tag = hashlib.sha256(tag.encode()).hexdigest()[:16]
        self._max_bytes = max_bytes
        self._max_entries = max_entries

    def path(self, digest: str) -> Path:
        """Where the artefact of the module with this SHA-256 (hex) is kept."""
        return self._dir / f"{digest}-{self._tag}{SUFFIX}"

    @contextmanager
    def lock(self, digest: str) -> Iterator[None]:
        """Hold an entry's lock, so that of several workers one compiles and the others wait for it."""
        # 256 locks for all entries: a file for each would outlive the entry.
        fd = os.open(self._dir / f"{digest[:2]}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def sealed(self, digest: str) -> int | None:
        """A descriptor of a sealed copy in memory of a checked artefact, or None when there is none."""
        path = self.path(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            copy = self._copy(fd, path.name)
        finally:
            os.close(fd)
        if copy is None:
            self.discard(digest)
        else:
            self.touch(digest)
        return copy

    def store(self, digest: str, artefact: bytes | bytearray) -> None:
        """Add an entry, durably and in one step, then evict the least recently used ones over the bounds."""
        path = self.path(digest)
        self._make(path, artefact)
        self._evict(keep=path.name)

    def _make(self, path: Path, content: bytes | bytearray) -> None:
        temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
        mac = self._mac(path.name)
        mac.update(content)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.write(mac.digest())
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)

    def touch(self, digest: str) -> None:
        """Mark an entry as just used."""
        with suppress(FileNotFoundError):
            os.utime(self.path(digest))

    def discard(self, digest: str) -> None:
        """Remove an entry."""
        self.path(digest).unlink(missing_ok=True)

    def _mac(self, name: str) -> hmac.HMAC:
        return hmac.new(self._key, name.encode() + b"\0", hashlib.sha256)

    def _copy(self, fd: int, name: str) -> int | None:
        size = os.fstat(fd).st_size - MAC_SIZE
        if size <= 0:
            return None
        copy = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            mac = self._mac(name)
            left = size
            # What is hashed is what was copied: the file may change under us.
            while left:
                piece = os.read(fd, min(left, PIECE))
                if not piece:
                    break
                mac.update(piece)
                _write_all(copy, piece)
                left -= len(piece)
            if not left and hmac.compare_digest(mac.digest(), os.read(fd, MAC_SIZE)):
                fcntl.fcntl(copy, _F_ADD_SEALS, _SEALS)
                return copy
        except OSError:
            os.close(copy)
            raise
        os.close(copy)
        return None

    def remember_bad(self, digest: str, why: str) -> None:
        """This module cannot be compiled."""
        self._make(self.path(digest).with_suffix(BAD), why.encode())

    def bad(self, digest: str) -> str | None:
        """Why a module could not be compiled, if that is remembered."""
        path = self.path(digest).with_suffix(BAD)
        try:
            if time.time() - path.stat().st_mtime > BAD_S:
                path.unlink(missing_ok=True)
                return None
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        mac = self._mac(path.name)
        mac.update(data[:-MAC_SIZE])
        if not hmac.compare_digest(mac.digest(), data[-MAC_SIZE:]):
            path.unlink(missing_ok=True)
            return None
        return data[:-MAC_SIZE].decode()

    def _evict(self, keep: str) -> None:
        entries = []
        for entry in os.scandir(self._dir):
            with suppress(FileNotFoundError):
                status = entry.stat()
                if entry.name.endswith((SUFFIX, BAD)):
                    entries.append((entry.name != keep, -status.st_mtime_ns, status.st_size, entry.path))
                elif entry.name.endswith(".tmp") and time.time() - status.st_mtime > ABANDONED_S:
                    Path(entry.path).unlink(missing_ok=True)
        total = 0
        for count, (_, _, size, path) in enumerate(sorted(entries), start=1):
            total += size
            if count > 1 and (total > self._max_bytes or count > self._max_entries):
                Path(path).unlink(missing_ok=True)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def private_dir(path: Path) -> Path:
    """Make a folder that only its owner can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def _key(path: Path) -> bytes:
    for _ in range(3):
        key = _read_key(path)
        if key is not None:
            return key
        _write_key(path)
    raise OSError(f"{path} does not keep a key of {KEY_SIZE} bytes that only its owner can read")


def _read_key(path: Path) -> bytes | None:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            status = os.fstat(file.fileno())
            key = file.read(KEY_SIZE + 1)
    except FileNotFoundError:
        return None
    # A key that others could read or write vouches for nothing: what it signed is compiled anew.
    if status.st_mode & 0o077 or status.st_uid != os.geteuid() or len(key) != KEY_SIZE:
        path.unlink(missing_ok=True)
        return None
    return key


def _write_key(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
        # link, unlike rename, never replaces a key that another process has begun to use.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
