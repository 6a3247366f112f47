"""One HTTP request and its response, on ASGI; and the limits that hold before any handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Final

from hanzo_compute.errors import PayloadTooLarge
from hanzo_compute.model.bounds import KIB
from hanzo_compute_host import problems
from hanzo_compute_host.events import Answer
from hanzo_compute_host.limits import SMALL, Load
from hanzo_compute_host.problems import HeadersTooLarge, RequestTimeout, UnsupportedMedia

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEADERS_MAX: Final = 10_240
"""Request line and headers together, bytes: API Gateway's bound."""
BODY_TIMEOUT_S: Final = 30.0
"""A body must have arrived in this time."""
DISCARD_TIMEOUT_S: Final = 5.0
DISCARDED_MAX: Final = 8 * 1024 * 1024
"""What is left of the body of a refused request is read and dropped up to this many bytes."""
PIECE: Final = 64 * KIB
"""An answer is handed to the connection in pieces, each when the one before has gone out."""


class Disconnected(Exception):
    """The client has gone: there is nobody to answer."""


class Exchange:
    """A request that is read and answered step by step."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, load: Load) -> None:
        self.scope = scope
        self.request_id = request_id
        self.started = False
        self._load = load
        self._held = 0
        self._receive = receive
        self._send = send
        self._close = False
        self._more = True
        self._size = 0

    @property
    def method(self) -> str:
        """The method."""
        return str(self.scope["method"])

    @property
    def raw_path(self) -> str:
        """The path as it was sent."""
        return bytes(self.scope["raw_path"]).decode("latin-1")

    def check_head(self) -> None:
        """Refuse a head that is too large, or that another program could read otherwise than this one.

        Raises:
            HeadersTooLarge, NotHttp, UnsupportedMedia: see there.
        """
        size = len(self.scope["raw_path"]) + len(self.scope["query_string"])
        size += sum(len(name) + len(value) for name, value in self.scope["headers"])
        if size > HEADERS_MAX:
            raise HeadersTooLarge(f"request line and headers may have {HEADERS_MAX} bytes, these have {size}")
        version = self.scope["http_version"]
        if version not in ("1.0", "1.1"):
            raise problems.bad_http(f"HTTP/{version} is not spoken here", "(version)")
        hosts = 0
        for name, value in self.scope["headers"]:
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding" and (value.strip().lower() != b"chunked" or version == "1.0"):
                raise problems.bad_http("only chunked is known, and only to HTTP/1.1", "Transfer-Encoding")
            elif name == b"content-encoding" and value.strip().lower() != b"identity":
                raise UnsupportedMedia("a body must not be encoded", hint="send it without Content-Encoding")
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise problems.bad_http("must be there once", "Host")

    def header(self, name: bytes) -> str | None:
        """The first header of this name (in lower case)."""
        for each, value in self.scope["headers"]:
            if each == name:
                return bytes(value).decode("latin-1")
        return None

    def content_length(self) -> int | None:
        """The announced size of the body, bytes."""
        announced = self.header(b"content-length")
        return None if announced is None else int(announced)

    async def body(self, limit: int, admit: Callable[[], None]) -> bytes:
        """All of the body. What is not small is read only of a caller whom ``admit`` lets in, by raising nothing.

        Raises:
            PayloadTooLarge: it has more than ``limit`` bytes; as early as that is known.
            Unavailable: too many large bodies are held already.
            RequestTimeout: it does not come in time.
        """
        parts: list[bytes] = []
        announced = self.content_length() or 0
        admitted = limit >= announced > SMALL
        if admitted:
            admit()

        def take(part: bytes) -> None:
            nonlocal admitted
            if self._size > SMALL:
                if not admitted:
                    admit()
                    admitted = True
                self._load.bodies.take(self._size - self._held)
                self._held = self._size
            parts.append(part)

        await self.read(limit, take)
        return b"".join(parts)

    async def read(self, limit: int, take: Callable[[bytes], None]) -> None:
        """Hand the body to ``take`` as it arrives, never more than ``limit`` bytes of it."""
        announced = self.content_length()
        if announced is not None and announced > limit:
            raise self._too_large(limit)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while self._more:
                    part = await self._part()
                    if self._size > limit:
                        raise self._too_large(limit)
                    take(part)
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s") from None

    def close(self) -> None:
        """The request is over: its body is held no more."""
        self._load.bodies.give(self._held)
        self._held = 0

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise Disconnected
        self._more = message["more_body"]
        self._size += len(message["body"])
        return bytes(message["body"])

    def _too_large(self, limit: int) -> PayloadTooLarge:
        hint = "put it into a blob: POST /v1/blobs" if self.method == "POST" else None
        return PayloadTooLarge(f"a body may have {limit} bytes here", hint=hint, limit=limit)

    async def discard(self) -> None:
        """Read what is left of the body, within bounds: a client that still sends does not see an answer."""
        waits = any(name == b"expect" for name, _ in self.scope["headers"])
        try:
            async with asyncio.timeout(DISCARD_TIMEOUT_S):
                while self._more and not waits and max(self.content_length() or 0, self._size) <= DISCARDED_MAX:
                    await self._part()
        except TimeoutError:
            pass
        self._close = self._close or self._more

    async def disconnected(self) -> None:
        """Returns when the client has gone; only once the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, answer: Answer) -> None:
        """Send a whole response."""
        with self.holding(len(answer.body)):
            # These have none (RFC 9110, 8.6): of a 304 it would be another response's.
            length = None if answer.status in (204, 304) else len(answer.body)
            await self.start(answer, length=length)
            await self.write(answer.body, more=False)

    async def start(self, answer: Answer, *, length: int | None = None) -> None:
        """Send the status and headers; ``length`` is the body's size if it is known."""
        headers = [*answer.headers, (b"x-request-id", self.request_id.encode("ascii"))]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        if self._close:
            headers.append((b"connection", b"close"))
        self.started = True
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})

    def holding(self, size: int) -> AbstractContextManager[None]:
        """Count ``size`` bytes as waiting for this client to read them. Raises Unavailable when too many do."""
        return self._load.answers.hold(size)

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; waits while the client is slow to read."""
        while len(body) > PIECE:
            await self._send({"type": "http.response.body", "body": body[:PIECE], "more_body": True})
            body = body[PIECE:]
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
