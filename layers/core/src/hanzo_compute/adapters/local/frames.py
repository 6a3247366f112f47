"""What travels between the writer and its clients: JSON objects behind a 4-byte length, over a Unix socket.

A client sends ``{"id", "op", "args"}`` with growing ids and gets, in this order for each request,

    {"id", "ok"}               applied: the result
    {"id", "conflict"}         refused: what was found instead
    {"id", "error", "invalid"} not applied: why, and whether the request itself is at fault
    {"durable": id, "woken"}   everything up to this id is on disk; partitions that changed, if asked for
    {"failed": id}             everything up to this id that is not durable yet was lost
    {"bye": id}                the last word of a writer that was asked to end: everything up to this id is answered
                               and durable, nothing behind it was looked at, so the next writer can be asked
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json, to_json

Frame = dict[str, Any]

PROTOCOL: Final = 2
"""Sent in ``hello``: a client and a writer of different installations say so instead of guessing."""
REQUEST_MAX: Final = 16 * 2**20
"""Bytes of a request: the 4 MB of a transaction's bodies, escaped."""

_LENGTH: Final = struct.Struct(">I")
_SOCKET_PATH_MAX: Final = 100


class FrameTooLarge(ValueError):
    """The other side announced more bytes than it may send."""


def encode(frame: Frame) -> bytes:
    """Bytes of one frame."""
    text = to_json(frame)
    return _LENGTH.pack(len(text)) + text


class Decoder:
    """Cuts a stream of bytes into frames; ``maximum`` bounds one frame."""

    def __init__(self, maximum: int = 2**32) -> None:
        self._maximum = maximum
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises FrameTooLarge; ValueError when a frame is not JSON."""
        self._buffer += data
        start = 0
        while (body := start + _LENGTH.size) <= len(self._buffer):
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > self._maximum:
                raise FrameTooLarge(f"a frame of {length} bytes is over {self._maximum}")
            if body + length > len(self._buffer):
                break
            start = body + length
            yield from_json(bytes(self._buffer[body:start]), cache_strings="keys")
        del self._buffer[:start]


@contextmanager
def address(path: Path) -> Iterator[str]:
    """The path by which to bind or connect: the kernel takes 107 bytes, and folders may be deeper."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def spoken_at(path: Path, timeout_s: float = 10.0) -> int | None:
    """The protocol of the writer that listens at ``path``; None when it is not understood. Raises OSError."""
    with connect(path, timeout_s) as sock:
        sock.sendall(encode({"id": 1, "op": "hello", "args": [False]}))
        decoder = Decoder(REQUEST_MAX)
        while data := sock.recv(4096):
            for frame in decoder.feed(data):
                found = frame.get("ok")
                return found if isinstance(found, int) else None
    raise ConnectionResetError("the writer has ended")


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A connection to the writer. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        with address(path) as name:
            sock.connect(name)
    except OSError:
        sock.close()
        raise
    return sock
