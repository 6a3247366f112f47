"""configfs-tsm as the kernel behaves (drivers/virt/coco/guest/report.c and fs/configfs/file.c), in memory.

An entry counts writes; a report is made when it is read after a write; ``inblob`` is taken when its file is closed, and
the kernel tells nobody if it was not.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/kernel/config/tsm/report")
Blobs = tuple[bytes, bytes, bytes]
"""outblob, auxblob, manifestblob"""


@dataclass
class Entry:
    """One request."""

    inblob: bytes = b""
    privlevel: int = 0
    service: str = ""
    written: int = 0
    read: int = 0
    blobs: Blobs | None = None


@dataclass
class KernelTsm:
    """The tree, with one provider. Its methods are those of :class:`hanzo_compute.adapters.attester.tsm.Tree`."""

    make: Callable[[Entry], Blobs]
    """Firmware: makes a report for an entry's options. May raise OSError."""
    provider: str | None = "sev_guest"
    floor: int = 0
    attributes: frozenset[str] = frozenset(
        {"inblob", "outblob", "generation", "provider", "privlevel", "privlevel_floor", "auxblob"}
    )
    entries: dict[str, Entry] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    """Names of all entries there ever were."""
    before: Callable[[str, str, str], None] = lambda _operation, _name, _attribute: None
    """Called before each operation: others' turn."""
    dropped: int = 0
    """So many next writes of inblob are lost at close, as by an entry whose counter has come round."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def exists(self, path: Path) -> bool:
        name, attribute = path.relative_to(ROOT).parts
        return name in self.entries and attribute in self.attributes

    def mkdir(self, path: Path) -> None:
        with self.lock:
            if self.provider is None:
                raise _error(errno.ENXIO, path)
            if path.name in self.entries:
                raise _error(errno.EEXIST, path)
            self.entries[path.name] = Entry()
            self.made.append(path.name)

    def rmdir(self, path: Path) -> None:
        with self.lock:
            if self.entries.pop(path.name, None) is None:
                raise _error(errno.ENOENT, path)

    def write(self, path: Path, data: bytes) -> None:
        self._turn("write", path)
        with self.lock:
            entry, attribute = self._found(path)
            if attribute == "inblob":
                self._inblob(entry, path, data)
            elif attribute == "privlevel":
                if not self.floor <= int(data) <= 3:
                    raise _error(errno.EINVAL, path)
                entry.privlevel = int(data)
                entry.written += 1
            elif attribute == "service_provider":
                entry.service = data.decode()
                entry.written += 1
            else:
                raise _error(errno.EACCES, path)

    def _inblob(self, entry: Entry, path: Path, data: bytes) -> None:
        if len(data) > 64:
            raise _error(errno.EFBIG, path)
        if self.dropped:
            self.dropped -= 1
            return
        entry.inblob = data
        entry.written += 1

    def read(self, path: Path) -> bytes:
        self._turn("read", path)
        with self.lock:
            entry, attribute = self._found(path)
            if attribute in ("outblob", "auxblob", "manifestblob"):
                return self._report(entry, path)[("outblob", "auxblob", "manifestblob").index(attribute)]
            if self.provider is None and attribute != "generation":
                raise _error(errno.ENXIO, path)
            texts = {"generation": str(entry.written), "provider": self.provider, "privlevel_floor": str(self.floor)}
            if attribute not in texts:
                raise _error(errno.EACCES, path)
            return f"{texts[attribute]}\n".encode()

    def _report(self, entry: Entry, path: Path) -> Blobs:
        if not entry.inblob:
            raise _error(errno.EINVAL, path)
        if entry.blobs is None or entry.read != entry.written:
            if self.provider is None:
                raise _error(errno.ENXIO, path)
            entry.blobs = None
            if len(entry.inblob) != 64:  # both drivers want all of it
                raise _error(errno.EINVAL, path)
            entry.blobs = self.make(entry)
            entry.read = entry.written
        return entry.blobs

    def _found(self, path: Path) -> tuple[Entry, str]:
        name, attribute = path.relative_to(ROOT).parts
        if name not in self.entries or attribute not in self.attributes:
            raise _error(errno.ENOENT, path)
        return self.entries[name], attribute

    def _turn(self, operation: str, path: Path) -> None:
        name, attribute = path.relative_to(ROOT).parts
        self.before(operation, name, attribute)


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
