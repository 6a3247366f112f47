"""One attempt on one worker: sends it, waits, and ends it at each of its limits.

The guest is interrupted by its worker at the deadline. That works between instructions, and in sleeps; behind it, for
whatever else may hold a host call up, stands the kill of the process.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hanzo_compute.adapters.sandbox.call import Report
from hanzo_compute.adapters.sandbox.process import GRACE_S, Answered, Overdue, Template, WorkerDied, WorkerProcess


class Stop:
    """A request to end an attempt, which any thread can make and a waiting supervisor notices."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read, self._write = os.pipe()
        self._open = True
        self.reason: str | None = None

    def request(self, reason: str) -> None:
        """Ask for the end; the first reason counts."""
        with self._lock:
            if self.reason is None and self._open:
                self.reason = reason
                os.write(self._write, b"x")

    def fileno(self) -> int:
        """Readable once a stop was requested."""
        return self._read

    def wait(self, seconds: float) -> bool:
        """Wait for a request that long; True if there is one."""
        poller = select.poll()
        poller.register(self._read, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def close(self) -> None:
        """Give the descriptors back; requests are ignored from now on."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._read)
                os.close(self._write)


@dataclass(slots=True)
class Ending:
    """How a supervised run came to its end: exactly one of the first four is set."""

    report: Report | None = None
    invalid: str | None = None
    error: str | None = None
    killed: str | None = None
    """What the kill was for: ``stop`` or ``timeout``."""
    signal: int | None = None
    untouched: bool = False
    """The worker died before it took the request up."""
    wall_ms: int = 0
    cpu_ms: int = 0


def supervise(
    worker: WorkerProcess,
    template: Template,
    artefact: Callable[[], int],
    stop: Stop,
    *,
    until: float | None,
    timeout_s: float,
) -> Ending:
    """Run a module once; afterwards the worker is dead if it had to be killed, or died by itself.

    It may run for ``timeout_s``, and not beyond ``until`` on the monotonic clock.
    """
    run = _Run(worker, stop)
    try:
        number = worker.prepare(template, artefact)
    except WorkerDied as death:
        return run.died(death, untouched=True)
    except Overdue:
        return Ending(error="the worker did not load the module in time")
    except LookupError as error:
        return Ending(error=str(error))
    if until is not None:
        timeout_s = min(timeout_s, until - time.monotonic())
        if timeout_s <= 0:
            return Ending(killed="timeout")
    return run.follow(number, timeout_s)


class _Run:
    def __init__(self, worker: WorkerProcess, stop: Stop) -> None:
        self._worker = worker
        self._stop = stop
        self._began: float | None = None
        self._cpu_began = 0

    def follow(self, number: int, timeout_s: float) -> Ending:
        self._cpu_began = self._worker.cpu_ms() or 0
        self._began = time.monotonic()
        stopping = False
        try:
            answered = self._worker.call(number, b"", timeout_s, self._stop.fileno())
            if answered is None:
                stopping = True
                self._worker.service = None  # whatever the guest may still ask, nobody waits for it
                self._worker.stop()
                answered = self._worker.wait(time.monotonic() + GRACE_S)
            assert answered is not None, "without a wake it waits for the end"
            return self._ended(answered)
        except Overdue:
            return self._measured(Ending(killed="stop" if stopping else "timeout"))
        except WorkerDied as death:
            return self.died(death)

    def _ended(self, answered: Answered) -> Ending:
        report = answered.report
        if report is None:
            return self._measured(Ending(error=answered.error))
        return Ending(report=report, wall_ms=report.wall_ms, cpu_ms=report.cpu_ms)

    def died(self, death: WorkerDied, *, untouched: bool = False) -> Ending:
        words = death.words.strip().splitlines()
        last = f": {words[-1]}" if words else ""
        return self._measured(Ending(error=f"{death}{last}", signal=death.signal, untouched=untouched))

    def _measured(self, ending: Ending) -> Ending:
        if self._began is not None:
            ending.wall_ms = round((time.monotonic() - self._began) * 1000)
            used = self._worker.cpu_ms()
            ending.cpu_ms = max(used - self._cpu_began, 0) if used is not None else 0
        return ending
