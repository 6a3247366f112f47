"""One attempt on one worker: sends it, waits, and ends it at each of its limits.

The guest is interrupted by its worker at the deadline. That works between instructions only, not inside a
host call such as a sleep, so behind it stands the kill of the process.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

from hanzo_compute.adapters.runner.wasm.engine import Report
from hanzo_compute.adapters.runner.wasm.process import WorkerDied, WorkerProcess

GRACE_S: Final = 0.25
"""From the moment a guest should have ended to the kill of its process."""
COMPILE_S: Final = 60.0
"""Longest time to compile a module; also to answer at all."""


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
    """What the kill was for: ``stop``, ``timeout`` or ``compile``."""
    signal: int | None = None
    untouched: bool = False
    """The worker died before it took the request up."""
    wall_ms: int = 0
    cpu_ms: int = 0


def supervise(
    worker: WorkerProcess,
    request: dict[str, Any],
    stop: Stop,
    *,
    timeout_s: float,
    timeout_includes_load: bool,
) -> Ending:
    """Run a request to its end; afterwards the worker is dead if it had to be killed, or died by itself."""
    run = _Run(worker, stop, timeout_s, timeout_includes_load)
    timeout = {"timeout_s": timeout_s, "timeout_includes_load": timeout_includes_load}
    try:
        worker.send({"op": "run", **request, **timeout})
        return run.follow()
    except WorkerDied as death:
        return run.died(death)


class _Run:
    def __init__(self, worker: WorkerProcess, stop: Stop, timeout_s: float, timeout_includes_load: bool) -> None:
        now = time.monotonic()
        self._worker = worker
        self._stop = stop
        self._timeout_s = timeout_s
        self._deadline = now + timeout_s if timeout_includes_load else None
        self._phase = "load"
        self._until = now + COMPILE_S
        self._stopping = False
        self._began: float | None = None
        self._cpu_began = 0

    def follow(self) -> Ending:
        while True:
            now = time.monotonic()
            until = self._until if self._deadline is None else min(self._until, self._deadline + GRACE_S)
            if now >= until:
                return self._kill()
            message = self._worker.receive(until - now, None if self._stopping else self._stop.fileno())
            if message is not None:
                ending = self._heard(message)
                if ending is not None:
                    return ending
            elif self._stop.reason is not None and not self._stopping:
                self._begin_stop()

    def _heard(self, message: dict[str, Any]) -> Ending | None:
        if "phase" in message:
            self._phase = message["phase"]
            now = time.monotonic()
            if self._phase == "compile":
                self._until = now + COMPILE_S
            else:
                self._began, self._cpu_began = now, message["cpu_ms"]
                self._until = now + self._timeout_s + GRACE_S
            return None
        if "done" in message:
            report = Report(**message["done"])
            return Ending(report=report, wall_ms=report.wall_ms, cpu_ms=report.cpu_ms)
        return Ending(invalid=message.get("invalid"), error=message.get("error"))

    def _begin_stop(self) -> None:
        self._stopping = True
        grace = 0.0
        if self._phase == "run":
            self._worker.send({"op": "stop"})
            grace = GRACE_S
        self._until = min(self._until, time.monotonic() + grace)

    def _kill(self) -> Ending:
        late = self._deadline is not None and time.monotonic() >= self._deadline
        why = "timeout" if late or self._phase == "run" else "compile"
        ending = self._measured(Ending(killed="stop" if self._stopping else why))
        self._worker.kill()
        return ending

    def died(self, death: WorkerDied) -> Ending:
        words = death.words.strip().splitlines()
        if self._phase == "compile" and any("memory allocation of" in line for line in words):
            return Ending(invalid="compiling it took more memory than the 3 GiB that it may use")
        last = f": {words[-1]}" if words else ""
        untouched = self._phase == "load"
        return self._measured(Ending(error=f"{death}{last}", signal=death.signal, untouched=untouched))

    def _measured(self, ending: Ending) -> Ending:
        if self._began is not None:
            ending.wall_ms = round((time.monotonic() - self._began) * 1000)
            used = self._worker.cpu_ms()
            ending.cpu_ms = max(used - self._cpu_began, 0) if used is not None else 0
        return ending
