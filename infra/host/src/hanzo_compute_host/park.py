"""Requests that wait: parked until one of their partitions is woken, durably, or the answer's time has come.

Everything here runs on one event loop. A request parks in the same step in which its handler returned, before
anything else can run: news from the writer is only looked at between steps, so a wake that comes after the
handler looked cannot be missed. A parked request is a few objects; nothing runs on its behalf.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

from hanzo_compute.errors import Unavailable
from hanzo_compute.ports import WAKE_ALL, Commits

WAKES_AT_ONCE: Final = 16
"""Requests that are woken in one step of the loop."""
LOOK_S: Final = 1.0
"""The writer's news is looked at this often even if its descriptor says nothing."""


class Park(AbstractContextManager["Park"]):
    """One parked request; a context manager, at whose end it is forgotten."""

    def __init__(self, parking: Parking, partitions: frozenset[str]) -> None:
        self._parking = parking
        self._partitions = partitions
        self._woken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.due = False
        """Whether it stands in the line of those that are woken."""

    def wake(self, woken: bool = True) -> None:
        """End the wait."""
        if not self._woken.done():
            self._woken.set_result(woken)

    @property
    def woken(self) -> bool:
        """Whether the wait is over."""
        return self._woken.done()

    async def wait(self, timeout_s: float, until: asyncio.Task[None] | None = None) -> bool:
        """True once woken; False after ``timeout_s`` seconds, when ``until`` has ended or the host stops."""
        waits: list[asyncio.Future[Any]] = [self._woken] if until is None else [self._woken, until]
        await asyncio.wait(waits, timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED)
        return self._woken.done() and self._woken.result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Wait no more."""
        self._woken.cancel()
        self._parking.forget(self, self._partitions)


class Parking:
    """Who waits for which partition."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Park]] = {}
        self._closed = False
        self._due: deque[Park] = deque()
        self._waking = False

    def park(self, partitions: Iterable[str]) -> Park:
        """Park; call it in the step in which the handler returned."""
        wanted = frozenset(partitions)
        park = Park(self, wanted)
        for partition in wanted:
            self._waiting.setdefault(partition, set()).add(park)
        if self._closed:
            park.wake(False)
        return park

    def forget(self, park: Park, partitions: frozenset[str]) -> None:
        """The request no longer waits."""
        for partition in partitions:
            waiting = self._waiting.get(partition, set())
            waiting.discard(park)
            if not waiting:
                self._waiting.pop(partition, None)

    def wake(self, partitions: Iterable[str]) -> None:
        """Wake whoever waits for one of these; ``WAKE_ALL`` is everybody."""
        for partition in partitions:
            for waiting in [self._waiting.get(partition, ())] if partition != WAKE_ALL else self._waiting.values():
                for park in waiting:
                    if not park.due:  # thousands stand in line for a while, and their partition may wake at each commit
                        park.due = True
                        self._due.append(park)
        if self._due and not self._waking:
            self._wake_some()

    def _wake_some(self) -> None:
        """Wake some, let everybody else have a turn, go on: thousands may wait for one partition."""
        for _ in range(min(len(self._due), WAKES_AT_ONCE)):
            self._due.popleft().wake()
        self._waking = bool(self._due)
        if self._waking:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def close(self) -> None:
        """The host stops: whoever waits, or wants to, is answered now."""
        self._closed = True
        for waiting in self._waiting.values():
            for park in waiting:
                park.wake(False)

    @property
    def closed(self) -> bool:
        """Whether nobody can wait any more."""
        return self._closed

    def __len__(self) -> int:
        return len({park for waiting in self._waiting.values() for park in waiting})


class Journal:
    """The writer's news on an event loop: tickets that become durable or fail, partitions that wake."""

    def __init__(self, commits: Commits | None, parking: Parking) -> None:
        self._commits = commits
        self._parking = parking
        self._tickets: dict[int, asyncio.Future[None]] = {}
        self._fd: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen, on the running loop."""
        if self._commits is not None:
            self._fd = self._commits.fileno()
            asyncio.get_running_loop().add_reader(self._fd, self.listen)
            self._tick()

    def _tick(self) -> None:
        # A writer that is gone rings no bell: looking is what connects to the next one.
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._tick)
        self.listen()

    def stop(self) -> None:
        """Listen no more; whoever still waits for a ticket gets Unavailable."""
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._fd = None
        if self._timer is not None:
            self._timer.cancel()
        for ticket in list(self._tickets):
            self._settle(ticket, durable=False)

    def take(self) -> asyncio.Future[None] | None:
        """A future for all that this process wrote or freshly read since the last call, or None.

        It fails with Unavailable when that was lost. Call it in the step in which the handler returned.
        """
        if self._commits is None:
            return None
        ticket = self._commits.take()
        future: asyncio.Future[None] | None = None
        if ticket is not None:
            future = self._tickets[ticket] = asyncio.get_running_loop().create_future()
            # Whoever asked may be gone by then: nobody has to look at the failure.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.listen()
        return future

    def listen(self) -> None:
        """Look at the news now: the handler's own calls may have read it off the descriptor."""
        if self._commits is None:
            return
        news = self._commits.news()
        for ticket in news.durable:
            self._settle(ticket, durable=True)
        for ticket in news.failed:
            self._settle(ticket, durable=False)
        self._parking.wake(news.woken)

    def _settle(self, ticket: int, *, durable: bool) -> None:
        future = self._tickets.pop(ticket, None)
        if future is None or future.done():
            return
        if durable:
            future.set_result(None)
        else:
            future.set_exception(
                Unavailable(
                    "the write was lost before it was durable",
                    hint="repeat the request; if it stays so, look for a full disk",
                )
            )
