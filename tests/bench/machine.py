"""What the figures stand on: the machine, and how fast its disk makes things durable."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from importlib import metadata
from pathlib import Path

PACKAGES = ("uvicorn", "uvloop", "httptools", "pydantic", "aws-lambda-powertools", "wasmtime")


def description() -> dict[str, str]:
    """Cores, system and versions."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "versions": versions,
    }


def load_average() -> str:
    """Of the last 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def syncs_per_second(folder: Path, seconds: float = 1.0) -> float:
    """How often a second this disk can write 4 KiB and sync them, one after the other."""
    path = folder / "sync"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        block, count, begun = b"x" * 4096, 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds:
            os.pwrite(descriptor, block, count * 4096 % (4 << 20))
            os.fdatasync(descriptor)
            count += 1
        return count / passed
    finally:
        os.close(descriptor)
        path.unlink()
