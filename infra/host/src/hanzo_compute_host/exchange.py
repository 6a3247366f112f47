"""One HTTP request and its response, on ASGI; and the limits that hold before any handler sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hanzo_compute.errors import PayloadTooLarge
from hanzo_compute_host.events import Answer
from hanzo_compute_host.problems import HeadersTooLarge, RequestTimeout

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

HEADERS_MAX: Final = 10_240
"""Request line and headers together, bytes: API Gateway's bound."""
HEAD_BUFFER_MAX: Final = 64 * 1024
"""Bytes of an unfinished head after which the connection is closed without reading on."""
BODY_TIMEOUT_S: Final = 30.0
"""A body must have arrived in this time."""
DISCARD_TIMEOUT_S: Final = 5.0
DISCARDED_MAX: Final = 8 * 1024 * 1024
"""What is left of the body of a refused request is read and dropped up to this many bytes."""


class Disconnected(Exception):
    """The client has gone: there is nobody to answer."""


class Protocol(HttpToolsProtocol):
    """uvicorn's, with a bound on the head of a request: its parser collects headers without one."""

    _unfinished = 0
    _quiet_ticks = 0

    def data_received(self, data: bytes) -> None:
        """Feed the parser; it calls back for whatever is complete."""
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > HEAD_BUFFER_MAX and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The head has arrived."""
        self._unfinished = 0
        super().on_headers_complete()
        if getattr(self.server_state, "retiring", False):
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        self._unfinished = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request has arrived."""
        self._unfinished = 0
        super().on_message_complete()

    def retire(self, quiet_ticks: int) -> None:
        """Called now and then: end with the next answer, which says so; or after as many calls without a request."""
        cycle: RequestResponseCycle | None = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if cycle is not None and not cycle.response_started:
            cycle.keep_alive = False
        self._quiet_ticks = 0 if answering else self._quiet_ticks + 1
        if self._quiet_ticks > quiet_ticks:
            self.transport.close()


class Exchange:
    """A request that is read and answered step by step."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.scope = scope
        self.request_id = request_id
        self.started = False
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

    def check_headers(self) -> None:
        """Raises HeadersTooLarge."""
        size = len(self.scope["raw_path"]) + len(self.scope["query_string"])
        size += sum(len(name) + len(value) for name, value in self.scope["headers"])
        if size > HEADERS_MAX:
            raise HeadersTooLarge(f"request line and headers may have {HEADERS_MAX} bytes, these have {size}")

    def content_length(self) -> int | None:
        """The announced size of the body, bytes."""
        for name, value in self.scope["headers"]:
            if name == b"content-length":
                return int(value)
        return None

    async def body(self, limit: int) -> bytes:
        """All of the body. Raises PayloadTooLarge, as early as that is known."""
        return b"".join([part async for part in self.parts(limit)])

    async def parts(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it arrives, never more than ``limit`` bytes of it."""
        announced = self.content_length()
        if announced is not None and announced > limit:
            raise self._too_large(limit)
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while self._more:
                    part = await self._part()
                    if self._size > limit:
                        raise self._too_large(limit)
                    yield part
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s") from None

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
        await self.start(answer, length=len(answer.body))
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

    async def write(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body; waits while the client is slow to read."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
