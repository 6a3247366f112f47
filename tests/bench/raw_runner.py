"""``python -m tests.bench.raw_runner FOLDER SLOTS COUNT WARM_UP``: the runner alone, as a process.

Reads a module from standard input, runs COUNT attempts of it after WARM_UP others, never more in hand than an agent
with so many slots has, and prints JSON: seconds, and user and system CPU of this process and of its workers.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hanzo_compute import config
from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.model.outcome import Category
from hanzo_compute.ports import Lease
from tests.bench import cpu
from tests.bench.cpu import Cpu
from tests.support.live import children

SPEC = {"source": {"module": "b1-" + "0" * 64}, "resources": {"memory_mib": 256, "timeout_s": 60}, "log_limit": 1 << 20}


def carry(runner: WasmRunner, module: bytes, numbers: Iterator[int], lock: threading.Lock) -> None:
    """What a slot of an agent does, without the platform: start, wait, collect, forget."""
    while True:
        with lock:
            number = next(numbers, None)
        if number is None:
            return
        lease = Lease(f"j-{number:026d}", 1, "wasm", SPEC, 30_000, 60_000, timeout_is_deadline=False)
        handle = runner.start(lease, module=module, stdin=b"")
        while not runner.poll(handle, 1.0):
            pass
        outcome = runner.collect(handle).outcome
        assert outcome.category is Category.OK, outcome
        runner.reap(handle)


def run(runner: WasmRunner, module: bytes, numbers: range, slots: int) -> None:
    """All attempts, ``slots`` at a time."""
    line, lock = iter(numbers), threading.Lock()
    with ThreadPoolExecutor(slots) as threads:
        for each in [threads.submit(carry, runner, module, line, lock) for _ in range(slots)]:
            each.result()


def main() -> int:
    folder, slots, count, warm_up = Path(sys.argv[1]), *map(int, sys.argv[2:])
    module = sys.stdin.buffer.read()
    runner = WasmRunner(folder, config.default_cache(os.environ), slots, SystemClock())
    run(runner, module, range(warm_up), slots)

    def readings() -> dict[str, Cpu]:
        me = os.getpid()
        return {"runner": cpu.of(me), "workers": cpu.of_all(children(me)) + cpu.of(me, reaped=True)}

    before, begun = readings(), time.monotonic()
    run(runner, module, range(warm_up, warm_up + count), slots)
    seconds = time.monotonic() - begun
    used = cpu.passed(before, readings())
    print(json.dumps({"seconds": seconds} | {name: (each.user, each.system) for name, each in used.items()}))
    runner.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
