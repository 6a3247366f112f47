"""The load generator: HTTP/1.1 on kept-alive connections, each with one request in flight.

It runs in the benchmark's own process, so that its CPU is never among that of the servers. It competes with them for
the machine's cores, with every server that is compared in the same way.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import uvloop

TIMEOUT_S: Final = 120
"""Whatever has not been answered by then never will be."""
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; times in seconds since the epoch."""

    status: int
    body: bytes
    sent: float
    received: float

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def latency_ms(self) -> float:
        return (self.received - self.sent) * 1000


def request(method: str, path: str, key: str, body: object = None) -> bytes:
    """The bytes of one request with a bearer key and, if there is a body, JSON."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    data = json.dumps(body, separators=(",", ":")).encode()
    return f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


class _Connection(asyncio.Protocol):
    def __init__(self, waiting: deque[bytes], answers: list[Answer], over: asyncio.Future[None]) -> None:
        self._waiting = waiting
        self._answers = answers
        self._over = over
        self._buffer = b""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._next()

    def _next(self) -> None:
        if not self._waiting:
            self._over.set_result(None)
            self._transport.close()
            return
        self._sent = time.time()
        self._transport.write(self._waiting.popleft())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = LENGTH.search(head)
        if length is None:
            self._fail(f"an answer without a length: {head!r}")
        elif len(body) >= int(length[1]):
            self._buffer = b""
            self._answers.append(Answer(int(head[9:12]), body, self._sent, time.time()))
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the server closed a connection: {error}")

    def _fail(self, why: str) -> None:
        if not self._over.done():
            self._over.set_exception(ConnectionError(why))


async def _drive(port: int, requests: Sequence[bytes], connections: int) -> list[Answer]:
    loop = asyncio.get_running_loop()
    waiting, answers = deque(requests), list[Answer]()
    ends: list[asyncio.Future[None]] = []
    for _ in range(min(connections, len(requests))):
        ends.append(loop.create_future())
        await loop.create_connection(lambda: _Connection(waiting, answers, ends[-1]), "127.0.0.1", port)
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.gather(*ends)
    return answers


def drive(port: int, requests: Sequence[bytes], *, connections: int) -> list[Answer]:
    """Send all requests over so many connections; the answers in order of arrival.

    Raises:
        ConnectionError: the server closed a connection, or answered what has no length.
    """
    return uvloop.run(_drive(port, requests, connections))


def accepted(answers: Sequence[Answer], *statuses: int) -> Sequence[Answer]:
    """The same answers, if each has one of these statuses: a benchmark of refusals would measure nothing."""
    for answer in answers:
        assert answer.status in statuses, f"{answer.status}: {answer.body[:500]!r}"
    return answers
