"""Standard output and error of an attempt as log entries, read from its files while they grow.

A cursor holds the offset reached in each file, so what it stands for never depends on who read what before:
a follower that carries the cursor on gets every byte once, also across a restart of the agent.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import bounds
from hanzo_compute.ports import LogEntry

PIECE: Final = 8192
"""Longest entry, bytes of the file."""
READ: Final = bounds.LOG_CHUNK_MAX
ENTRY_OVERHEAD: Final = 64
_BITS: Final = 24
_MASK: Final = (1 << _BITS) - 1
assert bounds.OUTPUT_MAX < _MASK


class LogTail:
    """The two streams of one attempt, within ``limit`` bytes together."""

    def __init__(self, stdout: Path, stderr: Path, limit: int) -> None:
        self._files = (("stdout", stdout), ("stderr", stderr))
        self._limit = limit

    def read(self, cursor: int, *, ended: bool, at_ms: int) -> tuple[list[LogEntry], int]:
        """Entries after ``cursor``, at most one log chunk as JSON, and the next cursor.

        An entry holds whole lines with their newlines, up to 8 KiB, or a part of a longer line; a line that
        is not finished waits until it is, or until ``ended``. Bytes that are not UTF-8 are shown as
        ``\\xNN``.
        """
        if not 0 <= cursor < 1 << 2 * _BITS:
            raise InvalidRequest(f"{cursor} is not a log cursor", hint="begin with 0")
        offsets = [cursor >> _BITS, cursor & _MASK]
        entries: list[LogEntry] = []
        room = bounds.LOG_CHUNK_MAX
        for index, (stream, path) in enumerate(self._files):
            left = max(self._limit - sum(offsets), 0)
            window = min(left, READ)
            data = _read(path, offsets[index], window)
            last = len(data) == left or (ended and len(data) < window)
            for piece in _pieces(data, last=last):
                text = piece.decode("utf-8", "backslashreplace")
                room -= len(json.dumps(text)) + ENTRY_OVERHEAD
                if room < 0:
                    break
                entries.append(LogEntry(at_ms, stream, text))
                offsets[index] += len(piece)
        return entries, offsets[0] << _BITS | offsets[1]

    def truncated(self) -> bool:
        """True when the files hold more than the limit."""
        return sum(_size(path) for _, path in self._files) > self._limit


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return os.pread(file.fileno(), size, offset)
    except OSError:
        return b""


def _pieces(data: bytes, *, last: bool) -> list[bytes]:
    pieces = []
    start = 0
    while start < len(data):
        end = _cut(data, start, last=last)
        if end == start:
            break
        pieces.append(data[start:end])
        start = end
    return pieces


def _cut(data: bytes, start: int, *, last: bool) -> int:
    """Where the piece that begins at ``start`` ends; ``start`` when it must wait for more."""
    end = min(start + PIECE, len(data))
    newline = data.rfind(b"\n", start, end)
    if newline >= 0:
        return newline + 1
    if end - start < PIECE:
        return end if last else start
    return _character_end(data, start, end)


def _character_end(data: bytes, start: int, end: int) -> int:
    """``end``, or a little less if a UTF-8 character of ``data`` straddles it."""
    for back in range(1, 4):
        byte = data[end - back]
        if byte < 0x80:
            return end
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end - back if length > back and end - back > start else end
    return end
