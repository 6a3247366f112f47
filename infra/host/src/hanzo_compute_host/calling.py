"""A call of a function that runs: the tickets of what it writes, and its output on the way to who waits for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from hanzo_compute.errors import ComputeError, Unavailable
from hanzo_compute.front import streams
from hanzo_compute.ports.guests import GuestService
from hanzo_compute_host.events import Answer
from hanzo_compute_host.exchange import Exchange
from hanzo_compute_host.limits import Budget
from hanzo_compute_host.park import Journal

OUTSIDE: Final = "http"
"""The host call that does not stand on the store."""
OUTPUT: Final = "output"
"""The host call that adds to an output by name."""


class Ticketed:
    """Answers host calls, and takes the tickets of what that writes: they belong to no handler's answer."""

    def __init__(self, service: GuestService, journal: Journal, flow: Outflow | None) -> None:
        self._service = service
        self._journal = journal
        self._flow = flow
        self.futures: list[asyncio.Future[None]] = []

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """What the service answers."""
        if name == OUTSIDE:  # in a thread, and without the store
            return self._service.ask(name, args)
        try:
            answered = self._service.ask(name, args)
        finally:
            durable = self._journal.take()
            if durable is not None:
                self.futures.append(durable)
        if name == OUTPUT and answered[0] >= 0 and self._flow is not None:
            output, chunk = args
            assert isinstance(output, bytes)
            assert isinstance(chunk, bytes)
            self._flow.take(output.decode(), chunk)
        return answered


class Outflow:
    """Output of one call, sent as an event stream while the call runs.

    A guest never waits for a client that is slow: what waits is bounded by what a call may write, and by what all
    clients together may leave unread. A client that has gone ends nothing.
    """

    def __init__(self, exchange: Exchange, head: Answer, unread: Budget) -> None:
        self._exchange = exchange
        self._head = head
        self._unread = unread
        self._held = 0
        self._pieces: deque[tuple[str | None, bytes]] = deque()
        self._news = asyncio.Event()
        self._over = False
        self._sender: asyncio.Task[None] | None = None
        self._broken: ComputeError | None = None
        self.durable: Callable[[], Awaitable[None]] | None = None
        """Waits until what the call has written so far is durable: no output runs ahead of that."""
        self.sent: int | None = None
        """Bytes of standard output that were taken; None until the stream has begun."""

    def heard(self, data: bytes) -> None:
        """Take a piece of standard output."""
        self.take(None, data)

    def take(self, name: str | None, data: bytes) -> None:
        """Take a piece of an output."""
        if self._over or self._broken is not None or not data:
            return
        try:
            self._unread.take(len(data))
        except Unavailable as error:
            # Before anything was sent, all of it can still go with the answer.
            self._broken = error
            return
        self._held += len(data)
        self._pieces.append((name, data))
        self.sent = (self.sent or 0) + (len(data) if name is None else 0)
        self._news.set()
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def stop(self) -> bool:
        """Take no more, and send what was taken; whether the client has anything of it."""
        self._over = True
        self._news.set()
        if self._sender is not None:
            await self._sender
        return self._exchange.started

    async def end(self, rest: bytes, failed: Callable[[ComputeError], bytes]) -> None:
        """Send what was taken, and the ``rest``. ``failed`` makes the last event of a stream that could not be sent."""
        await self.stop()
        try:
            if self._broken is not None:
                raise self._broken
            with self._exchange.holding(len(rest)):
                await self._exchange.write(rest)
        except ComputeError as error:
            await self._exchange.write(failed(error))
        await self._exchange.write(b"", more=False)

    def close(self) -> None:
        """Take and send no more; repeatable."""
        self._over = True
        if self._sender is not None:
            self._sender.cancel()
        self._unread.give(self._held)
        self._held = 0
        self._pieces.clear()

    async def _send(self) -> None:
        try:
            while True:
                while self._pieces:
                    if self.durable is not None:
                        await self.durable()
                    if not self._exchange.started:
                        await self._exchange.start(self._head)
                    name, data = self._next()
                    await self._exchange.write(streams.piece(name, data))
                    self._unread.give(len(data))
                    self._held -= len(data)
                if self._over:
                    return
                self._news.clear()
                await self._news.wait()
        except ComputeError as error:
            self._broken = self._broken or error

    def _next(self) -> tuple[str | None, bytes]:
        """The next piece, joined with those behind it that belong to it and fit."""
        name, data = self._pieces.popleft()
        parts, size = [data], len(data)
        while self._pieces and self._pieces[0][0] == name and size + len(self._pieces[0][1]) <= streams.PIECE:
            parts.append(self._pieces.popleft()[1])
            size += len(parts[-1])
        return name, b"".join(parts)
