"""The writer: 64 transactions outstanding against one, on this disk and on one whose syncs take 4 ms more.

Method. A writer process; clients that speak its protocol on Unix sockets, each with one transaction in flight: it sends
the next when the last is durable. With one client every transaction has a commit, and so a disk sync, to itself; 64
clients share commits. Both put one record of 200 bytes, or what a submitted job puts (six records, four index
entries), for a fixed time. Two writers run, on folders of one disk; in the second a preloaded library delays fsync and
fdatasync by 4 ms, which is what a disk with a real cache flush takes. The four kinds of load take turns in each round.

What it does not show. The clients are one Python process that competes with the writer for two cores. Where syncs cost
almost nothing, as on many virtual disks, there is little to share, and the first ratio says so: look at the fdatasync/s
beside it.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from hanzo_compute.adapters.local import frames
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.writer import socket_path
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread
from tests.support.writer import WriterProcess

CLIENTS = 64
DELAY_MS = 4
SHIM = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static const struct timespec delay = {{0, {DELAY_MS} * 1000000L}};
int fsync(int fd) {{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    nanosleep(&delay, 0);
    return real(fd);
}}
int fdatasync(int fd) {{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    nanosleep(&delay, 0);
    return real(fd);
}}
"""

Rows = Callable[[int], list[list[Any]]]


def record(number: int) -> list[list[Any]]:
    """A transaction of one record."""
    return [["put", f"BENCH#{number}", "-", 0, json.dumps({"text": "x" * 180}), {}]]


def job(number: int) -> list[list[Any]]:
    """A transaction like that of a submitted job: record with three index entries, spec, event, labels, message."""
    body = json.dumps({"text": "x" * 400})
    index = {"tenant": ["T", f"{number:026d}"], "state": ["T#queued", f"{number:026d}"], "due": ["D", f"{number:026d}"]}
    rows: list[list[Any]] = [["put", f"JOB#{number}", "META", 0, body, index]]
    rows += [["put", f"JOB#{number}", kind, 0, body, {}] for kind in ("SPEC", "EVENT#1")]
    return [*rows, *(["put", f"{name}#{number}", "-", 0, "{}", {}] for name in ("LABEL", "OTHER", "OUTBOX"))]


class _Client:
    """One connection with one transaction in flight."""

    def __init__(self, home: Path) -> None:
        self.sock = frames.connect(socket_path(home), 20)
        self.sock.settimeout(20)
        self._decoder = frames.Decoder()
        self._number = 0
        self._sent = 0.0

    def send(self, rows: list[list[Any]]) -> None:
        self._number += 1
        self._sent = time.perf_counter()
        self.sock.sendall(frames.encode({"id": self._number, "op": "transact", "args": [rows, []]}))

    def receive(self) -> float | None:
        """Milliseconds from sending to durable; None when that has not been said yet."""
        done = None
        for frame in self._decoder.feed(self.sock.recv(65536)):
            assert not frame.keys() & {"conflict", "error", "failed"}, frame
            if frame.get("durable") == self._number:
                done = (time.perf_counter() - self._sent) * 1000
        return done


@dataclass
class Kind:
    """A load on a writer, and what its rounds came to: transactions/s, per commit, waits in ms."""

    home: Path
    clients: int
    rows: Rows
    rate: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)

    def measure(self, numbers: Iterator[int], seconds: float) -> None:
        """One round."""
        commits = commits_of(self.home)
        waits = drive(self.home, self.clients, (self.rows(number) for number in numbers), seconds)
        self.rate.append(len(waits) / seconds)
        self.batch.append(len(waits) / (commits_of(self.home) - commits))
        self.p50.append(percentile(waits, 0.5))
        self.p99.append(percentile(waits, 0.99))
        self.worst.append(max(waits))


def drive(home: Path, clients: int, transactions: Iterator[list[list[Any]]], seconds: float) -> list[float]:
    """Keep ``clients`` transactions outstanding for some seconds; how long each waited, ms."""
    waits: list[float] = []
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        open_ones = [_Client(home) for _ in range(clients)]
        for client in open_ones:
            stack.enter_context(client.sock)
            selector.register(client.sock, selectors.EVENT_READ, client)
            client.send(next(transactions))
        end, left = time.monotonic() + seconds, clients
        while left:
            for key, _ in selector.select(20):
                wait = key.data.receive()
                if wait is None:
                    continue
                waits.append(wait)
                if time.monotonic() < end:
                    key.data.send(next(transactions))
                else:
                    left -= 1
    return waits


def commits_of(home: Path) -> int:
    """How often the writer has committed."""
    with closing(WriterClient(home)) as client:
        return client.stats()["commits"]


def shim(folder: Path) -> Path | None:
    """The library that slows syncs, or None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source = folder / "slow_sync.c"
    source.write_text(SHIM)
    library = source.with_suffix(".so")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@contextmanager
def preloaded(library: Path | None) -> Iterator[None]:
    """Processes that are started inside load this library first."""
    if library is not None:
        os.environ["LD_PRELOAD"] = str(library)
    try:
        yield
    finally:
        os.environ.pop("LD_PRELOAD", None)


def run(options: Options) -> Report:
    """Rounds of each kind of load."""
    folder = options.folder("writer")
    seconds, numbers = (0.1, count()) if options.smoke else (2.0, count())
    kinds: dict[tuple[str, str], tuple[Kind, Kind]] = {}
    with ExitStack() as stack:
        library = shim(folder)
        disks = {"this disk": None} | ({f"{DELAY_MS} ms a sync more": library} if library else {})
        for disk, preload in disks.items():
            home = folder / f"home-{len(kinds)}"
            home.mkdir(mode=0o700)
            with preloaded(preload):
                stack.enter_context(WriterProcess(home))
            for what, rows in {"one record": record, "a job": job}.items():
                kinds[disk, what] = Kind(home, 1, rows), Kind(home, CLIENTS, rows)
        for _ in range(options.rounds):
            for pair in kinds.values():
                for kind in pair:
                    kind.measure(numbers, seconds)
    return report(kinds, library is not None)


def report(kinds: dict[tuple[str, str], tuple[Kind, Kind]], slowed: bool) -> Report:
    """Two rows for each kind of transaction and disk."""
    columns = ["transactions", "outstanding", "per s", "per commit", "p50, ms", "p99, ms", "worst, ms", "64 / 1"]
    made = Report(f"Writer: {CLIENTS} transactions outstanding against one", columns)
    for (disk, what), (one, many) in kinds.items():
        ratio = ratios(many.rate, one.rate)
        for kind in (one, many):
            figures = [spread(each) for each in (kind.rate, kind.batch, kind.p50, kind.p99, kind.worst)]
            made.rows.append([f"{what}, {disk}", str(kind.clients), *figures, ratio if kind is many else None])
        if what == "one record":
            bound = 4.0 if disk == "this disk" else 10.0
            made.targets.append(Target(f"rate with {CLIENTS} / with one, {disk}", ratio, bound, at_most=False))
            made.targets.append(Target(f"worst wait with {CLIENTS}, {disk}, ms", spread(many.worst), 50.0))
    if not slowed:
        made.notes.append("no C compiler (cc) is here, so the rows with slowed syncs are missing: apt-get install gcc")
    return made
