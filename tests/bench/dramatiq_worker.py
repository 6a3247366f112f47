"""Dramatiq's workers as processes, and jobs for them."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench import cpu
from tests.bench.cpu import Cpu
from tests.bench.redis_server import RedisServer
from tests.support.live import children, until

ROOT = Path(__file__).resolve().parents[2]
SLOTS = 2


class Workers:
    """``dramatiq`` with two processes of one thread each: two jobs at a time, as an agent with two slots has."""

    def __init__(self, server: RedisServer, folder: Path, *, soon: bool = False) -> None:
        self.effects = folder / "effects"
        self.effects.touch()
        self._server = server
        given = {"BENCH_REDIS": server.url, "BENCH_EFFECTS": str(self.effects)} | ({"BENCH_SOON": "1"} if soon else {})
        self._environment = {**os.environ, **given}
        self._log = folder / "dramatiq.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        size = ("--processes", str(SLOTS), "--threads", "1")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dramatiq", "tests.bench.dramatiq_app", *size],
                env=self._environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: len(self.pids()) > SLOTS, 30, f"Dramatiq's workers are there; see {self._log.name}")

    def pids(self) -> list[int]:
        """The main process and those that it has forked."""
        assert self._process is not None
        return [self._process.pid, *children(self._process.pid)]

    def readings(self) -> dict[str, Cpu]:
        """CPU so far of Redis, of the workers, and of the jobs' processes that have ended."""
        pids = self.pids()
        jobs = sum((cpu.of(pid, reaped=True) for pid in pids[1:]), Cpu())
        return {"redis": cpu.of(self._server.pid), "workers": cpu.of_all(pids), "job processes": jobs}

    def kill(self) -> None:
        """kill -9 of all of them."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)

    def stop(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def working(server: RedisServer, folder: Path, *, soon: bool = False) -> Iterator[Workers]:
    """Workers that run, and end; with ``soon`` they soon take over what others have left."""
    workers = Workers(server, folder, soon=soon)
    workers.start()
    try:
        yield workers
    finally:
        workers.stop()


def application(server: RedisServer) -> Any:
    """The actors' module in this process, for enqueueing to this server."""
    os.environ["BENCH_REDIS"] = server.url
    name = "tests.bench.dramatiq_app"
    return importlib.reload(sys.modules[name]) if name in sys.modules else importlib.import_module(name)


def unfinished(server: RedisServer) -> int:
    """Messages that no worker has acknowledged."""
    with server.client() as client:
        return int(client.hlen("dramatiq:default.msgs"))
