"""Workers for calls that somebody waits for: on an event loop, several calls at a time, each worker with one guest.

A call goes to a worker that is idle; to a new one if all have been busy for a moment; else it waits its turn. Calls
of one program that are known to be short travel together. A worker that has to be killed costs the call that it ran,
and no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.sandbox.area import LEAST
from hanzo_compute.adapters.sandbox.artefacts import CannotCompile, CompileFailed
from hanzo_compute.adapters.sandbox.pool_worker import PoolWorker
from hanzo_compute.adapters.sandbox.programs import Programs
from hanzo_compute.adapters.sandbox.turns import Turns
from hanzo_compute.adapters.sandbox.waiting import Waiting, stopping
from hanzo_compute.errors import NoCapacity, Unavailable
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.package import InvalidPackage
from hanzo_compute.ports.sandboxes import GuestCall, GuestResult

WAITING_MAX: Final = 2000
"""Calls that wait; beyond it they are refused."""
TENANT_WAITING_MAX: Final = WAITING_MAX // 4
"""Calls of one tenant that wait."""
WAITING_S: Final = 25.0
"""A call that has waited this long is not begun any more: who sent it has gone, or will have when it ends."""
PATIENCE_S: Final = 0.005
"""A call waits this long for a busy worker before another is started."""
SHORT_S: Final = 0.001
"""Programs whose calls take less on average travel in batches."""
BATCH: Final = 32
SHARE_S: Final = 0.05
"""With ``strict``, a worker ends for a tenant that has none when that has waited so long."""


class Pool:
    """Up to ``most`` workers; belongs to one event loop. With ``strict`` no worker serves two tenants."""

    def __init__(self, state_dir: Path, cache_dir: Path, most: int, *, strict: bool = False) -> None:
        self._programs = Programs(state_dir, cache_dir)
        self._most = most
        self._strict = strict
        self._turns: Turns[Waiting] = Turns()
        self._workers: set[PoolWorker] = set()
        self._idle: list[PoolWorker] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call to its end."""
        self._check_room(call.tenant)
        try:
            program = await self._programs.get(call.program)
        except (CannotCompile, InvalidPackage) as error:
            return GuestResult(Category.INVALID_PROGRAM.value, detail=str(error))
        except (CompileFailed, OSError) as error:
            raise Unavailable(f"the program could not be compiled: {error}", hint="repeat the call") from None
        self._check_room(call.tenant)  # others have come meanwhile, or the end
        loop = asyncio.get_running_loop()
        waiting = Waiting(call, program, loop.create_future(), loop.time())
        self._turns.put(call.tenant, waiting)
        self._dispatch()
        return await waiting.done

    def _check_room(self, tenant: str) -> None:
        if self._closed:
            raise stopping()
        if len(self._turns) >= WAITING_MAX or self._turns.waiting(tenant) >= TENANT_WAITING_MAX:
            raise NoCapacity("too many calls wait for a sandbox", hint="repeat it later", retry_after_s=1)

    async def close(self) -> None:
        """End all workers; whoever waits gets Unavailable."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._turns.clear():
            waiting.fail(stopping())
        workers = list(self._workers)
        for worker in workers:
            worker.task.cancel()
        await asyncio.gather(*(worker.task for worker in workers), return_exceptions=True)
        for worker in workers:
            worker.process.kill()  # whose task had not begun
        self._programs.close()

    # Workers

    def _dispatch(self) -> None:
        """Wake idle workers for calls that wait; have another started if there are none for some."""
        if self._strict:
            short = self._wake_own()
        else:
            for _ in range(min(len(self._turns), len(self._idle))):
                self._idle.pop().work.set()
            short = bool(self._turns) and not self._idle
        if short and self._timer is None and len(self._workers) < self._most:
            delay = PATIENCE_S if self._workers else 0.0
            self._timer = asyncio.get_running_loop().call_later(delay, self._impatient)

    def _wake_own(self) -> bool:
        """Each tenant that waits gets a worker of its own, or one of nobody's; whether there is none for some."""
        short = False
        for tenant in self._turns.tenants():
            fitting = [worker for worker in self._idle if worker.tenant in (tenant, None)]
            worker = max(fitting, key=lambda each: each.tenant is not None, default=None)
            if worker is None:
                short = True
            else:
                self._idle.remove(worker)
                worker.tenant = tenant
                worker.work.set()
        if short and self._idle and len(self._workers) >= self._most:
            self._idle.pop(0).retire()
        return short

    def _impatient(self) -> None:
        self._timer = None
        if self._turns and len(self._workers) < self._most:
            self._spawn()
        self._dispatch()

    def _spawn(self) -> None:
        try:
            worker = PoolWorker(self)
        except OSError as error:
            for waiting in () if self._workers else self._turns.clear():
                waiting.fail(Unavailable(f"no worker can be started: {error.strerror}", hint="repeat the call"))
            return
        self._workers.add(worker)

    def take(self, worker: PoolWorker) -> list[Waiting]:
        """The calls that a worker runs next, together; none if none waits for it."""
        batch: list[Waiting] = []
        while not batch and (tenant := self._next_for(worker)) is not None:
            batch = self._batch_of(tenant)
            self._turns.served(tenant)
            worker.tenant = tenant
        return batch

    def _batch_of(self, tenant: str) -> list[Waiting]:
        batch: list[Waiting] = []
        now = asyncio.get_running_loop().time()
        while len(batch) < BATCH and (head := self._turns.head(tenant)) is not None:
            long = head.program.pace_s > SHORT_S or len(head.call.data) > LEAST
            alone = head.call.service is not None or head.live or long
            if batch and (alone or head.program is not batch[0].program):
                break
            self._turns.pop(tenant)
            if now - head.since > WAITING_S:
                head.fail(NoCapacity("the call has waited too long for a sandbox", hint="repeat it later"))
            if not head.done.done():  # else who waited has gone
                batch.append(head)
                if alone:
                    break
        return batch

    def _next_for(self, worker: PoolWorker) -> str | None:
        """Whose calls a worker takes next."""
        waiting = self._turns.tenants()
        if not self._strict:
            return waiting[0] if waiting else None
        served = {each.tenant for each in self._workers}
        if worker.tenant is None:
            return next((each for each in waiting if each not in served), waiting[0] if waiting else None)
        if len(self._workers) >= self._most:
            before = asyncio.get_running_loop().time() - SHARE_S
            heads = [self._turns.head(each) for each in waiting if each not in served]
            if any(head is not None and head.since < before for head in heads):
                worker.retire()
                return None
        return worker.tenant if worker.tenant in waiting else None

    def again(self, waiting: Sequence[Waiting]) -> None:
        """Calls that have not begun go to another worker, once: one that kills workers is not tried for ever."""
        for each in reversed(waiting):
            if each.tried:
                each.fail(Unavailable("the sandbox ended before the call began", hint="repeat the call"))
            else:
                each.tried = True
                self._turns.put_back(each.call.tenant, each)

    def idle(self, worker: PoolWorker) -> None:
        """A worker has nothing to do."""
        worker.work.clear()
        self._idle.append(worker)
        self._dispatch()

    def gone(self, worker: PoolWorker) -> None:
        """A worker has ended."""
        self._workers.discard(worker)
        with suppress(ValueError):
            self._idle.remove(worker)
        if not self._closed:
            if not self._workers:
                self._spawn()  # the next call should not wait for one to start
            self._dispatch()
