"""A worker process as its supervisor sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.runner.wasm.lines import Lines

PASSED_ON: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR", "LANG")
"""The only variables of the agent's environment that a worker gets: where to find its own code."""
LAST_WORDS: Final = 2000


class WorkerDied(Exception):
    """The worker ended by itself. ``signal`` is what killed it, ``words`` the end of its stderr."""

    def __init__(self, code: int, words: str) -> None:
        self.signal = -code if code < 0 else None
        self.words = words
        how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        super().__init__(f"the worker process ended {how}")


class WorkerProcess:
    """One spawned worker. Belongs to one thread, whose end ends the worker too (on Linux)."""

    def __init__(self, cache_dir: Path) -> None:
        self.jobs = 0
        # A file, not a pipe: nobody has to read it for the worker to go on.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed by kill)
        command = [sys.executable, "-P", "-m", "hanzo_compute.adapters.runner.wasm.worker"]
        self._process = subprocess.Popen(
            [*command, str(os.getpid()), str(cache_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env=_environment(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._lines = Lines(self._process.stdout.fileno(), self._process.stdin.fileno())

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def dead(self) -> bool:
        """True once it has ended, by itself or by a kill."""
        return self._process.poll() is not None

    def send(self, message: dict[str, Any]) -> None:
        """Send a request. Raises WorkerDied."""
        try:
            self._lines.send(message)
        except OSError:
            raise self._died() from None

    def receive(self, timeout: float, wake: int | None = None) -> dict[str, Any] | None:
        """The next message; None after ``timeout`` s or when ``wake`` is readable. Raises WorkerDied."""
        if not self._lines.ready(timeout, wake):
            return None
        message = self._lines.receive()
        if message is None:
            raise self._died()
        return message

    def cpu_ms(self) -> int | None:
        """CPU time that the process has used so far, where the system tells."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End the process and whatever it may have started, at once; repeatable."""
        if self._process.poll() is None:
            # Not yet reaped, so the id is still its own.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self._stderr.close()

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


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # Address space is limited: 64 MiB of it for each thread's arena would be spent for nothing.
    return {**passed, "MALLOC_ARENA_MAX": "2", "RAYON_NUM_THREADS": str(min(os.cpu_count() or 1, 4))}
