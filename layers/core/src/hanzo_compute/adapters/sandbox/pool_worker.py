"""A worker process of a pool: fed with calls on the pool's event loop, by a task of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from hanzo_compute.adapters.sandbox import frames
from hanzo_compute.adapters.sandbox.artefacts import Artefacts
from hanzo_compute.adapters.sandbox.frames import Invocation
from hanzo_compute.adapters.sandbox.hostcalls import UNAVAILABLE
from hanzo_compute.adapters.sandbox.process import GRACE_S, LATE_S, RESULTS, TEMPLATES, WorkerDied, WorkerProcess
from hanzo_compute.adapters.sandbox.programs import Program
from hanzo_compute.adapters.sandbox.waiting import Waiting, stopping
from hanzo_compute.model.outcome import Category

log = logging.getLogger(__name__)

CALLS_PER_WORKER: Final = 20_000
"""A worker is replaced after so many calls, so that what leaks cannot add up."""
READY_S: Final = 30.0


class Feed(Protocol):
    """Where a worker gets its calls from."""

    def take(self, worker: PoolWorker) -> list[Waiting]:
        """The calls that a worker runs next, together; none if none waits for it."""
        ...

    def again(self, waiting: Sequence[Waiting]) -> None:
        """Calls that have not begun go to another worker."""
        ...

    def idle(self, worker: PoolWorker) -> None:
        """A worker has nothing to do."""
        ...

    def gone(self, worker: PoolWorker) -> None:
        """A worker has ended."""
        ...


class PoolWorker:
    """A worker process on the loop, and the task that feeds it."""

    def __init__(self, feed: Feed) -> None:
        self.tenant: str | None = None
        self.busy = False
        """It has calls of its tenant's, since it last took some."""
        self.work = asyncio.Event()
        self.process = WorkerProcess()
        self._feed = feed
        self._socket = self.process.detach()
        self._inbox = frames.Inbox()
        self._prepared: OrderedDict[tuple[Program, bool], int] = OrderedDict()
        """Numbers of programs here; of those whose output comes while they run, apart."""
        self._calls = 0
        self._until = 0.0
        """When the worker must have said what is waited for."""
        self._late: float | None = None
        """When that was seen not to be so: what came just in time is read to its end, a flood is not."""
        self._questions = 0
        """Host calls of the call that runs."""
        self._retired = False
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def retire(self) -> None:
        """End when nothing runs."""
        self._retired = True
        self.work.set()

    def _goes_on(self) -> bool:
        return not self._retired and self._calls < CALLS_PER_WORKER and not self.process.dead

    async def _serve(self) -> None:
        try:
            while self._goes_on():
                batch = self._feed.take(self)
                if not batch and self._goes_on():
                    self._feed.idle(self)
                    await self.work.wait()
                    continue
                self._calls += len(batch)
                if not batch or not await self._run(batch):
                    break
        finally:
            self.process.kill()
            self._feed.gone(self)

    async def _run(self, batch: list[Waiting]) -> bool:
        """Run calls; False if the worker cannot go on."""
        left = list(batch)
        running = False
        try:
            numbers = [await self._number(each.program, live=each.live) for each in batch]
            invocations = [
                Invocation(at, number, max(0, round(each.call.timeout_s * 1000)), each.call.data)
                for at, (number, each) in enumerate(zip(numbers, batch, strict=True))
            ]
            await self._send(self.process.calls(invocations))
            running = True
            self._within(left[0].call.timeout_s + GRACE_S)
            while left:
                kind, body = await self._frame()
                if kind in RESULTS:
                    found = self.process.answers(kind, body)
                    for answered in found:
                        left.pop(0).answer(answered)
                    if found and left:
                        self._within(left[0].call.timeout_s + GRACE_S)
                elif kind == frames.ASK:
                    await self._asked(left[0], body)
                elif kind == frames.OUTPUT:
                    left[0].output(*self.process.output_of(body))
        except asyncio.CancelledError:
            for each in left:
                each.fail(stopping())
            raise
        except TimeoutError:
            self._end(left, running, None)
            return False
        except (WorkerDied, LookupError, OSError, frames.BadFrame) as error:
            self._end(left, running, str(error))
            return False
        except Exception as error:
            log.exception("a worker is given up")
            self._end(left, running, f"{type(error).__name__}: {error}")
            return False
        return True

    def _end(self, left: Sequence[Waiting], running: bool, why: str | None) -> None:
        """The first of these was running (None: for too long); those behind it have not begun, and are put back."""
        begun, rest = (left[:1], left[1:]) if running else ((), left)
        for waiting in begun:
            wall_us = round((asyncio.get_running_loop().time() - waiting.since) * 1e6)
            if why is None:
                waiting.end(Category.TIMEOUT, "its time was over", wall_us)
            else:
                waiting.end(Category.PLATFORM, why, wall_us)
        self._feed.again(rest)

    async def _number(self, program: Program, *, live: bool) -> int:
        """The number of a program in this worker, told and loaded if it has to be."""
        number = self._prepared.get((program, live))
        if number is not None:
            self._prepared.move_to_end((program, live))
            return number
        full = len(self._prepared) >= TEMPLATES
        number = self._prepared.popitem(last=False)[1] if full else len(self._prepared)
        told = frames.told(frames.PREPARE, replace(program.template, live=live).as_json(number))
        answer = await self._asking(told)
        missing = answer.get("missing")
        if missing:
            for artefact, artefacts in program.compiled.items():
                if artefact in missing:
                    await self._load(program, artefact, artefacts)
            answer = await self._asking(told)
        if not answer.get("ready"):
            raise LookupError(_why(answer))
        self._prepared[program, live] = number
        return number

    async def _load(self, program: Program, artefact: str, artefacts: Artefacts) -> None:
        fd = await asyncio.to_thread(artefacts.get, program.digest, program.source)
        try:
            head = {"artefact": artefact, "profile": program.template.profile, "component": False}
            socket.send_fds(self._socket, [frames.told(frames.LOAD, head)], [fd])
        finally:
            os.close(fd)
        answer = await self._ready()
        if not answer.get("ready"):
            raise LookupError(_why(answer))

    async def _asking(self, told: bytes) -> dict[str, Any]:
        await self._send(told)
        return await self._ready()

    async def _ready(self) -> dict[str, Any]:
        self._within(READY_S)
        return frames.heard((await self._frame())[1])

    def _within(self, seconds: float) -> None:
        """Expect something from the worker from now on, for so long."""
        self._until, self._late, self._questions = time.monotonic() + seconds, None, 0

    async def _asked(self, waiting: Waiting, body: bytes) -> None:
        """Answer a guest; what takes long does so in a thread."""
        name, args = self.process.question_of(body)
        self._questions += 1
        if self._questions > waiting.program.template.bounds.host_calls:
            raise frames.BadFrame("the worker asks more than its guest may")
        service = waiting.call.service
        status, result = UNAVAILABLE, b""
        try:
            if service is not None and name == "http":
                status, result = await asyncio.to_thread(service.ask, name, args)
            elif service is not None:
                status, result = service.ask(name, args)
        except Exception:
            log.exception("the host function %s failed", name)
        await self._send(frames.answer(status, result))

    async def _send(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, data)
        except ConnectionError:
            raise await asyncio.to_thread(self.process.died) from None

    async def _frame(self) -> tuple[int, bytes]:
        while True:
            now = time.monotonic()
            if now >= self._until:
                self._late = self._late or now
                if now - self._late > LATE_S:
                    raise TimeoutError
            found = self.process.heard(self._inbox)
            if found is not None:
                return found
            try:
                data = await asyncio.wait_for(
                    asyncio.get_running_loop().sock_recv(self._socket, 1 << 18), max(0.001, self._until - now)
                )
            except ConnectionError:  # it ended with something of ours unread
                data = b""
            if not data:
                raise await asyncio.to_thread(self.process.died)  # it may take a moment to end
            self._inbox.feed(data)


def _why(answer: dict[str, Any]) -> str:
    return str(answer.get("error", "the worker cannot use the compiled module"))
