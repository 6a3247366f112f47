"""One HTTP/1.1 request and its answer on a connection that ends with it."""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from itertools import islice
from typing import Any, Final

from hanzo_compute.adapters.egress.urls import BODILESS, Target
from hanzo_compute.model import bounds
from hanzo_compute.ports import GuestRefusal, Status

RECEIVED_MAX: Final = 2 * bounds.EGRESS_RESPONSE_MAX
"""Bytes of an answer with all that frames it."""
HEAD_MAX: Final = 64 * 1024
INTERIM_MAX: Final = 8
"""Answers like 103 Early Hints before the one that counts."""
CHUNKS_MAX: Final = 100_000
TRAILERS_MAX: Final = 64
_LINE_MAX: Final = 4096
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_DROPPED: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "trailer", "upgrade"})


class Connection(io.RawIOBase):
    """A socket that counts, and ends when the time is over: however slowly the other side sends."""

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock = sock
        self._left = left
        self.moved = 0
        self._received = 0

    def readable(self) -> bool:
        """It is read as a file."""
        return True

    def readinto(self, buffer: Any) -> int:
        """What has come. Raises TimeoutError, GuestRefusal."""
        self._sock.settimeout(self._time())
        count = self._sock.recv_into(buffer)
        self.moved += count
        self._received += count
        if self._received > RECEIVED_MAX:
            raise GuestRefusal(Status.LIMIT, "http: the answer is too large")
        return count

    def send(self, data: bytes) -> None:
        """All of the data. Raises TimeoutError."""
        rest = memoryview(data)
        while rest:
            self._sock.settimeout(self._time())
            count = self._sock.send(rest)
            self.moved += count
            rest = rest[count:]

    def _time(self) -> float:
        left = self._left()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of a name in lower case."""
        return next((value for each, value in self.headers if each == name), None)


def head(method: str, to: Target, headers: Sequence[tuple[str, str]], size: int) -> bytes:
    """The head of a request with a body of ``size`` bytes."""
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {to.path} HTTP/1.1", f"Host: {to.authority}", "Connection: close"]
    defaults = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "hanzo-compute"}
    lines += [f"{name.title()}: {value}" for name, value in defaults.items() if name not in names]
    lines += [f"{name}: {value}" for name, value in headers]
    if size or method not in BODILESS:
        lines.append(f"Content-Length: {size}")
    return "\r\n".join([*lines, "", ""]).encode()


def exchange(connection: Connection, method: str, request: bytes) -> Answer:
    """Send a request and read its answer.

    Raises:
        GuestRefusal: the answer is none, is cut short, or too large.
        OSError: the connection broke, or (TimeoutError) the time is over.
    """
    # It may have answered before it had read all: a refusal of what is too large, say.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.send(request)
    raw: Any = connection
    reader = _Reader(raw, 65536)
    files: Any = _Files(reader)
    try:
        for _ in range(INTERIM_MAX):
            with closing(HTTPResponse(files, method=method)) as response:
                response.begin()
                if not 100 <= response.status < 200:
                    return _answer(response, reader)
                if response.status == 101:
                    break
    except (HTTPException, ValueError) as error:
        raise GuestRefusal(Status.UNAVAILABLE, f"http: the answer is no HTTP/1.1 ({type(error).__name__})") from None
    raise GuestRefusal(Status.UNAVAILABLE, "http: the other side does not come to its answer")


def _answer(response: HTTPResponse, reader: io.BufferedReader) -> Answer:
    headers = [(name.lower(), " ".join(value.split())) for name, value in response.getheaders()]
    if sum(len(name) + len(value) for name, value in headers) > HEAD_MAX:
        raise GuestRefusal(Status.LIMIT, f"http: the headers of the answer are over {HEAD_MAX} bytes")
    too_large = GuestRefusal(Status.LIMIT, f"http: the answer is over {bounds.EGRESS_RESPONSE_MAX} bytes")
    if (response.length or 0) > bounds.EGRESS_RESPONSE_MAX:
        raise too_large
    if response.chunked and not response.isclosed():
        body = _chunked(reader, too_large)
    else:
        body = response.read(bounds.EGRESS_RESPONSE_MAX + 1)
    if len(body) > bounds.EGRESS_RESPONSE_MAX:
        raise too_large
    if response.length:
        raise GuestRefusal(Status.UNAVAILABLE, "http: the answer was cut short")
    return Answer(response.status, [each for each in headers if each[0] not in _DROPPED], body)


def _chunked(reader: io.BufferedReader, too_large: GuestRefusal) -> bytes:
    """The body of an answer in chunks; of few enough that reading them costs little."""
    parts: list[bytes] = []
    left = bounds.EGRESS_RESPONSE_MAX
    for _ in range(CHUNKS_MAX):
        match = _CHUNK.fullmatch(reader.readline(_LINE_MAX))
        if match is None:
            raise HTTPException
        size = int(match[1], 16)
        left -= size
        if left < 0:
            raise too_large
        if not size:
            trailers = iter(lambda: reader.readline(_LINE_MAX), b"\r\n")
            if not all(line.endswith(b"\n") for line in islice(trailers, TRAILERS_MAX)):
                raise HTTPException
            return b"".join(parts)
        parts.append(reader.read(size))
        if reader.read(2) != b"\r\n":
            raise HTTPException
    raise GuestRefusal(Status.LIMIT, f"http: the answer is in more than {CHUNKS_MAX} chunks")


class _Reader(io.BufferedReader):
    """The file of all answers on a connection: one that is done with leaves it open to the next."""

    def close(self) -> None:
        """Nothing: the socket is closed by whom it is from."""


class _Files:
    """What HTTPResponse makes its file of; the same one for an answer that follows another."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._reader
