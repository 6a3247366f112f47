"""A worker process as its supervisor sees it."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.sandbox import frames, hostcalls
from hanzo_compute.adapters.sandbox.area import Lender
from hanzo_compute.adapters.sandbox.call import Bounds, Folder, Report
from hanzo_compute.adapters.sandbox.frames import BadFrame, Invocation, Result
from hanzo_compute.adapters.sandbox.hostcalls import UNAVAILABLE, Service
from hanzo_compute.adapters.sandbox.image import Start

PASSED_ON: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "HZC_WASMTIME_PUBLIC")
"""The only variables of the agent's environment that a worker gets: where to find its own code, and which."""
LAST_WORDS: Final = 2000
GRACE_S: Final = 0.25
"""From the moment a guest should have ended to the kill of its process."""
READY_S: Final = 30.0
"""Longest time to answer at all, a start included."""
LATE_S: Final = 2.0
"""Longest time to hear a worker out whose time was seen to be over: a result that came just in time is read to its
end, a flood is not."""
RESULTS: Final = (frames.DONE, frames.BACK)
"""Kinds of frames with results."""
TEMPLATES: Final = 64
"""Templates that a worker keeps."""

_LENGTH: Final = struct.Struct("<I")


class WorkerDied(Exception):
    """The worker ended by itself, or spoke nonsense and was killed. ``signal`` is what killed it, ``words`` the end
    of its stderr."""

    def __init__(self, code: int, words: str) -> None:
        self.signal = -code if code < 0 else None
        self.words = words
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        super().__init__(f"the worker process ended {how}")


class Overdue(Exception):
    """The worker did not end a guest in time, and was killed."""


@dataclass(frozen=True)
class Template:
    """What calls have in common: the artefact that is run, how, and within which bounds.

    ``artefact`` names it, with the profile; ``call`` holds fields of
    :class:`~hanzo_compute.adapters.sandbox.call.Call`.
    """

    artefact: str
    profile: str
    call: dict[str, Any]
    bounds: Bounds = field(default_factory=Bounds)
    granted: frozenset[str] = frozenset()
    folders: tuple[Folder, ...] = ()
    files: tuple[str, str] | None = None
    """Where stdout and stderr are appended to as they come."""
    live: bool = False
    """Output comes as it is written, to ``output``."""
    report: bool = False
    """Every result is a full report."""
    start: Start | None = None
    """Of a program that goes on from a snapshot with a start of its own, in each worker."""

    def as_json(self, number: int) -> dict[str, Any]:
        """What the worker is told."""
        return {
            "id": number,
            "artefact": self.artefact,
            "profile": self.profile,
            "call": self.call,
            "bounds": asdict(self.bounds),
            "granted": sorted(self.granted),
            "folders": [asdict(folder) for folder in self.folders],
            "files": self.files,
            "live": self.live,
            "report": self.report,
            "start": None if self.start is None else asdict(self.start),
        }


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call came to: the report, or what kept the worker from running it."""

    report: Report | None = None
    error: str | None = None
    wall_us: int = 0


class WorkerProcess:
    """One spawned worker. Belongs to one thread, whose end ends the worker too (on Linux).

    ``output`` hears what a live call writes, by stream (1, 2), and log lines (0, ``level NUL text``). ``stdin``: a
    descriptor that is the worker's standard input, which a call may read.
    """

    def __init__(
        self,
        service: Service | None = None,
        output: Callable[[int, bytes], None] | None = None,
        stdin: int | None = None,
    ) -> None:
        self.jobs = 0
        self.service = service
        self.output = output
        # A file, not a pipe: nobody has to read it for the worker to go on.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by kill)
        self._socket, theirs = socket.socketpair()
        self._memory = Lender()
        self._poller = self._polling()
        command = [sys.executable, "-P", "-m", "hanzo_compute.adapters.sandbox.worker"]
        passed = [theirs.fileno(), self._memory.fd]
        try:
            self._process = subprocess.Popen(
                [*command, str(os.getpid()), *map(str, passed)],
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=passed,
                env=environment(),
                start_new_session=True,
            )
        except OSError:
            self._socket.close()
            self._stderr.close()
            self._memory.close()
            raise
        finally:
            theirs.close()
            self._memory.given()
        self._inbox = frames.Inbox()
        self._prepared: dict[int, Template] = {}
        self._next = 0
        self._late: float | None = None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def dead(self) -> bool:
        """True once it has ended, by itself or by a kill."""
        return self._process.poll() is not None

    def prepare(self, template: Template, artefact: Callable[[], int]) -> int:
        """The number of a template here. ``artefact`` opens what it runs, if the worker has not loaded it yet.

        Raises:
            WorkerDied, Overdue: it must be replaced.
            LookupError: it cannot use the artefact.
        """
        for number, known in self._prepared.items():
            if known is template:
                return number
        number = self._next = (self._next + 1) % TEMPLATES
        self._prepared.pop(number, None)
        told = frames.told(frames.PREPARE, template.as_json(number))
        self._send(told)
        answer = self._ready()
        if answer.get("missing"):
            self._load(template, artefact())
            self._send(told)
            answer = self._ready()
        if not answer.get("ready"):
            raise LookupError(str(answer.get("error", "the worker does not keep the module")))
        self._prepared[number] = template
        return number

    def call(self, number: int, data: bytes, timeout_s: float | None, wake: int | None = None) -> Answered | None:
        """Run one call to its end; None when ``wake`` became readable before that (and :meth:`wait` goes on).

        Raises:
            WorkerDied, Overdue: it must be replaced.
        """
        timeout_ms = -1 if timeout_s is None else min(max(0, round(timeout_s * 1000)), 2**31 - 1)
        within_s = READY_S if timeout_s is None else min(READY_S, timeout_s + GRACE_S)
        self.send([Invocation(0, number, timeout_ms, data)], within_s)
        return self.wait(None if timeout_s is None else time.monotonic() + timeout_s + GRACE_S, wake)

    def wait(self, until: float | None, wake: int | None = None) -> Answered | None:
        """Wait for the one call that runs. Raises WorkerDied, Overdue."""
        found = self.collect(1, until, wake)
        return found[0] if found else None

    def send(self, batch: Sequence[Invocation], within_s: float = READY_S) -> None:
        """Send calls. Raises WorkerDied; Overdue, if it does not take them in time."""
        self._late = None
        self._send(self._memory.calls(batch), within_s)

    def collect(self, count: int, until: float | None, wake: int | None = None) -> list[Answered]:
        """The results of ``count`` calls in the order in which they were sent; fewer if ``wake`` became readable."""
        found: list[Answered] = []
        while len(found) < count:
            message = self._receive(until, wake)
            if message is None:
                break
            kind, body = message
            if kind in RESULTS:
                found += self.answers(kind, body)
            elif kind == frames.OUTPUT:
                stream, data = self.output_of(body)
                if self.output is not None:
                    self.output(stream, data)
            elif kind == frames.ASK:
                name, args = self.question_of(body)
                status, result = UNAVAILABLE, b""
                if self.service is not None:
                    status, result = self._asked(self.service, name, args, until, wake)
                left = READY_S if until is None else until - time.monotonic()
                self._send(frames.answer(status, result), min(READY_S, max(GRACE_S, left)))
        return found

    def _asked(
        self, service: Service, name: str, args: Sequence[bytes | int], until: float | None, wake: int | None
    ) -> tuple[int, bytes]:
        """What a service answers; ``UNAVAILABLE`` if ``wake`` became readable before that. Raises Overdue.

        It may take as long as another host does: so it is asked by a thread, whose answer nobody hears any more once
        the guest's time is over, or its end is wanted.
        """
        if wake is None:
            return service.ask(name, args)
        found: list[tuple[int, bytes]] = []
        done, answered = os.pipe()

        def ask() -> None:
            try:
                found.append(service.ask(name, args))
            finally:
                os.close(answered)

        poller = select.poll()
        try:
            threading.Thread(target=ask, name=f"host call {name}", daemon=True).start()
            poller.register(done, select.POLLIN)
            poller.register(wake, select.POLLIN)
            left = None if until is None else max(0.0, until - time.monotonic())
            events = poller.poll(None if left is None else left * 1000)
        finally:
            os.close(done)
        if not events:
            self.kill()
            raise Overdue
        return found[0] if found else (UNAVAILABLE, b"")

    def stop(self) -> None:
        """Ask for the end of the call that runs. Raises WorkerDied, Overdue."""
        self._send(frames.frame(frames.STOP, b""))

    def cpu_ms(self) -> int | None:
        """CPU time that the process has used so far, where the system tells."""
        return cpu_ms(self.pid)

    def detach(self) -> socket.socket:
        """The socket, for a caller that reads and writes frames by itself, without blocking."""
        self._socket.setblocking(False)
        return self._socket

    def calls(self, batch: Sequence[Invocation]) -> bytes:
        """The frame that sends calls, for that caller."""
        return self._memory.calls(batch)

    def answers(self, kind: int, body: bytes) -> list[Answered]:
        """The results in a frame. Raises WorkerDied if it is none."""
        found = self._trusted(lambda told: self._memory.results(kind, told), body)
        return [self._answered(result) for result in found]

    def output_of(self, body: bytes) -> tuple[int, bytes]:
        """The stream and the bytes in a frame of output. Raises WorkerDied if it is none."""
        found: tuple[int, bytes] = self._trusted(_output, body)
        return found

    def question_of(self, body: bytes) -> tuple[str, list[bytes | int]]:
        """The host function in a frame that asks, and its arguments. Raises WorkerDied if no guest can ask that."""
        found: tuple[str, list[bytes | int]] = self._trusted(_question, body)
        return found

    def heard(self, inbox: frames.Inbox) -> tuple[int, bytes] | None:
        """The next frame, if it is all there. Raises WorkerDied if it is none of a worker's."""
        found: tuple[int, bytes] | None = self._trusted(_heard, inbox)
        return found

    def died(self) -> WorkerDied:
        """What to raise when the worker has closed its end, or cannot be trusted any more."""
        return self._died()

    def leave(self) -> tuple[int, bytes]:
        """Let an idle worker end by itself: its exit code, and all that it ever said on stderr."""
        self._socket.close()
        code = self._process.wait(READY_S)
        self._stderr.seek(0)
        words = self._stderr.read()
        self.kill()
        return code, words

    def kill(self) -> None:
        """End the process and whatever it may have started, at once; repeatable."""
        if self._process.poll() is None:
            # Not yet reaped, so the id is still its own.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait()
        self._socket.close()
        self._stderr.close()
        self._memory.close()

    def _load(self, template: Template, fd: int) -> None:
        component = template.call.get("entry") == "component"
        head = {"artefact": template.artefact, "profile": template.profile, "component": component}
        try:
            socket.send_fds(self._socket, [frames.told(frames.LOAD, head)], [fd])
        except OSError:
            raise self._died() from None
        finally:
            os.close(fd)
        answer = self._ready()
        if not answer.get("ready"):
            raise LookupError(str(answer.get("error", "the worker cannot use the compiled module")))

    def _ready(self) -> dict[str, Any]:
        until = time.monotonic() + READY_S
        self._late = None
        while True:
            message = self._receive(until, None)
            assert message is not None
            if message[0] == frames.READY:
                answer: dict[str, Any] = self._trusted(frames.heard, message[1])
                return answer

    def _trusted(self, read: Callable[[Any], Any], body: bytes | frames.Inbox) -> Any:
        """Read what came; a worker that sends nonsense is not a worker any more."""
        try:
            return read(body)
        except BadFrame:
            self._process.kill()
            raise self._died() from None

    def _answered(self, result: Result) -> Answered:
        if result.kind == frames.EXITED:
            fuel = None if result.fuel < 0 else result.fuel
            report = Report("exit", exit_code=0, output=result.data, fuel=fuel, wall_ms=result.wall_us // 1000)
            return Answered(report, wall_us=result.wall_us)
        body, report = self._trusted(_told, result.data)
        return Answered(report, None if report is not None else str(body.get("error", "")), result.wall_us)

    def _send(self, data: bytes, within_s: float = READY_S) -> None:
        """Raises WorkerDied; Overdue, if it does not take all of it in time (it may be stopped, or not want to)."""
        try:
            sent = self._begun(data)
            if sent < len(data):
                self._socket.settimeout(within_s)
                self._socket.sendall(memoryview(data)[sent:])
                self._socket.settimeout(None)
        except TimeoutError:
            self.kill()
            raise Overdue from None
        except OSError:
            raise self._died() from None

    def _begun(self, data: bytes) -> int:
        """How much of it the socket takes at once: almost always all."""
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _receive(self, until: float | None, wake: int | None) -> tuple[int, bytes] | None:
        """The next frame; None when ``wake`` is readable. Raises WorkerDied, Overdue."""
        while True:
            now = time.monotonic()
            left = None if until is None else max(0.0, until - now)
            if left == 0:
                self._late = self._late or now
                if now - self._late > LATE_S:
                    self.kill()
                    raise Overdue
            message = self.heard(self._inbox)
            if message is not None:
                return message
            # poll, not select: an agent may have more descriptors open than select can name.
            poller = self._poller if wake is None else self._polling()
            if wake is not None:
                poller.register(wake, select.POLLIN)
            events = poller.poll(None if left is None else left * 1000)
            if not events:
                self.kill()
                raise Overdue
            if any(fd == self._socket.fileno() for fd, _ in events):
                try:
                    data = self._socket.recv(frames.READ)
                except OSError:
                    data = b""
                if not data:
                    raise self._died()
                self._inbox.feed(data)
            else:
                return None

    def _polling(self) -> select.poll:
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        return poller

    def _died(self) -> WorkerDied:
        # It closed its end: it is about to be gone, if it is not hung on the way.
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(size - LAST_WORDS, 0))
        words = self._stderr.read().decode(errors="backslashreplace")
        self.kill()
        return WorkerDied(code, words)


_FROM_WORKERS: Final = frozenset({frames.READY, frames.OUTPUT, frames.ASK, *RESULTS})


def _heard(inbox: frames.Inbox) -> tuple[int, bytes] | None:
    """The next frame of a worker. Raises BadFrame."""
    message = inbox.take()
    if message is not None and message[0] not in _FROM_WORKERS:
        raise BadFrame(f"a frame of kind {message[0]}")
    return message


def _output(body: bytes) -> tuple[int, bytes]:
    """Whose output it is, and what. Raises BadFrame."""
    if not body or body[0] > 2 or (body[0] == 0 and b"\0" not in body[1:]):
        raise BadFrame("output of no stream")
    return body[0], body[1:]


def _question(body: bytes) -> tuple[str, list[bytes | int]]:
    """The host function that is asked for. Raises BadFrame."""
    name, args = frames.asked(body)
    if not hostcalls.fits(name, args):
        raise BadFrame("a question that no guest can ask")
    return name, args


def _told(data: bytes) -> tuple[dict[str, Any], Report | None]:
    """The JSON of a result, and the report in it. Raises BadFrame."""
    if len(data) < _LENGTH.size:
        raise BadFrame("a result is cut short")
    (size,) = _LENGTH.unpack_from(data)
    body = frames.heard(data[4 : 4 + size])
    told = body.get("report")
    if not isinstance(told, dict):
        return body, None
    at = 4 + size
    for name in ("output", "stdout", "stderr"):
        length = told.get(name)
        if not _count(length) or at + length > len(data):
            raise BadFrame("a report is cut short")
        told[name] = data[at : at + length]
        at += length
    if told.keys() != _REPORT.keys() or not all(fits(told[name]) for name, fits in _REPORT.items()):
        raise BadFrame("a report is not one")
    return body, Report(**told)


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _text(value: object) -> bool:
    return isinstance(value, str)


_REPORT: Final[dict[str, Callable[[Any], bool]]] = {
    "kind": lambda value: value in ("exit", "trap", "oom", "invalid"),
    "exit_code": lambda value: value is None or (_count(value) and value < 2**32),
    "trap": lambda value: value is None or _text(value),
    "detail": _text,
    "output": lambda value: isinstance(value, bytes),
    "stdout": lambda value: isinstance(value, bytes),
    "stderr": lambda value: isinstance(value, bytes),
    "wall_ms": _count,
    "cpu_ms": _count,
    "fuel": lambda value: value is None or _count(value),
    "memory_bytes": _count,
    "at_memory_limit": lambda value: isinstance(value, bool),
    "limits": lambda value: isinstance(value, list) and all(_text(each) for each in value),
    "counters": lambda value: isinstance(value, dict) and all(_count(each) for each in value.values()),
}
"""What the fields of a report may be."""


def cpu_ms(pid: int) -> int | None:
    """CPU time that a process has used so far, where the system tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")


def environment() -> dict[str, str]:
    """What a worker's environment is."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Address space is limited: 64 MiB of it for each thread's arena would be spent for nothing.
    made = {"MALLOC_ARENA_MAX": "2", "RAYON_NUM_THREADS": str(min(os.cpu_count() or 1, 4))}
    # A megabyte that is mapped anew each time costs the kernel more than copying it.
    made |= {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(16 << 20)}
    return {**passed, **made}
