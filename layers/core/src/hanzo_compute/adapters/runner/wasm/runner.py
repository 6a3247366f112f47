"""The Runner port for WASM: each slot is a thread with one worker process, and runs one attempt at a time."""

from __future__ import annotations

import fcntl
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from hanzo_compute.adapters.runner.wasm.attempt import AttemptDir, attempts_in, printable
from hanzo_compute.adapters.runner.wasm.logged import Logged
from hanzo_compute.adapters.runner.wasm.outcomes import (
    DETAIL_MAX,
    log_of,
    of_ending,
    of_error,
    platform_failure,
)
from hanzo_compute.adapters.runner.wasm.program import Program
from hanzo_compute.adapters.runner.wasm.supervise import Ending, Stop, supervise
from hanzo_compute.adapters.sandbox import artefacts, interpreters
from hanzo_compute.adapters.sandbox.artefacts import CannotCompile, CompileFailed, Stopped, artefacts_of
from hanzo_compute.adapters.sandbox.cache import private_dir
from hanzo_compute.adapters.sandbox.process import WorkerProcess
from hanzo_compute.adapters.sandbox.settings import Profile, version
from hanzo_compute.errors import Conflict, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.outcome import Category, Outcome
from hanzo_compute.model.package import InvalidPackage
from hanzo_compute.model.spec import program_blob
from hanzo_compute.model.wasm import InvalidModule
from hanzo_compute.ports import Clock, Handle, Lease, LogEntry, LoggingService, RunnerOutcome

JOBS_PER_WORKER: Final = 200
"""A worker is replaced after so many jobs, so that what leaks cannot add up."""
CLOSE_S: Final = 1.0
ROOM: Final = 32 << 20
"""Bytes that must be free on the disk before an attempt starts: its two output files, and some for others."""
ROOM_LEFT: Final = 1 << 20
"""Bytes that must be free after it, if what it wrote and how it ended are to be believed."""
DESCRIPTORS: Final = 24
"""Descriptors that must be free before an attempt starts."""
DISK_MATTERS: Final = frozenset({Category.OK, Category.EXIT, Category.TRAP})
RESTARTED: Final = "the agent restarted while it ran"


@dataclass(eq=False)
class _Attempt:
    files: AttemptDir
    lease: Lease | None
    service: LoggingService | None = None
    started: float = 0.0
    outcome: Outcome | None = None
    stop: Stop = field(default_factory=Stop)
    ended: threading.Event = field(default_factory=threading.Event)
    claimed: bool = False
    """Some thread saw to its end already: it left the line."""


class WasmRunner:
    """Runs WASI commands and Python source in up to ``slots`` worker processes at once; others wait in line.

    ``state_dir`` holds the attempts and belongs to one runner at a time; ``cache_dir`` holds interpreters and
    compiled modules and may be shared. Raises Unavailable when another runner holds ``state_dir``; before that
    ``patience`` is called and the folder is tried again, until that returns False.
    """

    runtimes = frozenset({"wasm"})

    def __init__(
        self,
        state_dir: Path,
        cache_dir: Path,
        slots: int,
        clock: Clock,
        patience: Callable[[], bool] | None = None,
    ) -> None:
        try:
            version()
        except ImportError:
            raise Unavailable(
                "the WASM runner needs the package wasmtime", hint="pip install 'hanzo-compute-core[wasm]'"
            ) from None
        self._cache_dir = private_dir(cache_dir.resolve())
        kinds = [*((profile, False) for profile in Profile), (Profile.FAST, True)]
        self._artefacts = {kind: artefacts_of(self._cache_dir, kind[0], snapshot=kind[1]) for kind in kinds}
        self._root = private_dir(private_dir(state_dir.resolve()) / "attempts")
        self._slots = slots
        self._clock = clock
        self._lock_fd = _own(state_dir / "runner.lock", patience)
        self._lock = threading.Lock()
        self._attempts: dict[Handle, _Attempt] = {}
        self._waiting: queue.SimpleQueue[_Attempt | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._load = 0
        self._closed = False

    def ready(self) -> bool:
        """False while the disk is too full for an attempt's output, or it could not open the files it needs."""
        return self._free() >= ROOM and self._descriptors()

    def prepare(self, stopped: Callable[[float], bool]) -> list[str]:
        """Compile what is missing of the interpreters, in the background; says which those were.

        ``stopped(s)`` waits that long and says whether it is enough.
        """
        return interpreters.prepare(self._cache_dir, self._artefacts, lambda s: stopped(s) or self._closed)

    def start(
        self, lease: Lease, *, module: bytes | None, stdin: bytes, service: LoggingService | None = None
    ) -> Handle:
        """Start an attempt, or put it in line for a free slot; one that is known already stays as it is."""
        handle = Handle(lease.job, lease.attempt)
        files = AttemptDir(self._root, handle)
        if module is None and program_blob(lease.spec["source"]) is not None:
            raise InvalidRequest(
                "the job's module or package was not handed over", hint="download it and pass it as `module`"
            )
        with self._lock:
            if self._closed:
                raise Unavailable("this runner was closed", hint="give the lease back")
            if handle in self._attempts:
                return handle
            if files.exists():
                self._attempts[handle] = self._recovered(files)
                return handle
            attempt = self._attempts[handle] = _Attempt(files, lease, service, started=time.monotonic())
        try:
            if module is not None and len(module) > bounds.BLOB_MAX:
                files.create(lease, None, b"")
                detail = f"the module has {len(module)} bytes, over the bound of {bounds.BLOB_MAX}"
                self._end_unrun(attempt, Outcome(category=Category.INVALID_PROGRAM, detail=detail))
            else:
                files.create(lease, module, stdin)
                self._enqueue(attempt)
        except InvalidPackage as error:
            with suppress(OSError):
                files.create(lease, None, b"")
            detail = f"the package cannot be unpacked: {error}"
            self._end_unrun(attempt, Outcome(category=Category.INVALID_PROGRAM, detail=printable(detail)[:DETAIL_MAX]))
        except Exception as error:  # a full disk, a lease that is not what it should be
            self._end_unrun(attempt, of_error(error))
        return handle

    def poll(self, handle: Handle, wait_s: float) -> bool:
        """True once the attempt has ended; waits up to ``wait_s`` seconds for that."""
        return self._attempt(handle).ended.wait(wait_s)

    def logs(self, handle: Handle, cursor: int) -> tuple[list[LogEntry], int]:
        """Entries after ``cursor``, at most one log chunk, and the next cursor: repeat until none come."""
        attempt = self._attempt(handle)
        if attempt.lease is None:
            return [], cursor
        # Asked first: an end between the two reads may only make us miss the rest until the next call.
        ended = attempt.ended.is_set()
        return log_of(attempt.files, attempt.lease).read(cursor, ended=ended, at_ms=self._clock.now_ms())

    def cancel(self, handle: Handle, reason: str) -> None:
        """End the attempt within the grace; ``reason`` is ``cancelled`` or ``deadline``. Over or unknown is fine."""
        if reason not in (Category.CANCELLED, Category.DEADLINE):
            raise InvalidRequest(f"{reason!r} is no reason to cancel", hint="use cancelled or deadline")
        with self._lock:
            attempt = self._attempts.get(handle)
        if attempt is not None:
            self._stop(attempt, reason)

    def collect(self, handle: Handle) -> RunnerOutcome:
        """The outcome and standard output. Raises Conflict while the attempt runs."""
        attempt = self._attempt(handle)
        if not attempt.ended.is_set() or attempt.outcome is None:
            raise Conflict(f"attempt {handle.attempt} of {handle.job} has not ended", hint="poll until it has")
        return RunnerOutcome(attempt.outcome, attempt.files.read_stdout())

    def adopt(self) -> list[Handle]:
        """All attempts that an earlier runner left; what it could not finish is a platform failure now."""
        with self._lock:
            left = [files for files in attempts_in(self._root) if files.handle not in self._attempts]
            for files in left:
                self._attempts[files.handle] = self._recovered(files)
        return [files.handle for files in left]

    def reap(self, handle: Handle) -> None:
        """Forget an attempt and remove its directory, ending it first; unknown is fine."""
        with self._lock:
            attempt = self._attempts.get(handle)
        if attempt is not None and not attempt.ended.is_set():
            self._stop(attempt, Category.CANCELLED)
            attempt.ended.wait()
        with self._lock:
            self._attempts.pop(handle, None)
        AttemptDir(self._root, handle).remove()

    def close(self) -> None:
        """End all attempts and workers, within a second. Directories stay, for the next runner to adopt."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            attempts = list(self._attempts.values())
            threads = list(self._threads)
        for attempt in attempts:
            self._stop(attempt, Category.PLATFORM)
        for _ in threads:
            self._waiting.put(None)
        deadline = time.monotonic() + CLOSE_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        for compiled in self._artefacts.values():
            compiled.close()
        os.close(self._lock_fd)

    def _attempt(self, handle: Handle) -> _Attempt:
        with self._lock:
            attempt = self._attempts.get(handle)
        if attempt is None:
            raise NotFound(f"this runner knows no attempt {handle.attempt} of {handle.job}", hint="start it first")
        return attempt

    def _stop(self, attempt: _Attempt, reason: str) -> None:
        attempt.stop.request(reason)
        # If it still waits in line, no slot will see the request.
        self._end_unrun(attempt, None)

    def _end_unrun(self, attempt: _Attempt, outcome: Outcome | None) -> None:
        """End an attempt that no slot has taken; as a stopped one if there is no ``outcome``."""
        if self._claim(attempt):
            self._end(attempt, outcome or self._outcome(attempt, Ending(killed="stop"), ""))

    def _claim(self, attempt: _Attempt) -> bool:
        with self._lock:
            mine = not attempt.claimed
            attempt.claimed = True
        return mine

    def _outcome(self, attempt: _Attempt, ending: Ending, versions: str) -> Outcome:
        return of_ending(ending, _lease(attempt), attempt.stop.reason, attempt.files, versions)

    def _recovered(self, files: AttemptDir) -> _Attempt:
        try:
            lease = files.lease()
        except (OSError, ValueError, TypeError):
            lease = None
        attempt = _Attempt(files, lease, claimed=True)
        attempt.stop.close()
        outcome = files.result()
        if outcome is None:
            self._end(attempt, platform_failure(RESTARTED))
        else:
            attempt.outcome = outcome
            attempt.ended.set()
        return attempt

    def _enqueue(self, attempt: _Attempt) -> None:
        with self._lock:
            self._load += 1
            if len(self._threads) < min(self._load, self._slots):
                name = f"wasm-slot-{len(self._threads)}"
                thread = threading.Thread(target=self._slot, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
            self._waiting.put(attempt)

    def _slot(self) -> None:
        worker: WorkerProcess | None = None
        try:
            while (attempt := self._waiting.get()) is not None:
                if self._claim(attempt):
                    worker = self._serve(attempt, worker)
                with self._lock:
                    self._load -= 1
        finally:
            if worker is not None:
                worker.kill()

    def _serve(self, attempt: _Attempt, worker: WorkerProcess | None) -> WorkerProcess | None:
        try:
            if self._free() < ROOM:
                raise Unavailable(f"the agent's disk is full: less than {ROOM >> 20} MiB are free at {self._root}")
            program = Program.of(_lease(attempt), attempt.files, self._cache_dir, _unless(attempt.stop))
            versions = program.versions
            used = worker is not None
            worker = worker or WorkerProcess()
            ending = self._supervise(attempt, worker, program)
            if ending.untouched and used:  # it had died while it was idle
                worker.kill()
                worker = WorkerProcess()
                ending = self._supervise(attempt, worker, program)
            outcome = self._outcome(attempt, ending, versions)
            if outcome.category in DISK_MATTERS and self._free() < ROOM_LEFT:
                # What it wrote may be lost, and a failed write may be why it failed: neither is the program's fault.
                outcome = platform_failure("the agent's disk ran full while it ran")
        except InvalidModule as error:
            outcome = self._outcome(attempt, Ending(invalid=str(error)), "")
        except Exception as error:  # whatever it was, somebody waits for this attempt's end
            stopped = attempt.stop.reason is not None
            outcome = self._outcome(attempt, Ending(killed="stop"), "") if stopped else of_error(error)
        self._end(attempt, outcome)
        if worker is None:
            return None
        worker.jobs += 1
        if worker.dead or outcome.category is Category.PLATFORM or worker.jobs >= JOBS_PER_WORKER:
            worker.kill()
            return self._spare()
        return worker

    def _free(self) -> int:
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def _descriptors(self) -> bool:
        """Whether an attempt could be started: its files, its worker's pipes, and its calls to the platform."""
        opened: list[int] = []
        try:
            for _ in range(DESCRIPTORS):
                opened.append(os.dup(self._lock_fd))  # noqa: PERF401 — what was opened before one fails is closed
        except OSError:
            return False
        finally:
            for fd in opened:
                os.close(fd)
        return True

    def _spare(self) -> WorkerProcess | None:
        """A worker that starts up while nobody waits for it; the next attempt tells why if there is none."""
        if not self._closed:
            with suppress(OSError):
                return WorkerProcess()
        return None

    def _supervise(self, attempt: _Attempt, worker: WorkerProcess, program: Program) -> Ending:
        lease, compiled = _lease(attempt), self._artefacts[program.profile, program.snapshot]
        timeout_s = lease.timeout_ms / 1000
        until = attempt.started + timeout_s if lease.timeout_is_deadline else None

        def enough(wait_s: float) -> bool:
            return attempt.stop.wait(wait_s) or (until is not None and time.monotonic() > until)

        try:
            # Before the worker is asked: a module that has to be compiled keeps no worker waiting.
            fd = compiled.get(
                program.digest,
                program.source.read_bytes,
                timeout_s=artefacts.INTERPRETER_S if program.ours else artefacts.COMPILE_S,
                stopped=enough,
            )
        except CannotCompile as error:
            return Ending(invalid=str(error))
        except CompileFailed as error:
            return Ending(error=str(error))
        except Stopped:
            return Ending(killed="stop" if attempt.stop.reason is not None else "timeout")
        with os.fdopen(fd, "rb") as kept:
            template = program.template(compiled.name(program.digest), attempt.files)
            opened = partial(os.dup, kept.fileno())
            logged = Logged(attempt.service, attempt.files.stderr) if attempt.service is not None else None
            worker.service, worker.output = logged, None if logged is None else logged.heard
            try:
                return supervise(worker, template, opened, attempt.stop, until=until, timeout_s=timeout_s)
            finally:
                worker.service = worker.output = None

    def _end(self, attempt: _Attempt, outcome: Outcome) -> None:
        # Without a result the next runner calls it a platform failure; this one still knows better.
        with suppress(OSError):
            attempt.files.write_result(outcome)
        attempt.stop.close()
        attempt.outcome = outcome
        attempt.ended.set()


def _lease(attempt: _Attempt) -> Lease:
    assert attempt.lease is not None, "an attempt that runs has its lease"
    return attempt.lease


def _unless(stop: Stop) -> Callable[[str], None]:
    """A progress callback that ends a download when a stop was requested meanwhile."""

    def progress(_: str) -> None:
        if stop.reason is not None:
            raise Unavailable("stopped while the interpreter was being downloaded")

    return progress


def _own(path: Path, patience: Callable[[], bool] | None) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if patience is not None and patience():
                continue
            os.close(fd)
            raise Unavailable(
                f"{path.parent} is in use by another runner", hint="give each agent a state folder of its own"
            ) from None
        return fd
