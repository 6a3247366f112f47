"""The same number of small jobs on Dramatiq with Redis, which runs each as a process.

Method. In each round the platform carries 1,000 WASM jobs (as in `jobs.py`), and Dramatiq, with as many slots, 1,000
jobs of which each starts `/bin/echo done` and keeps its output as the result: with Redis synced before every answer
(appendfsync always), which is the platform's promise, and with Redis as it comes. 100 jobs run the same WASM module by
a new Python process each, which is what isolating it by a process costs without a pool of workers. CPU is read from
the kernel; that of the client that submits is counted nowhere.

What differs, and so is not shown. Dramatiq's client writes into Redis by itself: there is no HTTP, credential,
validation, tenant or idempotency key between. Its jobs are the worker's own code with the worker's rights: no sandbox,
fuel, memory limit or log. A result expires after ten minutes, and there is no history of a job. `/bin/echo` is less
work than a WASM module in a fresh store with limits; a module by a new process is more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import cpu, dramatiq_worker, jobs
from tests.bench.cpu import Cpu
from tests.bench.dramatiq_worker import Workers, working
from tests.bench.options import Options
from tests.bench.redis_server import DEFAULT, DURABLE, RedisServer
from tests.bench.report import Report, percentile, spread
from tests.support.live import compiled, until


@dataclass
class Side:
    """What the rounds of one system came to."""

    name: str
    count: int
    rate: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def add(self, seconds: float, used: dict[str, Cpu], latencies_ms: list[float]) -> None:
        """One round."""
        self.rate.append(self.count / seconds)
        self.cost.append(sum(used.values(), Cpu()).total * 1000 / self.count)
        for part, each in used.items():
            self.parts.setdefault(part, []).append(each.total * 1000 / self.count)
        self.p50.append(percentile(latencies_ms, 0.5))
        self.p99.append(percentile(latencies_ms, 0.99))


def dramatiq_round(side: Side, server: RedisServer, workers: Workers, send: Callable[[Any], Any]) -> None:
    """Enqueue all, wait until all are acknowledged, and read the results."""
    application = dramatiq_worker.application(server)
    before, begun = workers.readings(), time.time()
    sent = []
    for _ in range(side.count):
        message = send(application)
        sent.append((message, time.time()))
    until(lambda: not dramatiq_worker.unfinished(server), 300, "Dramatiq has done all")
    used = cpu.passed(before, workers.readings())
    ends = [message.get_result(backend=None)["at"] for message, _ in sent]
    latencies = [max(0.0, end - at) * 1000 for end, (_, at) in zip(ends, sent, strict=True)]
    side.add(max(ends) - begun, used, latencies)
    application.broker.flush_all()


def run(options: Options) -> Report:
    """Rounds of the platform and of Dramatiq in its three forms."""
    folder, count = options.folder("peer"), options.size(1000, 10)
    path = folder / "module.wasm"
    path.write_bytes(compiled(jobs.SMALL))
    ours = Side("platform: WASM module", count)
    forms: list[tuple[Side, tuple[str, ...], Callable[[Any], Any]]] = [
        (Side("Dramatiq, synced Redis: echo", count), DURABLE, lambda app: app.echo.send()),
        (Side("Dramatiq, Redis as it comes: echo", count), DEFAULT, lambda app: app.echo.send()),
        (Side("Dramatiq, synced Redis: module", count // 10), DURABLE, lambda app: app.module.send(str(path))),
    ]
    with ExitStack() as stack:
        platform, module = stack.enter_context(jobs.warm_platform(folder / "home"))
        pairs: dict[tuple[str, ...], tuple[RedisServer, Workers]] = {}
        for number, settings in enumerate((DURABLE, DEFAULT)):
            server = stack.enter_context(RedisServer(_folder(folder, f"redis-{number}"), settings))
            pairs[settings] = server, stack.enter_context(working(server, _made(folder, f"workers-{number}")))
            dramatiq_round(Side("warm-up", 20), *pairs[settings], lambda app: app.echo.send())
        for number in range(options.rounds):
            found = jobs.run_round(platform, module, count)
            ours.add(found.seconds, found.processes, found.latencies_ms)
            for side, settings, send in forms:
                dramatiq_round(side, *pairs[settings], send)
            options.say(f"peer {number + 1}/{options.rounds}")
    return report([ours, *(side for side, _, _ in forms)])


def _folder(parent: Path, name: str) -> Path:
    return parent / name


def _made(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir()
    return path


def report(sides: list[Side]) -> Report:
    """A row for each system."""
    made = Report(
        "The same number of jobs on Dramatiq with Redis",
        ["", "jobs", "jobs/s", "CPU per job, ms", "p50 from accepted to outcome, ms", "p99, ms"],
    )
    for side in sides:
        made.rows.append(
            [side.name, str(side.count), *(spread(each) for each in (side.rate, side.cost, side.p50, side.p99))]
        )
        parts = ", ".join(f"{part} {spread(values).median:.2f}" for part, values in side.parts.items())
        made.notes.append(f"CPU per job of {side.name}, ms: {parts}")
    return made
