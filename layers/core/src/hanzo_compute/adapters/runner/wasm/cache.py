"""Compiled modules on disk, authenticated: a compiled module is native code that a worker would run.

An entry is wasmtime's artefact with a trailer of 32 bytes: HMAC-SHA256 over the entry's name and the
artefact. (The loader ignores what follows the artefact, so one file and one rename make an entry.) Whatever
fails the check is removed and compiled anew. The key lives beside the entries, so the check finds damage and
stale or foreign files; who can read the 0700 folder is trusted anyway.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import mmap
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

    @contextmanager
    def verified(self, digest: str) -> Iterator[str | None]:
        """The path of a checked artefact to load while the block runs, or None when there is none.

        The path names the open file that was checked, not whatever bears its name by then.
        """
        path = self.path(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            yield None
            return
        try:
            if self._authentic(fd, path.name):
                self.touch(digest)
                yield f"/dev/fd/{fd}"
            else:
                self.discard(digest)
                yield None
        finally:
            os.close(fd)

    def store(self, digest: str, artefact: bytes | bytearray) -> None:
        """Add an entry, durably and in one step, then evict the least recently used ones over the bounds."""
        path = self.path(digest)
        temporary = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
        mac = self._mac(path.name)
        mac.update(artefact)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(artefact)
                file.write(mac.digest())
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._evict(keep=path.name)

    def touch(self, digest: str) -> None:
        """Mark an entry as just used."""
        with suppress(FileNotFoundError):
            os.utime(self.path(digest))

    def discard(self, digest: str) -> None:
        """Remove an entry."""
        self.path(digest).unlink(missing_ok=True)

    def _mac(self, name: str) -> hmac.HMAC:
        return hmac.new(self._key, name.encode() + b"\0", hashlib.sha256)

    def _authentic(self, fd: int, name: str) -> bool:
        size = os.fstat(fd).st_size - MAC_SIZE
        if size <= 0:
            return False
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            mac = self._mac(name)
            with view[:size] as artefact:
                mac.update(artefact)
            return hmac.compare_digest(mac.digest(), bytes(data[size:]))

    def _evict(self, keep: str) -> None:
        entries = []
        for entry in os.scandir(self._dir):
            with suppress(FileNotFoundError):
                status = entry.stat()
                if entry.name.endswith(SUFFIX):
                    entries.append((entry.name != keep, -status.st_mtime_ns, status.st_size, entry.path))
                elif entry.name.endswith(".tmp") and time.time() - status.st_mtime > ABANDONED_S:
                    Path(entry.path).unlink(missing_ok=True)
        total = 0
        for count, (_, _, size, path) in enumerate(sorted(entries), start=1):
            total += size
            if count > 1 and (total > self._max_bytes or count > self._max_entries):
                Path(path).unlink(missing_ok=True)


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
