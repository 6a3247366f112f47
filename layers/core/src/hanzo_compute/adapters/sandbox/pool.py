"""Workers for calls that somebody waits for: on an event loop, several calls at a time, each worker with one guest.

A call goes to a worker that is idle; to a new one if all have been busy for a moment; else it waits its turn. Calls
that are known to be short travel together. A worker that has to be killed costs the call that it ran, and no other.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
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
from hanzo_compute.adapters.sandbox.process import GRACE_S, TEMPLATES, Answered, Template, WorkerDied, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import SANDBOX_VERSION, Profile, tag, version
from hanzo_compute.errors import NoCapacity, Unavailable
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.package import InvalidPackage
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram, GuestResult

CALLS_PER_WORKER: Final = 20_000
"""A worker is replaced after so many calls, so that what leaks cannot add up."""
WAITING_MAX: Final = 2000
"""Calls that wait; beyond it they are refused."""
PATIENCE_S: Final = 0.005
"""A call waits this long for a busy worker before another is started."""
SHORT_S: Final = 0.001
"""Programs whose calls take less on average travel in batches."""
BATCH: Final = 32
READY_S: Final = 30.0
GUEST: Final = {"python": "hzc.py", "javascript": "hzc.js"}
"""The module by which a program of a language reaches the platform."""
PROGRAMS_KEPT: Final = 512


@dataclass(eq=False)
class _Program:
    """A program as workers know it."""

    template: Template
    artefact: tuple[Artefacts, str]
    runtime: str
    pace_s: float = 1.0


@dataclass(eq=False)
class _Waiting:
    """A call and who waits for it."""

    call: GuestCall
    program: _Program
    done: asyncio.Future[GuestResult]
    since: float
    logs: list[bytes] = field(default_factory=list)
    tried: bool = False


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
        self._pending: deque[_Waiting] = deque()
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call to its end."""
        if self._closed:
            raise Unavailable("the platform is stopping", hint="repeat the call")
        if len(self._pending) >= WAITING_MAX:
            raise NoCapacity("too many calls wait for a sandbox", hint="repeat it later", retry_after_s=1)
        try:
            program = self._programs.get(call.program.key) or await self._prepared(call.program)
        except (CannotCompile, InvalidPackage) as error:
            return GuestResult(Category.INVALID_PROGRAM.value, detail=str(error))
        except CompileFailed as error:
            raise Unavailable(f"the program could not be compiled: {error}", hint="repeat the call") from None
        loop = asyncio.get_running_loop()
        waiting = _Waiting(call, program, loop.create_future(), loop.time())
        self._pending.append(waiting)
        self._dispatch()
        return await waiting.done

    def start(self) -> None:
        """Start one worker before anybody needs it."""
        self._spawn()

    async def close(self) -> None:
        """End all workers; whoever waits gets Unavailable."""
        self._closed = True
        for waiting in self._pending:
            _fail(waiting, Unavailable("the platform is stopping", hint="repeat the call"))
        self._pending.clear()
        for worker in list(self._workers):
            worker.process.kill()
            worker.task.cancel()
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
            files[name] = resources.files("hanzo_compute.adapters.sandbox.guest").joinpath(name).read_bytes()
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
        return _Program(template, (artefacts, digest), " ".join(runtime))

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
                with suppress(OSError):  # another process was quicker
                    fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return folder

    # Workers

    def _dispatch(self) -> None:
        while self._pending and self._idle:
            worker = self._fitting(self._pending[0].call.tenant)
            if worker is None:
                break
            self._idle.remove(worker)
            worker.work.set()
        if self._pending and not self._idle and len(self._workers) < self._most and self._timer is None:
            delay = PATIENCE_S if self._workers else 0.0
            self._timer = asyncio.get_running_loop().call_later(delay, self._impatient)

    def _impatient(self) -> None:
        self._timer = None
        if self._closed or not self._pending:
            return
        if len(self._workers) < self._most:
            self._spawn()
        self._dispatch()

    def _fitting(self, tenant: str) -> _Worker | None:
        if not self._strict:
            return self._idle[-1]
        for worker in self._idle:
            if worker.tenant in (None, tenant):
                worker.tenant = tenant
                return worker
        if len(self._workers) >= self._most:
            self._idle[0].retire()
        return None

    def _spawn(self) -> None:
        try:
            worker = _Worker(self)
        except OSError as error:
            for waiting in self._pending if not self._workers else ():
                _fail(waiting, Unavailable(f"no worker can be started: {error.strerror}", hint="repeat the call"))
            if not self._workers:
                self._pending.clear()
            return
        self._workers.add(worker)

    def take(self, worker: _Worker) -> list[_Waiting]:
        """The calls that a worker runs next, together; none if none waits for it."""
        batch: list[_Waiting] = []
        while self._pending and len(batch) < BATCH:
            head = self._pending[0]
            if head.done.done():  # who waited has gone
                self._pending.popleft()
                continue
            if self._strict and worker.tenant not in (None, head.call.tenant):
                break
            alone = head.call.service is not None or head.program.pace_s > SHORT_S
            if batch and alone:
                break
            worker.tenant = head.call.tenant
            batch.append(self._pending.popleft())
            if alone:
                break
        return batch

    def again(self, waiting: Sequence[_Waiting]) -> None:
        """Calls that have not begun go to another worker, once: one that kills workers is not tried for ever."""
        for each in reversed(waiting):
            if each.tried:
                _fail(each, Unavailable("the sandbox ended before the call began", hint="repeat the call"))
            else:
                each.tried = True
                self._pending.appendleft(each)

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

    async def _serve(self) -> None:
        try:
            while not self._retired and self._calls < CALLS_PER_WORKER:
                batch = self._pool.take(self)
                if not batch:
                    self._pool.idle(self)
                    await self.work.wait()
                    continue
                self._calls += len(batch)
                if not await self._run(batch):
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
            until = time.monotonic() + sum(each.call.timeout_s for each in batch) + GRACE_S
            running = True
            await self._send(frames.calls(invocations))
            while left:
                kind, body = await self._frame(until)
                if kind == frames.DONE:
                    for answered in self.process.answers(body):
                        _answer(left.pop(0), answered)
                elif kind == frames.ASK:
                    await self._asked(left[0], body)
                elif kind == frames.OUTPUT and len(left) == 1:
                    left[0].logs.append(body[1:].replace(b"\0", b": ", 1) + b"\n")
        except TimeoutError:
            self._end(left, running, "its time was over")
            return False
        except (WorkerDied, LookupError, OSError) as error:
            self._end(left, running, str(error))
            return False
        return True

    def _end(self, left: Sequence[_Waiting], running: bool, why: str) -> None:
        """The first of these was running; those behind it have not begun, and are put back."""
        begun, rest = (left[:1], left[1:]) if running else ((), left)
        for waiting in begun:
            timed_out = why == "its time was over"
            category = Category.TIMEOUT if timed_out else Category.PLATFORM
            wall_us = round((asyncio.get_running_loop().time() - waiting.since) * 1e6)
            _settle(waiting, GuestResult(category.value, detail=why, wall_us=wall_us, runtime=waiting.program.runtime))
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
            artefacts, digest = program.artefact
            fd = await asyncio.to_thread(artefacts.get, digest, _lost)
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
        if service is None:
            status, result = -6, b""
        elif name == "http":
            status, result = await asyncio.to_thread(service.ask, name, args)
        else:
            status, result = service.ask(name, args)
        await self._send(frames.answer(status, result))

    async def _send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def _frame(self, until: float) -> tuple[int, bytes]:
        while True:
            try:
                found = self._inbox.take()
            except frames.BadFrame:
                raise self.process.died() from None
            if found is not None:
                return found
            data = await asyncio.wait_for(
                asyncio.get_running_loop().sock_recv(self._socket, 1 << 18), max(0.001, until - time.monotonic())
            )
            if not data:
                raise self.process.died()
            self._inbox.feed(data)


def _lost() -> bytes:
    raise CompileFailed("the compiled module is not in the cache any more")


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
        errors=b"".join([*waiting.logs, report.stderr, b"" if command else report.stdout]),
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
