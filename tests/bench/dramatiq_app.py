"""The actors that the peer runs: each job is a process, its output is kept as the result.

Imported by Dramatiq's own command, and by :mod:`tests.bench.dramatiq_worker` to enqueue. ``BENCH_REDIS`` is the broker;
to the file ``BENCH_EFFECTS`` a job that is traced adds a line each time it runs; with ``BENCH_SOON`` the broker soon
finds out that a worker is gone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

SOON = {"heartbeat_timeout": 5000, "maintenance_chance": 100_000}
"""Milliseconds, and the chance in a million that a command looks; Dramatiq's defaults are 60,000 and 1,000."""

broker = RedisBroker(url=os.environ["BENCH_REDIS"], **(SOON if os.environ.get("BENCH_SOON") else {}))
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_REDIS"])))
dramatiq.set_broker(broker)


def _run(*command: str) -> dict[str, Any]:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"done\n"
    return {"stdout": "done\n", "at": time.time()}


@dramatiq.actor(store_results=True, max_retries=3)
def echo() -> dict[str, Any]:
    """The least process that says as much as the module does."""
    return _run("/bin/echo", "done")


@dramatiq.actor(store_results=True, max_retries=3)
def module(path: str) -> dict[str, Any]:
    """The same module, in a process of its own that runs nothing else."""
    return _run(sys.executable, "-m", "tests.bench.wasm_command", path)


@dramatiq.actor(store_results=True, max_retries=3)
def traced(number: int) -> dict[str, Any]:
    """A process of some tens of milliseconds that leaves a trace of having run."""
    with Path(os.environ["BENCH_EFFECTS"]).open("a") as effects:
        effects.write(f"{number}\n")
    return _run("/bin/sh", "-c", "sleep 0.02; echo done")
