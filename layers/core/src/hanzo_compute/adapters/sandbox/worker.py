"""The worker process: one thread hears its supervisor and runs guests, another looks after what runs for long.

To wake a thread takes as long as a short call. So the one that runs guests waits for them itself; the other looks
every few milliseconds, at the time and, while a guest runs for long, at what the supervisor says. When that is gone, so
is the worker.

``python -m hanzo_compute.adapters.sandbox.worker PARENT SOCKET MEMORY``. See :mod:`.frames` for what is said.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import resource
import select
import socket
import struct
import sys
import threading
import time
from array import array
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from hanzo_compute.adapters.sandbox import frames, guest, harden, image
from hanzo_compute.adapters.sandbox.area import Area
from hanzo_compute.adapters.sandbox.call import Bounds, Call, Folder, Report
from hanzo_compute.adapters.sandbox.components import Component, run_component
from hanzo_compute.adapters.sandbox.engine import Engine
from hanzo_compute.adapters.sandbox.frames import Invocation, Result
from hanzo_compute.adapters.sandbox.hostcalls import TIMED_OUT, HostCalls
from hanzo_compute.adapters.sandbox.image import Image, Start
from hanzo_compute.adapters.sandbox.running import Loaded
from hanzo_compute.adapters.sandbox.sandbox import Sandbox
from hanzo_compute.adapters.sandbox.settings import Profile

GUEST_STACK: Final = 8 << 20
"""Stack of the thread that runs guests, bytes: over 4 MiB, so that the guest's own limit is reached first."""
MODULES_KEPT: Final = 32
IMAGES_KEPT: Final = 16
"""Images of started interpreters, of 4 MiB each."""
PLAIN_STARTS: Final = 2
"""Calls of a program before it gets an image, which costs some starts: one that is seldom called is not worth it."""
NOTHING_IN: Final = str(Path(guest.__file__).parent)
"""A folder of ours: an interpreter that starts has folders, and looks into none."""
TICK_S: Final = 0.005
"""A running guest's deadline is looked at this often."""
FLUSH_TICKS: Final = 20
"""Output that waits is handed on every so many ticks."""
STREAM_TICKS: Final = 4
"""The same, if somebody waits for each piece of it: of a live call."""
HAND_BACK_TICKS: Final = 2
REST_TICKS: Final = 40
"""After so many without a call, nobody looks until the next."""
FITS: Final = 64 << 10
"""What an empty socket surely takes, bytes."""
TOGETHER_S: Final = 0.005
"""Results of a batch that come sooner are sent together."""

_LENGTH: Final = struct.Struct("<I")
_DESCRIPTORS: Final = socket.CMSG_SPACE(4 * array("i").itemsize)
"""Room for those that ride along."""


@dataclass(eq=False)
class _Template:
    """What calls have in common."""

    loaded: Loaded | Component
    engine: Engine
    call: Call
    """Made once: what is a call's own is put into it each time."""
    seed: bytes
    """Of what runs (deterministic); what it reads goes into a call's own seed, if it does not come from a file."""
    granted: frozenset[str]
    bounds: Bounds
    folders: list[Folder]
    files: tuple[str, str] | None
    live: bool
    report: bool
    file_max: int
    start: Start | None = None
    started: Loaded | None = None
    """The interpreter, if it is started for this in each worker: see :mod:`.image`."""
    image: Image | None = None
    starts: int = 0
    """Calls since it had none."""


class Worker:
    """Serves one supervisor over a socket."""

    def __init__(self, sock: socket.socket, area: Area) -> None:
        self._socket = sock
        self._area = area
        self._lent = False
        """What the memory came with has no result yet."""
        self._inbox = frames.Inbox()
        self._fds: list[int] = []
        self._engines: dict[str, Engine] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._modules: OrderedDict[str, Loaded | Component] = OrderedDict()
        self._templates: dict[int, _Template] = {}
        self._imaged: OrderedDict[_Template, None] = OrderedDict()
        self._batches: deque[list[Invocation]] = deque()
        self._answers: deque[tuple[int, bytes]] = deque()
        self._ear = threading.Lock()
        """Whoever holds it reads from the socket."""
        self._poller = _polling(sock)
        self._resting = False
        self._stirred = threading.Event()
        self._sending = threading.Lock()
        self._ended: list[Result] = []
        self._handing = threading.Lock()
        self._accepted = 0
        self._finished = 0
        self._stopped = 0
        """How many had been accepted when the supervisor last asked for an end: all of those."""
        self._counting = threading.Lock()
        """Held while a call is stopped: it does not become another one meanwhile."""
        self._running: tuple[Engine, Sandbox, int] | None = None
        """What runs now, and after how many ticks its output is handed on."""
        self._memory = 0
        self._late = 0

    def serve(self) -> NoReturn:
        """Answer until the supervisor closes its end."""
        threading.stack_size(GUEST_STACK)
        threading.Thread(target=self._guests, name="guest", daemon=True).start()
        poller, ended = _polling(self._socket), -1
        ticks = idle = 0
        while True:
            before, ended = ended, self._finished
            if self._accepted == ended:
                ticks, idle = 0, idle + 1
                if idle > REST_TICKS:
                    self._rest()
                    idle = 0
                time.sleep(TICK_S)
            elif ended != before:
                time.sleep(TICK_S)
            elif poller.poll(TICK_S * 1000) and self._ear.acquire(blocking=False):
                # What runs has run for a tick at least: until it ends, nobody else hears the supervisor.
                try:
                    self._hear(socket.MSG_DONTWAIT)
                finally:
                    self._ear.release()
            running = self._running
            if running is not None:
                ticks += 1
                self._stop()
                running[0].check()
                if ticks % HAND_BACK_TICKS == 0 and self._fits():
                    self._hand_back()  # what has ended does not wait for what runs
                if ticks % running[2] == 0:
                    running[1].flush()

    def _rest(self) -> None:
        """Until the next call."""
        self._resting = True
        if self._accepted == self._finished:  # seen after that was said: else who accepts a call stirs this thread
            self._stirred.wait()
        self._resting = False
        self._stirred.clear()

    # The supervisor's frames

    def _hear(self, flags: int = 0) -> None:
        """Read once, and do what is said. The ear is held."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(frames.READ, _DESCRIPTORS, flags)
        except BlockingIOError:
            return
        if not data:
            # Finalising wasmtime at interpreter exit has no use here, and has been seen to abort.
            harden.leave(0)
        for _, _, descriptors in ancillary:
            self._fds += array("i", descriptors)
        self._inbox.feed(data)
        while (found := self._inbox.take()) is not None:
            self._heard(*found)

    def _accept(self, batch: list[Invocation]) -> None:
        self._accepted += len(batch)
        self._batches.append(batch)
        if self._resting:
            self._stirred.set()

    def _heard(self, kind: int, body: bytes) -> None:
        if kind == frames.CALLS:
            self._accept(list(frames.called(body)))
        elif kind == frames.LENT:
            call, size = frames.borrowed(body)
            self._lent = True  # nothing runs, so that the next result is this one's
            self._accept([call._replace(data=self._area.take(size)) if size else call])
        elif kind == frames.STOP:
            self._stopped = self._accepted
            self._stop()
        elif kind == frames.ANSWER:
            self._answers.append(frames.answered(body))
        else:
            try:
                answer = self._load(body) if kind == frames.LOAD else self._prepare(body)
            except Exception as error:  # the supervisor decides; the next request may fare better
                answer = {"error": f"{type(error).__name__}: {error}"}
            self._send(frames.told(frames.READY, answer))

    def _stop(self) -> None:
        """End what runs, if that was asked for: again and again, since a call is deaf until it has begun."""
        with self._counting:
            running = self._running
            if running is not None and self._finished < self._stopped:
                running[1].stop()

    def _load(self, body: bytes) -> dict[str, Any]:
        wanted = frames.heard(body)
        fd = self._fds.pop(0)
        try:
            engine = self._engine(wanted["profile"])
            path = f"/proc/self/fd/{fd}"
            made: Loaded | Component | None
            if wanted["component"]:
                component = engine.load_component(path)
                made = None if component is None else Component(component)
            else:
                module = engine.load(path)
                made = None if module is None else Loaded.of(module)
        finally:
            os.close(fd)
        if made is None:
            return {"unusable": True}
        self._modules[wanted["artefact"]] = made
        if len(self._modules) > MODULES_KEPT:
            self._modules.popitem(last=False)
        return {"ready": True}

    def _prepare(self, body: bytes) -> dict[str, Any]:
        wanted = frames.heard(body)
        loaded = self._modules.get(wanted["artefact"])
        if loaded is None:
            return {"missing": [wanted["artefact"], (wanted["start"] or {}).get("artefact")]}
        self._modules.move_to_end(wanted["artefact"])
        start = None if wanted["start"] is None else Start(**wanted["start"])
        started: Loaded | None = None
        if start is not None:
            found = self._modules.get(start.artefact)
            if not isinstance(found, Loaded):
                return {"missing": [start.artefact]}
            self._modules.move_to_end(start.artefact)
            started = found
        bounds, folders = Bounds(**wanted["bounds"]), [Folder(**each) for each in wanted["folders"]]
        seed = bytes.fromhex(wanted["call"].pop("seed", ""))
        call = Call(**wanted["call"], folders=folders, bounds=bounds, seed=seed)
        self._templates[wanted["id"]] = _Template(
            loaded=loaded,
            engine=self._engine(wanted["profile"]),
            call=call,
            seed=seed,
            granted=frozenset(wanted["granted"]),
            bounds=bounds,
            folders=folders,
            files=tuple(wanted["files"]) if wanted["files"] else None,
            live=wanted["live"],
            report=wanted["report"],
            file_max=wanted["bounds"]["scratch"],
            start=start,
            started=started,
        )
        return {"ready": True}

    def _engine(self, profile: str) -> Engine:
        if profile not in self._engines:
            self._engines[profile] = Engine(Profile(profile))
        return self._engines[profile]

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        with self._sending:
            while view:
                view = view[os.write(self._socket.fileno(), view) :]

    # Guests

    def _guests(self) -> None:
        try:
            while True:
                with self._ear:
                    while not self._batches:
                        self._hear()
                batch = self._batches.popleft()
                sent = time.monotonic()
                for each in batch:
                    result = self._guest(each)
                    with self._handing:
                        self._ended.append(result)
                    with self._counting:
                        self._finished += 1
                    if time.monotonic() - sent > TOGETHER_S:
                        self._hand_back()
                        sent = time.monotonic()
                self._hand_back()
        except BaseException:
            # Nobody could be told anything any more: the supervisor hears it by the end of this process.
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(70)

    def _fits(self) -> bool:
        """Whether what has ended can be sent without waiting: the thread that asks must go on looking."""
        if not self._ended or sum(len(each.data) + 32 for each in self._ended) > FITS:
            return False
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLOUT)
        return bool(poller.poll(0))

    def _hand_back(self) -> None:
        with self._handing:
            if self._ended:
                lent, self._lent = self._lent, False
                inside = lent and self._area.put(self._ended[0].data)
                self._send(frames.given_back(self._ended[0]) if inside else frames.done(self._ended))
                self._ended = []

    def _guest(self, invocation: Invocation) -> Result:
        template = self._templates.get(invocation.template)
        if template is None:
            return _told(invocation.number, {"error": f"no template {invocation.template}"}, 0)
        began = time.perf_counter_ns()
        try:
            report = self._run(template, invocation)
        except Exception as error:
            return _told(invocation.number, {"error": f"{type(error).__name__}: {error}"}, began)
        plain = not template.report and report.kind == "exit" and report.exit_code == 0
        if plain and not report.limits and not report.stderr:
            wall_us = (time.perf_counter_ns() - began) // 1000
            fuel = frames.NO_FUEL if report.fuel is None else report.fuel
            return Result(invocation.number, frames.EXITED, fuel, wall_us, report.output or report.stdout)
        return _told(invocation.number, {"report": asdict(report)}, began, report)

    def _run(self, template: _Template, invocation: Invocation) -> Report:
        name = template.engine.profile.value
        sandbox = self._sandboxes.get(name)
        if sandbox is None:
            sandbox = self._sandboxes[name] = Sandbox(template.engine)
        bounds = template.bounds
        if bounds.memory_mib > self._memory:
            # Never lowered: a slot of the pool stays as large as its largest guest was.
            harden.limit_memory(bounds.memory_mib << 20)
            self._memory = bounds.memory_mib
        deadline = None
        if invocation.timeout_ms >= 0:
            deadline = time.monotonic() + invocation.timeout_ms / 1000
        call = template.call
        call.stdin, call.deadline = invocation.data, deadline
        if call.deterministic and call.stdin_path is None:
            call.seed = hashlib.sha256(template.seed + invocation.data).digest()
        if not isinstance(template.loaded, Component) and template.loaded.asks:
            call.host = HostCalls(template.granted, self._service(deadline), self._log)
        opened: list[int] = []
        before = None
        if template.folders or template.files:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            # A sparse file costs no bytes that are written.
            most = max(template.file_max, bounds.output) + 1
            if before[1] != resource.RLIM_INFINITY:
                most = min(most, before[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            if template.files is not None:
                for path in template.files:
                    opened.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))  # noqa: PERF401 — all are closed
                call.sink = lambda stream, data: _write_all(opened[stream - 1], data)
            elif template.live:
                call.sink = lambda stream, data: self._send(frames.frame(frames.OUTPUT, bytes([stream]) + data))
            self._running = (template.engine, sandbox, STREAM_TICKS if template.live else FLUSH_TICKS)
            if isinstance(template.loaded, Component):
                return run_component(template.engine, template.loaded, call)
            if template.started is None:
                return sandbox.run(template.loaded, call)
            return self._go_on(template, template.started, sandbox)
        finally:
            self._running = None
            for fd in opened:
                os.close(fd)
            if before is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def _go_on(self, template: _Template, interpreter: Loaded, sandbox: Sandbox) -> Report:
        """Run the call from the template's own image, which one of the first calls makes; or from the start."""
        call, before = template.call, None
        assert isinstance(template.loaded, Loaded)
        if template.image is None and template.starts < PLAIN_STARTS:
            template.starts += 1
        elif template.image is None:
            template.starts = 0
            before = self._start(template, interpreter, sandbox)
            if before.trap == "interrupt":
                return before
        else:
            self._imaged.move_to_end(template)
        call.image = template.image
        report = sandbox.run(interpreter if call.image is None else template.loaded, call)
        if before is not None:
            report.wall_ms, report.cpu_ms = report.wall_ms + before.wall_ms, report.cpu_ms + before.cpu_ms
        return report

    def _start(self, template: _Template, interpreter: Loaded, sandbox: Sandbox) -> Report:
        """Start the interpreter as for a snapshot, and make an image of its memory if it is as one expects."""
        assert template.start is not None
        # None of the call's: what it cannot see when a snapshot is taken it must not see here.
        folders = [Folder(NOTHING_IN, f"/.{number}") for number in range(image.FOLDERS)]
        bounds, argv = Bounds(memory_mib=template.bounds.memory_mib), list(template.start.argv)
        call = Call(argv=argv, folders=folders, bounds=bounds, deadline=template.call.deadline, keeps=True)
        report = sandbox.run(interpreter, call)
        assert isinstance(template.loaded, Loaded)
        good = report.exit_code == image.TAKEN and len(call.kept) == template.loaded.memory_least
        if good and image.again(call.kept, template.start.flag):
            template.image = Image(call.kept)
            self._imaged[template] = None
            if len(self._imaged) > IMAGES_KEPT:
                self._imaged.popitem(last=False)[0].image = None
        return report

    def _service(self, deadline: float | None) -> _Asking:
        return _Asking(self, deadline)

    def _log(self, level: str, text: str) -> None:
        self._hand_back()  # so that what is logged is of the first that has not ended
        self._send(frames.frame(frames.OUTPUT, b"\0" + f"{level}\0{text}".encode()))

    def ask(self, name: str, args: Sequence[bytes | int], deadline: float | None) -> tuple[int, bytes]:
        """Ask the supervisor for a host function, and wait for its answer until the deadline."""
        running = self._running
        if running is not None and running[2] == STREAM_TICKS:
            # Comes before what is asked; and the other thread, which must hear the answer, finds nothing to send.
            running[1].flush(own=True)
        while self._late:  # answers that came too late for their questions
            if self._answer(deadline) is None:
                return TIMED_OUT, b""
            self._late -= 1
        self._send(frames.ask(name, args))  # without the ear: the supervisor may be sending, too
        answer = self._answer(deadline)
        if answer is None:
            self._late += 1
            return TIMED_OUT, b""
        return answer

    def _answer(self, deadline: float | None) -> tuple[int, bytes] | None:
        """The next answer; None if it does not come in time."""
        with self._ear:
            while not self._answers:
                left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
                if not self._poller.poll(left):
                    return None
                self._hear(socket.MSG_DONTWAIT)
        return self._answers.popleft()


@dataclass(frozen=True)
class _Asking:
    worker: Worker
    deadline: float | None

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        return self.worker.ask(name, args, self.deadline)


def _told(number: int, body: dict[str, Any], began: int, report: Report | None = None) -> Result:
    blobs = [b"", b"", b""]
    if report is not None:
        blobs = [report.output, report.stdout, report.stderr]
        for name, blob in zip(("output", "stdout", "stderr"), blobs, strict=True):
            body["report"][name] = len(blob)
    text = json.dumps(body).encode()
    wall_us = min((time.perf_counter_ns() - began) // 1000, 2**32 - 1) if began else 0
    return Result(number, frames.TOLD, frames.NO_FUEL, wall_us, b"".join([_LENGTH.pack(len(text)), text, *blobs]))


def _polling(sock: socket.socket) -> select.poll:
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN)
    return poller


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def main(parent: int, fd: int, memory: int) -> None:
    """Run as a worker of the process ``parent`` until it closes the socket ``fd``."""
    harden.harden(parent)
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)
    area = Area(memory)
    os.close(memory)
    worker = Worker(sock, area)
    gc.freeze()  # what was imported is here to stay
    harden.limit_memory(256 << 20)
    harden.refuse_system_calls()
    worker.serve()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
