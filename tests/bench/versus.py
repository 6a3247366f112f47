"""Our front and the FastAPI application under the same requests, round by round; shared by ``post`` and ``get``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.bench import cpu, load
from tests.bench.options import Options
from tests.bench.report import Report, Spread, Target, percentile, ratios, spread
from tests.bench.servers import FASTAPI, OURS, Server, serving

SPEC = {
    "source": {"code": "import sys\nprint(sum(map(int, sys.stdin)))", "language": "python"},
    "args": ["--column", "3"],
    "env": {"MODE": "sum"},
    "input": {"inline": "1\n2\n3\n"},
    "resources": {"memory_mib": 128, "timeout_s": 30},
    "labels": {"team": "bench", "kind": "small"},
}
"""A job with something in each part of its spec."""

Requests = Callable[[Server], list[bytes]]


@dataclass
class Side:
    """What the rounds of one server came to: per request in µs of CPU, requests/s, latency in ms."""

    front: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def measure(self, server: Server, requests: list[bytes], connections: int, status: int) -> None:
        """One round."""
        before = server.readings()
        answers = load.accepted(load.drive(server.port, requests, connections=connections), status)
        used = cpu.passed(before, server.readings())
        seconds = max(a.received for a in answers) - min(a.sent for a in answers)
        self.front.append(used["front"].total / len(requests) * 1e6)
        self.both.append((used["front"] + used["writer"]).total / len(requests) * 1e6)
        self.rate.append(len(requests) / seconds)
        latencies = [answer.latency_ms for answer in answers]
        self.p50.append(percentile(latencies, 0.5))
        self.p99.append(percentile(latencies, 0.99))


@contextmanager
def both(options: Options, name: str) -> Iterator[dict[str, Server]]:
    """The two servers, each with a writer of its own."""
    folder = options.folder(name)
    with serving(OURS, folder / "ours") as ours, serving(FASTAPI, folder / "fastapi") as peer:
        yield {"ours": ours, "fastapi": peer}


def rounds(
    options: Options, servers: dict[str, Server], requests: Requests, *, connections: int, status: int
) -> tuple[Side, Side]:
    """Rounds in turn, the order within a round changing; a round before the first is not counted."""
    sides = {name: Side() for name in servers}
    for number in range(options.rounds + 1):
        order = list(servers) if number % 2 else list(reversed(servers))
        for name in order:
            side = sides[name] if number else Side()
            side.measure(servers[name], requests(servers[name]), connections, status)
    return sides["ours"], sides["fastapi"]


def compare(report: Report, what: str, ours: list[float], theirs: list[float]) -> Spread:
    """A row, and the ratio in it."""
    ratio = ratios(ours, theirs)
    report.rows.append([what, spread(ours), spread(theirs), ratio])
    return ratio


def table(title: str, ours: Side, theirs: Side, *, cpu_bound: float, rate_bound: float | None) -> Report:
    """The comparison as a report."""
    report = Report(title, ["", "ours", "FastAPI", "ours / FastAPI"])
    front = compare(report, "front, µs of CPU per request", ours.front, theirs.front)
    compare(report, "front and writer, µs of CPU per request", ours.both, theirs.both)
    rate = compare(report, "requests/s", ours.rate, theirs.rate)
    compare(report, "p50, ms", ours.p50, theirs.p50)
    compare(report, "p99, ms", ours.p99, theirs.p99)
    report.targets.append(Target("CPU of the front, ours / FastAPI", front, cpu_bound))
    if rate_bound is not None:
        report.targets.append(Target("requests/s, ours / FastAPI", rate, rate_bound, at_most=False))
    return report
