"""Workers for calls that somebody waits for: on an event loop, several calls at a time, each worker with one guest.

A call goes to a worker that is idle; to a new one if all have been busy for a moment; else it waits its turn. Calls
of one program that are known to be short travel together. A worker that has to be killed costs the call that it ran,
and no other.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.sandbox import call as calls
from hanzo_compute.adapters.sandbox import frames, interpreters, layout
from hanzo_compute.adapters.sandbox.artefacts import Artefacts, CannotCompile, CompileFailed
from hanzo_compute.adapters.sandbox.cache import private_dir
from hanzo_compute.adapters.sandbox.call import Bounds, Folder, Report
from hanzo_compute.adapters.sandbox.frames import Invocation
from hanzo_compute.adapters.sandbox.hostcalls import UNAVAILABLE
from hanzo_compute.adapters.sandbox.process import GRACE_S, TEMPLATES, Answered, Template, WorkerDied, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import SANDBOX_VERSION, Profile, tag, version
from hanzo_compute.adapters.sandbox.turns import Turns
from hanzo_compute.errors import NoCapacity, Unavailable
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.package import InvalidPackage
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram, GuestResult

log = logging.getLogger(__name__)

CALLS_PER_WORKER: Final = 20_000
"""A worker is replaced after so many calls, so that what leaks cannot add up."""
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
LOGS_MAX: Final = 64 << 10
"""Bytes that are kept of what one call logs."""
READY_S: Final = 30.0
GUEST: Final = {"python": "hzc.py", "javascript": "hzc.js"}
"""The module by which a program of a language reaches the platform."""
PROGRAMS_KEPT: Final = 512


@dataclass(eq=False)
class _Program:
    """A program as workers know it."""

    template: Template
    artefacts: Artefacts
    digest: str
    source: Callable[[], bytes]
    runtime: str
    pace_s: float = 1.0


@dataclass(eq=False)
class _Waiting:
    """A call and who waits for it."""

    call: GuestCall
    program: _Program
    done: asyncio.Future[GuestResult]
    since: float
    logs: bytearray = field(default_factory=bytearray)
    tried: bool = False

    def say(self, line: bytes) -> None:
        """Keep a line that it logged, if there is room."""
        if len(self.logs) < LOGS_MAX:
            self.logs += line


class Pool:
    """Up to ``most`` workers; belongs to one event loop. With ``strict`` no worker serves two tenants."""

    def __init__(self, state_dir: Path, cache_dir: Path, most: int, *, strict: bool = False) -> None:
        self._files = private_dir(private_dir(state_dir) / "functions")
        self._cache_dir = private_dir(cache_dir)
        self._most = most
        self._strict = strict
        self._artefacts: dict[str, Artefacts] = {}
        self._programs: OrderedDict[str, _Program] = OrderedDict()
        self._preparing: dict[str, asyncio.Task[_Program]] = {}
        self._turns: Turns[_Waiting] = Turns()
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call to its end."""
        self._check_room(call.tenant)
        try:
            program = self._programs.get(call.program.key) or await self._prepared(call.program)
        except (CannotCompile, InvalidPackage) as error:
            return GuestResult(Category.INVALID_PROGRAM.value, detail=str(error))
        except (CompileFailed, OSError) as error:
            raise Unavailable(f"the program could not be compiled: {error}", hint="repeat the call") from None
        self._check_room(call.tenant)  # others have come meanwhile, or the end
        loop = asyncio.get_running_loop()
        waiting = _Waiting(call, program, loop.create_future(), loop.time())
        self._turns.put(call.tenant, waiting)
        self._dispatch()
        return await waiting.done

    def _check_room(self, tenant: str) -> None:
        if self._closed:
            raise _stopping()
        if len(self._turns) >= WAITING_MAX or self._turns.waiting(tenant) >= TENANT_WAITING_MAX:
            raise NoCapacity("too many calls wait for a sandbox", hint="repeat it later", retry_after_s=1)

    def start(self) -> None:
        """Start one worker before anybody needs it."""
        self._spawn()

    async def close(self) -> None:
        """End all workers; whoever waits gets Unavailable."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._turns.clear():
            _fail(waiting, _stopping())
        workers = list(self._workers)
        for worker in workers:
            worker.task.cancel()
        await asyncio.gather(*(worker.task for worker in workers), return_exceptions=True)
        for worker in workers:
            worker.process.kill()  # whose task had not begun
        for artefacts in self._artefacts.values():
            artefacts.close()

    # Programs

    async def _prepared(self, program: GuestProgram) -> _Program:
        task = self._preparing.get(program.key)
        if task is None:
            task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._prepare, program))
            self._preparing[program.key] = task
            task.add_done_callback(lambda _: self._preparing.pop(program.key, None))
        made = await asyncio.shield(task)
        self._programs[program.key] = made
        if len(self._programs) > PROGRAMS_KEPT:
            self._programs.popitem(last=False)
        return made

    def _prepare(self, program: GuestProgram) -> _Program:
        """Compile a program if that has to be; in a thread."""
        deterministic = program.profile == "deterministic"
        profile = Profile.METERED if deterministic or program.fuel is not None else Profile.FAST
        runtime = [version(), SANDBOX_VERSION]
        digest, argv = program.digest, ["module", *program.args]
        source = program.module
        folders: tuple[Folder, ...] = ()
        if program.language is not None:
            found = interpreters.ensure(program.language, self._cache_dir)
            digest, argv = found.digest, [*found.running(program.script), *program.args]
            source = found.path.read_bytes
            runtime.append(found.version)
        files = dict(program.files())
        if program.language is not None:
            name = GUEST[program.language]
            files.setdefault(name, resources.files(f"{__package__}.guest").joinpath(name).read_bytes())
        if files:
            folders = (Folder(str(self._laid_out(files)), "/in"),)
        artefacts = self._artefacts.get(profile.value)
        if artefacts is None:
            artefacts = Artefacts(self._cache_dir, profile.value, tag(profile))
            artefacts = self._artefacts.setdefault(profile.value, artefacts)
        os.close(artefacts.get(digest, source))
        made: dict[str, Any] = {"entry": program.entry, "argv": argv, "env": dict(program.env)}
        if deterministic:
            runtime.append("deterministic")
            made |= {"deterministic": True, "seed": calls.seed(digest, argv, dict(program.env), program.key).hex()}
        template = Template(
            artefact=artefacts.name(digest),
            profile=profile.value,
            call=made,
            bounds=Bounds(memory_mib=program.memory_mib, fuel=program.fuel, output=program.output_max),
            granted=program.granted,
            folders=folders,
        )
        return _Program(template, artefacts, digest, source, " ".join(runtime))

    def _laid_out(self, files: Any) -> Path:
        """A folder with these files, which never changes."""
        hashed = hashlib.sha256()
        for name, data in sorted(files.items()):
            hashed.update(f"{len(name)} {len(data)} {name}".encode() + data)
        folder = self._files / hashed.hexdigest()
        if not folder.is_dir():
            fresh = self._files / f".new-{os.getpid()}-{time.monotonic_ns()}"
            fresh.mkdir(mode=0o700)
            try:
                layout.write(fresh, files.items())
                fresh.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another one was quicker
                    raise
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return folder

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
            worker = _Worker(self)
        except OSError as error:
            for waiting in () if self._workers else self._turns.clear():
                _fail(waiting, Unavailable(f"no worker can be started: {error.strerror}", hint="repeat the call"))
            return
        self._workers.add(worker)

    def take(self, worker: _Worker) -> list[_Waiting]:
        """The calls that a worker runs next, together; none if none waits for it."""
        batch: list[_Waiting] = []
        while not batch and (tenant := self._next_for(worker)) is not None:
            batch = self._batch_of(tenant)
            self._turns.served(tenant)
            worker.tenant = tenant
        return batch

    def _batch_of(self, tenant: str) -> list[_Waiting]:
        batch: list[_Waiting] = []
        now = asyncio.get_running_loop().time()
        while len(batch) < BATCH and (head := self._turns.head(tenant)) is not None:
            alone = head.call.service is not None or head.program.pace_s > SHORT_S
            if batch and (alone or head.program is not batch[0].program):
                break
            self._turns.pop(tenant)
            if now - head.since > WAITING_S:
                _fail(head, NoCapacity("the call has waited too long for a sandbox", hint="repeat it later"))
            if not head.done.done():  # else who waited has gone
                batch.append(head)
                if alone:
                    break
        return batch

    def _next_for(self, worker: _Worker) -> str | None:
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

    def again(self, waiting: Sequence[_Waiting]) -> None:
        """Calls that have not begun go to another worker, once: one that kills workers is not tried for ever."""
        for each in reversed(waiting):
            if each.tried:
                _fail(each, Unavailable("the sandbox ended before the call began", hint="repeat the call"))
            else:
                each.tried = True
                self._turns.put_back(each.call.tenant, each)

    def idle(self, worker: _Worker) -> None:
        """A worker has nothing to do."""
        worker.work.clear()
        self._idle.append(worker)
        self._dispatch()

    def gone(self, worker: _Worker) -> None:
        """A worker has ended."""
        self._workers.discard(worker)
        with suppress(ValueError):
            self._idle.remove(worker)
        if not self._closed:
            if not self._workers:
                self._spawn()  # the next call should not wait for one to start
            self._dispatch()


class _Worker:
    """A worker process on the loop, and the task that feeds it."""

    def __init__(self, pool: Pool) -> None:
        self.tenant: str | None = None
        self.work = asyncio.Event()
        self.process = WorkerProcess()
        self._pool = pool
        self._socket = self.process.detach()
        self._inbox = frames.Inbox()
        self._prepared: OrderedDict[_Program, int] = OrderedDict()
        self._calls = 0
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
                batch = self._pool.take(self)
                if not batch and self._goes_on():
                    self._pool.idle(self)
                    await self.work.wait()
                    continue
                self._calls += len(batch)
                if not batch or not await self._run(batch):
                    break
        finally:
            self.process.kill()
            self._pool.gone(self)

    async def _run(self, batch: list[_Waiting]) -> bool:
        """Run calls; False if the worker cannot go on."""
        left = list(batch)
        running = False
        try:
            numbers = [await self._number(each.program) for each in batch]
            invocations = [
                Invocation(at, number, max(0, round(each.call.timeout_s * 1000)), each.call.data)
                for at, (number, each) in enumerate(zip(numbers, batch, strict=True))
            ]
            await self._send(frames.calls(invocations))
            running = True
            until = time.monotonic() + left[0].call.timeout_s + GRACE_S
            while left:
                kind, body = await self._frame(until)
                if kind == frames.DONE:
                    for answered in self.process.answers(body):
                        _answer(left.pop(0), answered)
                    until = time.monotonic() + (left[0].call.timeout_s if left else 0.0) + GRACE_S
                elif kind == frames.ASK:
                    await self._asked(left[0], body)
                elif kind == frames.OUTPUT:
                    left[0].say(body[1:].replace(b"\0", b": ", 1) + b"\n")
        except asyncio.CancelledError:
            for each in left:
                _fail(each, _stopping())
            raise
        except TimeoutError:
            self._end(left, running, None)
            return False
        except (WorkerDied, LookupError, OSError) as error:
            self._end(left, running, str(error))
            return False
        except Exception as error:
            log.exception("a worker is given up")
            self._end(left, running, f"{type(error).__name__}: {error}")
            return False
        return True

    def _end(self, left: Sequence[_Waiting], running: bool, why: str | None) -> None:
        """The first of these was running (None: for too long); those behind it have not begun, and are put back."""
        begun, rest = (left[:1], left[1:]) if running else ((), left)
        for waiting in begun:
            category = Category.TIMEOUT if why is None else Category.PLATFORM
            wall_us = round((asyncio.get_running_loop().time() - waiting.since) * 1e6)
            detail = why or "its time was over"
            told = GuestResult(category.value, detail=detail, wall_us=wall_us, runtime=waiting.program.runtime)
            _settle(waiting, told)
        self._pool.again(rest)

    async def _number(self, program: _Program) -> int:
        """The number of a program in this worker, told and loaded if it has to be."""
        number = self._prepared.get(program)
        if number is not None:
            self._prepared.move_to_end(program)
            return number
        full = len(self._prepared) >= TEMPLATES
        number = self._prepared.popitem(last=False)[1] if full else len(self._prepared)
        told = frames.told(frames.PREPARE, program.template.as_json(number))
        answer = await self._asking(told)
        if answer.get("missing"):
            fd = await asyncio.to_thread(program.artefacts.get, program.digest, program.source)
            try:
                head = {"artefact": program.template.artefact, "profile": program.template.profile, "component": False}
                socket.send_fds(self._socket, [frames.told(frames.LOAD, head)], [fd])
            finally:
                os.close(fd)
            answer = frames.heard((await self._frame(time.monotonic() + READY_S))[1])
            answer = await self._asking(told) if answer.get("ready") else answer
        if not answer.get("ready"):
            raise LookupError(str(answer.get("error", "the worker cannot use the compiled module")))
        self._prepared[program] = number
        return number

    async def _asking(self, told: bytes) -> dict[str, Any]:
        await self._send(told)
        return frames.heard((await self._frame(time.monotonic() + READY_S))[1])

    async def _asked(self, waiting: _Waiting, body: bytes) -> None:
        """Answer a guest; what takes long does so in a thread."""
        name, args = frames.asked(body)
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
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _frame(self, until: float) -> tuple[int, bytes]:
        while True:
            try:
                found = self._inbox.take()
            except frames.BadFrame:
                self.process.kill()
                raise LookupError("the worker sent what is no frame") from None
            if found is not None:
                return found
            data = await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(self._socket, 1 << 18), max(0.001, until - time.monotonic())
            )
            if not data:
                raise await asyncio.to_thread(self.process.died)  # it may take a moment to end
            self._inbox.feed(data)


def _stopping() -> Unavailable:
    return Unavailable("the platform is stopping", hint="repeat the call")


def _answer(waiting: _Waiting, answered: Answered) -> None:
    seconds = answered.wall_us / 1e6
    waiting.program.pace_s += (min(seconds, 1.0) - waiting.program.pace_s) / 4
    report = answered.report
    if report is None:
        detail = answered.error or "the worker gave no reason"
        _settle(waiting, GuestResult(Category.PLATFORM.value, detail=detail, wall_us=answered.wall_us))
        return
    _settle(waiting, _result(report, answered.wall_us, waiting))


def _result(report: Report, wall_us: int, waiting: _Waiting) -> GuestResult:
    category = Category.OK
    if report.kind == "oom":
        category = Category.OOM
    elif report.kind == "invalid":
        category = Category.INVALID_PROGRAM
    elif report.trap is not None:
        named = {"interrupt": Category.TIMEOUT, "out_of_fuel": Category.FUEL}
        category = named.get(report.trap, Category.OOM if report.at_memory_limit else Category.TRAP)
    elif report.exit_code:
        category = Category.OOM if report.at_memory_limit else Category.EXIT
    command = waiting.call.program.entry == "command"
    return GuestResult(
        category=category.value,
        output=(report.stdout or report.output) if command else report.output,
        errors=b"".join([waiting.logs, report.stderr, b"" if command else report.stdout]),
        detail=report.detail,
        exit_code=report.exit_code,
        trap=report.trap,
        limits=tuple(report.limits),
        wall_us=wall_us,
        cpu_ms=report.cpu_ms,
        fuel=report.fuel,
        memory_bytes=report.memory_bytes,
        runtime=waiting.program.runtime,
    )


def _settle(waiting: _Waiting, result: GuestResult) -> None:
    if not waiting.done.done():
        waiting.done.set_result(result)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)
