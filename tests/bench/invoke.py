"""A function called over HTTP: ours, a FastAPI route that computes the same, and the module behind Node's server.

Method. The function sums eight numbers (64 bytes in, 8 out; examples/c/sum). Three servers run at once and take turns:
the platform's front with its workers, which authenticates, resolves alias and version, runs the call in a fresh sandbox
of another process, and gives it a receipt; a FastAPI route that adds in Python; a Node process that makes a fresh
instance of the same module in itself. Neither peer checks a credential, isolates or keeps account. Kept-alive
connections from one client process; CPU is read from the kernel for each server's processes.

What it does not show. Functions that take longer than their way there; several fronts.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hanzo_compute_host.running import is_ready
from tests.bench import cpu, load
from tests.bench.options import Options
from tests.bench.report import Report, percentile, ratios, spread
from tests.bench.servers import OURS, ROOT, Server, container, durable, serving
from tests.support.live import until
from tests.support.wasm import children

CLIENTS = 8
NUMBERS = struct.pack("<8Q", *range(8))
ANSWER = struct.pack("<Q", 28)


@dataclass
class Side:
    """One server: where it listens, whose CPU counts, and what its rounds came to."""

    port: int
    key: str
    pids: Callable[[], list[int]]
    cpu_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)

    def used(self) -> float:
        return sum(cpu.of(pid).total for pid in self.pids())

    def measure(self, count: int, connections: int, *, counted: bool) -> None:
        head = f"POST /v1/functions/sum/invoke HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self.key}\r\n"
        head += f"content-type: application/octet-stream\r\ncontent-length: {len(NUMBERS)}\r\n\r\n"
        before = self.used()
        answers = load.accepted(load.drive(self.port, [head.encode() + NUMBERS] * count, connections=connections), 200)
        assert all(answer.body == ANSWER for answer in answers)
        if counted:
            self.cpu_us.append((self.used() - before) / count * 1e6)
            self.rate.append(count / (max(a.received for a in answers) - min(a.sent for a in answers)))
            latencies = [answer.latency_ms for answer in answers]
            self.p50.append(percentile(latencies, 0.5))
            self.p99.append(percentile(latencies, 0.99))


@contextmanager
def listening(command: list[str]) -> Iterator[Side]:
    """A peer that is handed its listening socket as the last argument."""
    import socket

    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        fd = listener.fileno()
        process = stack.enter_context(
            subprocess.Popen([*command, str(fd)], pass_fds=(fd,), cwd=ROOT, stdout=subprocess.DEVNULL)
        )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        port = listener.getsockname()[1]
        until(lambda: is_ready(f"http://127.0.0.1:{port}", 1.0), 60, f"{command[1]} answers")
        yield Side(port, "none", lambda: [process.pid])


def deploy(home: Path, guest: bytes) -> None:
    """Deploy the function for the tenant that the servers' keys are of."""
    from hanzo_compute.model.function import FunctionSpec
    from hanzo_compute.services import credentials, functions

    ctx = container(home)
    try:
        blob = ctx.blobs.put(credentials.DEFAULT_TENANT, guest)
        spec = {"source": {"module": blob}, "abi": "reactor", "concurrency": 100}
        functions.deploy(ctx, credentials.DEFAULT_TENANT, "sum", FunctionSpec.model_validate(spec))
        durable(ctx)
    finally:
        assert ctx.commits is not None
        ctx.commits.close()  # type: ignore[attr-defined]


def of(server: Server) -> Side:
    """Ours: the front with its workers, and the writer."""
    return Side(server.port, server.key, lambda: [server.front, server.writer, *children(server.front)])


def run(options: Options) -> Report:
    """Rounds with one client, and with eight."""
    subprocess.run([ROOT / "scripts" / "build_guests"], check=True, stdout=subprocess.DEVNULL)
    path = ROOT / "build" / "guests" / "sum.wasm"
    report = Report(
        "A function of 64 bytes in and 8 out, over HTTP",
        ["", "ours", "FastAPI, no sandbox", "Node, same module", "ours / FastAPI", "ours / Node"],
    )
    folder = options.folder("invoke")
    node = ["node", str(ROOT / "tests" / "bench" / "sum_server.mjs"), str(path)]
    fastapi = [sys.executable, "-m", "tests.bench.sum_fastapi", "--fd"]
    os.environ.setdefault("HZC_GUEST_WORKERS", "2")
    with serving(OURS, folder / "ours") as server, listening(fastapi) as peer, listening(node) as other:
        deploy(folder / "ours", path.read_bytes())
        for clients in (1, CLIENTS):
            sides = [of(server), Side(peer.port, "none", peer.pids), Side(other.port, "none", other.pids)]
            count = options.size(1500 if clients == 1 else 6000, 40)
            for number in range(options.rounds + 1):
                for side in sides if number % 2 else reversed(sides):
                    side.measure(count, clients, counted=number > 0)
            _rows(report, f"{clients} client{'s' * (clients > 1)}", sides)
    return report


def _rows(report: Report, who: str, sides: list[Side]) -> None:
    ours, fastapi, node = sides
    for what, name in (("requests/s", "rate"), ("p50, ms", "p50"), ("p99, ms", "p99"), ("µs of CPU", "cpu_us")):
        found = [getattr(side, name) for side in sides]
        report.rows.append(
            [
                f"{who}: {what}",
                *(spread(each) for each in found),
                ratios(getattr(ours, name), getattr(fastapi, name)),
                ratios(getattr(ours, name), getattr(node, name)),
            ]
        )
