"""Calls through workers: one at a time, in batches of 64, and on two workers at once.

Method. The guest of `request.py` for calls that take no time, and one that counts for about a millisecond. A batch is
sent while the one before is collected, so that a worker never waits. The supervisor is one thread of this process.
The peer of a single call is a child process that echoes 64 bytes by pipes, written in Python: what a round trip to
another process costs without a sandbox in it.

What it does not show. The machine has two cores, and the supervisor needs one, too, when calls take no time: two
workers and it share them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hanzo_compute.adapters.sandbox.frames import Invocation
from hanzo_compute.adapters.sandbox.process import WorkerProcess
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread
from tests.bench.wasm.modules import guest, wat, working
from tests.bench.wasm.side import REQUEST

BATCH = 64
TIMEOUT_MS = 10_000
COUNTS = """(module (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 0))
  (func (export "handle") (param i32 i32) (result i64) (local $left i32)
    (local.set $left (i32.const {turns}))
    (loop $next
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $next (local.get $left)))
    (i64.const 8)))"""
ECHO = "import os\nwhile data := os.read(0, 64): os.write(1, data)"


class Batches:
    """One worker that is kept busy with batches."""

    def __init__(self, worker: WorkerProcess, template: int) -> None:
        self._worker = worker
        self._batch = [Invocation(number, template, TIMEOUT_MS, REQUEST) for number in range(BATCH)]

    def send(self) -> None:
        self._worker.send(self._batch)

    def collect(self) -> None:
        found = self._worker.collect(BATCH, time.monotonic() + 60)
        assert all(each.report is not None and each.report.exit_code == 0 for each in found)


def rate(lines: list[Batches], count: int) -> float:
    """Calls per second of so many batches on each worker."""
    begun = time.perf_counter()
    for line in lines:
        line.send()
    for _ in range(count - 1):
        for line in lines:
            line.send()
            line.collect()
    for line in lines:
        line.collect()
    return len(lines) * count * BATCH / (time.perf_counter() - begun)


def latencies(call: Callable[[], object], count: int) -> list[float]:
    """µs of single calls."""
    took = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        call()
        took.append((time.perf_counter_ns() - begun) / 1000)
    return took


@contextmanager
def echoing() -> Iterator[Callable[[], bytes]]:
    """A child process that echoes what it reads."""
    with subprocess.Popen([sys.executable, "-SEc", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        into, out = child.stdin.fileno(), child.stdout.fileno()

        def call() -> bytes:
            os.write(into, REQUEST)
            return os.read(out, 64)

        yield call


def run(options: Options) -> Report:
    """Latency and throughput."""
    short, long, singles = options.size(40, 2), options.size(4, 2), options.size(1000, 10)
    wasm = guest("sum").read_bytes()
    counts = wat(COUNTS.format(turns=options.size(1_000_000, 1000)))
    found: dict[str, list[float]] = {}
    with working(options.folder("cache")) as work, echoing() as echo:
        pairs = [work.ready(wasm, {"entry": "reactor"}) for _ in range(2)]
        lines = [Batches(*pair) for pair in pairs]
        slow = [Batches(worker, work.prepare(worker, counts, {"entry": "reactor"})) for worker, _ in pairs]
        worker, template = pairs[0]
        for number in range(options.rounds + 1):
            ours = latencies(lambda: worker.call(template, REQUEST, TIMEOUT_MS / 1000), singles)
            theirs = latencies(echo, singles)
            measured = {
                "p50": percentile(ours, 0.5),
                "p99": percentile(ours, 0.99),
                "echo p50": percentile(theirs, 0.5),
                "echo p99": percentile(theirs, 0.99),
                "one": rate(lines[:1], short),
                "two": rate(lines, short),
                "one, long": rate(slow[:1], long),
                "two, long": rate(slow, long),
            }
            for name, value in measured.items():
                if number:
                    found.setdefault(name, []).append(value)
    report = Report("Calls through workers", ["", "ours", "peer", "ours / peer"])
    for name in ("p50", "p99"):
        peer = found[f"echo {name}"]
        report.rows.append(
            [
                f"single call, {name}, µs (echo of 64 bytes by a child process)",
                spread(found[name]),
                spread(peer),
                ratios(found[name], peer),
            ]
        )
    for name, title in (("", "calls/s in batches of 64"), (", long", "calls of about 1 ms/s in batches of 64")):
        one, two = found[f"one{name}"], found[f"two{name}"]
        report.rows.append([f"{title}, two workers (one)", spread(two), spread(one), ratios(two, one)])
    report.targets += [
        Target("single call, p50, µs", spread(found["p50"]), 150),
        Target("calls/s of one worker", spread(found["one"]), 15_000, at_most=False),
        Target("two workers / one, no work", ratios(found["two"], found["one"]), 1.8, at_most=False),
        Target("two workers / one, 1 ms of work", ratios(found["two, long"], found["one, long"]), 1.8, at_most=False),
    ]
    return report
