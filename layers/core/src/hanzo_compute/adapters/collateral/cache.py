"""Answers of the services on disk: each a file of its own, named by the digest of what it answers.

Nothing here is trusted: what is read is verified by the appraisal as if it came from the network. A digest beside
each content finds what a power cut or a stranger damaged; it is thrown away then, and asked for again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.collateral.wanted import DAY_MS, Kept

CACHE_MAX: Final = 128 * 1024 * 1024
"""Bytes of all files, at most."""
ENTRIES_MAX: Final = 4096
ENTRY_MAX: Final = 8 * 1024 * 1024
_HEAD_MAX: Final = 8192
_LEFT_AFTER_S: Final = 600.0
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_UNFINISHED: Final = re.compile(r"\.[0-9a-f]{16}")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """Content, when it was had and until when it may be used (None: for ever); ms since the epoch."""

    content: bytes = field(repr=False)
    stored_ms: int
    not_after_ms: int | None

    def is_good(self, now_ms: int) -> bool:
        """Whether it may be used."""
        return self.not_after_ms is None or now_ms < self.not_after_ms

    def is_due(self, now_ms: int) -> bool:
        """Whether it should be had anew: after a day, or when a tenth of its time is left."""
        if self.not_after_ms is None:
            return False
        lead = (self.not_after_ms - self.stored_ms) // 10
        return now_ms >= min(self.stored_ms + DAY_MS, self.not_after_ms - lead)


class FileCache:
    """A folder of entries, which only its owner can read; processes may share it."""

    def __init__(self, folder: Path, *, max_bytes: int = CACHE_MAX, max_entries: int = ENTRIES_MAX) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_entries = max_entries

    def read(self, key: str) -> Entry | None:
        """The entry of a key, if there is one that is whole."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                data = file.read(ENTRY_MAX + _HEAD_MAX + 1)
        except OSError:
            return None
        entry = _decode(data, key)
        with suppress(OSError):
            if entry is None:
                path.unlink()
            else:
                os.utime(path)  # the least recently used go first
        return entry

    def write(self, key: str, kept: Kept, stored_ms: int) -> None:
        """Keep an entry. Readers see the old one or the new one, whole.

        Raises:
            OSError: it cannot be written.
        """
        data = _encode(key, kept, stored_ms)
        if len(kept.content) > ENTRY_MAX or len(data) > self._max_bytes:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        unfinished = self._folder / f".{secrets.token_hex(8)}"
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            unfinished.rename(self._path(key))
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        self._tidy()

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def _tidy(self) -> None:
        """Remove what is over the bounds, the least recently used first, and what killed processes left."""
        found: list[tuple[float, int, Path]] = []
        for item in self._folder.iterdir():
            with suppress(FileNotFoundError):
                status = item.stat(follow_symlinks=False)
                if _NAME.fullmatch(item.name):
                    found.append((status.st_mtime, status.st_size, item))
                elif _UNFINISHED.fullmatch(item.name) and time.time() - status.st_mtime > _LEFT_AFTER_S:
                    item.unlink(missing_ok=True)
        size, count = sum(each[1] for each in found), len(found)
        for _, length, item in sorted(found):
            if size <= self._max_bytes and count <= self._max_entries:
                return
            item.unlink(missing_ok=True)
            size, count = size - length, count - 1


def _encode(key: str, kept: Kept, stored_ms: int) -> bytes:
    head = {
        "version": _VERSION,
        "key": key,
        "stored_ms": stored_ms,
        "not_after_ms": kept.not_after_ms,
        "sha256": _digest(kept.content, key, stored_ms, kept.not_after_ms),
    }
    return json.dumps(head, separators=(",", ":")).encode() + b"\n" + kept.content


def _decode(data: bytes, key: str) -> Entry | None:
    head, newline, content = data.partition(b"\n")
    if not newline or len(head) > _HEAD_MAX or len(content) > ENTRY_MAX:
        return None
    try:
        said = json.loads(head)
        stored_ms, not_after_ms = said["stored_ms"], said["not_after_ms"]
        if said["version"] != _VERSION or said["key"] != key or not isinstance(stored_ms, int):
            return None
        if not_after_ms is not None and not isinstance(not_after_ms, int):
            return None
        if said["sha256"] != _digest(content, key, stored_ms, not_after_ms):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Entry(content, stored_ms, not_after_ms)


def _digest(content: bytes, key: str, stored_ms: int, not_after_ms: int | None) -> str:
    head = json.dumps([key, stored_ms, not_after_ms]).encode()
    return hashlib.sha256(hashlib.sha256(head).digest() + content).hexdigest()
