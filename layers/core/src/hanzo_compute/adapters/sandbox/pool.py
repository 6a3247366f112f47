"""Workers for calls that somebody waits for: on an event loop, several calls at a time, each worker with one guest.

A call goes to a worker that is idle; to a new one if all have been busy for a moment; else it waits its turn. Calls
of one program that are known to be short travel together. A worker that has to be killed costs the call that it ran,
and no other.

Nobody can take a worker from a call that runs, so turns alone would let one tenant hold all of them for as long as its
calls last. While ``most`` are busy, only a tenant that has none gets one: a few more are started for those.
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
BEYOND_S: Final = 0.1
"""A tenant that has no worker waits this long for one of ``most`` before one more is started."""


class Pool:
    """Up to ``most`` workers, and half as many more, for tenants that would have none; belongs to one event loop.

    With ``strict`` no worker serves two tenants.
    """

    def __init__(self, state_dir: Path, cache_dir: Path, most: int, *, strict: bool = False) -> None:
        self._programs = Programs(state_dir, cache_dir)
        self._most = most
        self._limit = most + max(1, most // 2)
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
        if self._idle or len(self._workers) < self._most or self._turns.waiting(call.tenant) == 1:
            self._dispatch()  # else it waits behind another of its tenant's, and changes nothing
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
        tasks = {worker.task for worker in workers}
        while tasks:  # until they heed it: before 3.12 wait_for loses a cancellation that comes with data
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=0.1)
        for worker in workers:
            worker.process.kill()  # whose task had not begun
        self._programs.close()

    # Workers

    def _dispatch(self) -> None:
        """Wake idle workers for calls that may begin; have another started if there are none for some."""
        if not self._idle and (self._timer is not None or len(self._workers) >= self._limit):
            return  # all that could be done is being done
        short = self._wake_own() if self._strict else self._wake()
        if short and self._timer is None and (delay := self._delay()) is not None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._impatient)

    def _wake(self) -> bool:
        """Wake workers for what may begin; whether there is none for some."""
        held = self._held()
        coming = len(self._workers) - len(held) - len(self._idle)
        room = min(len(self._turns), self._most - len(held))
        lacking = sum(tenant not in held for tenant in self._turns.tenants()) if room < len(self._turns) else 0
        wanted = max(room, lacking) - coming
        for _ in range(min(wanted, len(self._idle))):
            wanted -= 1
            self._idle.pop().work.set()
        return wanted > 0

    def _wake_own(self) -> bool:
        """Each tenant that waits gets a worker of its own, or one of nobody's; whether there is none for some."""
        short, held = False, self._held()
        for tenant in self._turns.tenants():
            if not self._may(tenant, held):
                continue
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

    def _held(self) -> list[str]:
        """The tenant of each worker that has calls."""
        return [each.tenant for each in self._workers if each.tenant is not None and each.busy]

    def _lacking(self) -> list[Waiting]:
        """The next call of each tenant that waits and has no worker."""
        served = {each.tenant for each in self._workers if self._strict or each.busy}
        heads = [self._turns.head(tenant) for tenant in self._turns.tenants() if tenant not in served]
        return [head for head in heads if head is not None]

    def _may(self, tenant: str, held: list[str]) -> bool:
        """Whether a tenant may have another worker."""
        return len(held) < self._most or tenant not in held

    def _delay(self) -> float | None:
        """When to start another worker, from now on; None: not yet, or none."""
        if len(self._workers) < self._most:
            return PATIENCE_S if self._workers else 0.0
        if len(self._workers) >= self._limit:
            return None
        since = min([head.since for head in self._lacking()], default=None)
        return None if since is None else max(0.0, since + BEYOND_S - asyncio.get_running_loop().time())

    def _impatient(self) -> None:
        self._timer = None
        if self._turns and (len(self._workers) < self._most or self._delay() == 0.0):
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
        worker.busy = False
        batch: list[Waiting] = []
        while not batch and (tenant := self._next_for(worker)) is not None:
            batch = self._batch_of(tenant)
            self._turns.served(tenant)
            worker.tenant = tenant
        worker.busy = bool(batch)
        if batch and self._turns:
            self._dispatch()  # who hoped for this worker may need another
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
        held = self._held()
        may = (tenant for tenant in self._turns.tenants() if self._may(tenant, held))
        if not self._strict:
            return next(may, None)
        lacking = self._lacking()
        if worker.tenant is None:
            return lacking[0].call.tenant if lacking else next(may, None)
        before = asyncio.get_running_loop().time() - SHARE_S
        if len(self._workers) >= self._most and any(head.since < before for head in lacking):
            worker.retire()
            return None
        return worker.tenant if worker.tenant in may else None

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
        if self._idle and len(self._workers) > self._most:
            worker.retire()  # one that was started beyond those is enough
        else:
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
