"""Standard input and directories of a deterministic call: what it sees of them is the same on every machine."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.sandbox import binding, shim
from hanzo_compute.adapters.sandbox.binding import FUEL_UNLIMITED, Backend
from hanzo_compute.adapters.sandbox.call import Call

_DIRENT: Final = struct.Struct("<QQIB3x")


class Steady:
    """What one call has read."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._stdin: memoryview | None = None
        self._directories: dict[int, list[bytes]] = {}
        self._reader: Any = None

    def peek(self, size: int) -> bytes:
        """The next bytes of standard input: so many, or all that are left. Raises OSError."""
        if self._stdin is None:
            path = self._call.stdin_path
            self._stdin = memoryview(self._call.stdin if path is None else Path(path).read_bytes())
        return bytes(self._stdin[:size])

    def skip(self, size: int) -> int:
        """These were taken."""
        assert self._stdin is not None, "it was looked at"
        self._stdin = self._stdin[size:]
        return size

    def directory(
        self, backend: Backend, store: Any, reader: Callable[[Any], Any], fd: int, *, fresh: bool
    ) -> list[bytes] | int:
        """A directory's entries in order of names, each from its inode on, which is hidden; or an errno.

        ``reader`` makes an instance of :data:`~hanzo_compute.adapters.sandbox.shim.READER`. Raises Trapped when the
        call is interrupted meanwhile.
        """
        if not fresh and fd in self._directories:
            return self._directories[fd]
        # How often the reader is called depends on the file system's order: its fuel is not the guest's.
        left = backend.fuel(store)
        backend.refuel(store, FUEL_UNLIMITED)
        try:
            self._reader = self._reader or reader(store)
            found = self._read(backend, store, fd)
        finally:
            backend.refuel(store, left)
        if isinstance(found, int):
            return found
        self._directories[fd] = [entry for _, entry in sorted(found)]
        return self._directories[fd]

    def _read(self, backend: Backend, store: Any, fd: int) -> list[tuple[bytes, bytes]] | int:
        read = backend.export(store, self._reader, "read")
        memory = backend.export(store, self._reader, "memory")
        found: list[tuple[bytes, bytes]] = []
        cookie = 0
        while True:
            used = backend.call(store, read, (fd, cookie), ("i32", "i64"), "i64")
            if used < 0:
                return -used
            data = binding.read(backend, backend.context(store), memory, shim.READER_AT, used) or b""
            at, before = 0, len(found)
            while at + _DIRENT.size <= len(data):
                following, _, size, kind = _DIRENT.unpack_from(data, at)
                name = data[at + _DIRENT.size : at + _DIRENT.size + size]
                if len(name) < size:
                    break
                found.append((name, _DIRENT.pack(0, 0, size, kind)[8:] + name))
                at += _DIRENT.size + size
                cookie = following
            if used < shim.PAGE or len(found) == before:
                return found
