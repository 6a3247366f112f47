"""The processes of a platform: started so that none outlives the supervisor, restarted with growing patience.

Each says by itself when it stands by and when it does its work (:mod:`hanzo_compute.ready`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hanzo_compute import ready

LOG_MAX: Final = 16 * 1024 * 1024
"""A log that has grown over this many bytes is moved to ``<name>.log.1``."""
RESTART_MIN_S: Final = 1.0
RESTART_MAX_S: Final = 30.0
STEADY_S: Final = 60.0
"""A process that ran this long is restarted as if for the first time."""

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Spec:
    """How to start a process: a module of Python with arguments.

    ``orphaned`` is the signal that the kernel sends it when the supervisor dies, however that happens.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    orphaned: signal.Signals
    descriptors: tuple[int, ...] = ()


class Child:
    """A process that is meant to run."""

    def __init__(self, spec: Spec, logs: Path) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.restarts = 0
        self.due: float | None = None
        """When to start it again, on the monotonic clock; None while it runs."""
        self.leave_by: float | None = None
        """When it must be gone, of a process that was told to leave."""
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._patience = RESTART_MIN_S
        self._steps: int | None = None
        """Where it says how far it has come."""
        self._said = b""
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return None if self._process is None else self._process.pid

    def start(self, *, takeover: bool = False) -> None:
        """Start the process; its output goes to the log. With ``takeover`` it follows one that still runs."""
        self.rotate()
        self._forget_steps()
        steps, told = os.pipe()
        os.set_blocking(steps, False)
        try:
            self._spawn(told, takeover)
        except BaseException:
            os.close(steps)
            raise
        finally:
            os.close(told)
        self._steps, self._said = steps, b""
        self._started = time.monotonic()
        self.due = None

    def _spawn(self, told: int, takeover: bool) -> None:
        command = [sys.executable, "-m", self.spec.module, *self.spec.arguments]
        environment = {**self.spec.environment, ready.VARIABLE: str(told)}
        if takeover:
            environment[ready.TAKEOVER] = "1"
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            # Between fork and exec only one system call is made, and the supervisor has no other threads.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=(*self.spec.descriptors, told),
                process_group=0,
                preexec_fn=dies_with_parent(self.spec.orphaned),  # noqa: PLW1509
            )

    def said(self, step: bytes) -> bool:
        """Whether the process has told that it reached ``step``."""
        if self._steps is not None:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(self._steps, 16):
                    self._said += data
                self._forget_steps()  # all has been said
        return step in self._said

    def _forget_steps(self) -> None:
        if self._steps is not None:
            os.close(self._steps)
            self._steps = None

    def rotate(self) -> None:
        """Keep the log bounded. It is copied and emptied: the process goes on writing at its end."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > LOG_MAX:
                try:
                    shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                finally:  # on a full disk the older lines are what gives way
                    os.truncate(self.log, 0)

    def ended(self) -> int | None:
        """The exit code of a process that has just ended; what it left in its group is ended, too."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None
            self._forget_steps()
        return code

    def plan_restart(self) -> float:
        """Decide when to start it again; returns the seconds until then."""
        if time.monotonic() - self._started >= STEADY_S:
            self._patience = RESTART_MIN_S
        wait = self._patience
        self._patience = min(self._patience * 2, RESTART_MAX_S)
        self.due = time.monotonic() + wait
        self.restarts += 1
        return wait

    def leave(self, number: signal.Signals, seconds: float) -> None:
        """Tell the process to end, in ``seconds`` at most."""
        self.leave_by = time.monotonic() + seconds
        self.signal(number)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process; SIGKILL goes to all of its group."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def last_line(self) -> str:
        """The end of its log since it was started."""
        with self.log.open("rb") as file:
            file.seek(max(self._log_start, self.log.stat().st_size - 2048))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def raise_descriptor_limit() -> int:
    """Let this process and its children open as many files as they are allowed to at all; returns how many.

    The usual soft limit of 1,024 is kept low for programs that call ``select`` with any descriptor: ours poll, or
    have few. Each connection, parked request and sandbox worker costs one or more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # a kernel that allows less than its own hard limit says
        return soft
    return hard


def dies_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child calls before it becomes a program, so that the kernel signals it when its parent ends."""
    parent = os.getpid()

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        # The parent may have ended before the call.
        if os.getppid() != parent:
            os._exit(1)

    return prepare
