"""Platform CPU of a small WASM job, and how soon it ends.

Method. `hzc up` with one front, one agent and two slots. In each round 1,000 jobs of one small module (it writes five
bytes) are submitted over HTTP as fast as the front takes them, and the round ends when all are at rest: outcome
durable, completion handled, nothing due. CPU is read from the kernel for each process of the platform; the
load generator is a process of its own and not counted. Beside it, in the same round, the runner alone is given the
same 1,000 attempts with the same slots, in a process that does nothing else: its CPU and its workers' is the raw cost.
What the platform costs is the difference. The latency is from the arrival of the 2xx at the client to the time of the
outcome in the job's record, on one clock; since all jobs come at once, most of it is waiting in line.

What it does not show. Real programs, which compute longer: the cost is per job, whatever it does. Machines with more
cores, on which the processes would not wait for each other. The time at which the outcome is durable is later than the
record's by one commit. The kernel tells user from system CPU in steps of 10 ms, over a round of seconds.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hanzo_compute.adapters.local import schema
from tests.bench import cpu, load
from tests.bench.cpu import Cpu
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, spread
from tests.support.live import Platform, children, compiled, pages, until

SLOTS = 2
CONNECTIONS = 32
WARM_UP = 50
PLATFORM_MS = 3.0

SMALL = """
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "done\\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 5))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))))
"""
"""A module that writes five bytes to standard output."""

PROCESSES = ("front-1", "writer", "pump", "agent-1")


@dataclass(frozen=True)
class Raw:
    """The runner alone: seconds for all attempts, CPU of its process and of its workers."""

    seconds: float
    runner: Cpu
    workers: Cpu

    @property
    def cpu(self) -> Cpu:
        return self.runner + self.workers


@dataclass(frozen=True)
class Round:
    """The platform: seconds from the first request to the last job at rest, CPU by process, latency of each job."""

    seconds: float
    processes: dict[str, Cpu]
    latencies_ms: list[float]


def readings(platform: Platform) -> dict[str, Cpu]:
    """CPU so far of each process, and of all workers of the agent, those that have been replaced included."""
    pids = {name: platform.pid(name) for name in PROCESSES}
    found = {name: cpu.of(pid) for name, pid in pids.items() if pid is not None}
    agent = pids["agent-1"]
    assert agent is not None
    return found | {"workers": cpu.of_all(children(agent)) + cpu.of(agent, reaped=True)}


def at_rest(platform: Platform) -> bool:
    """True when no job is due or waits in a pool, and no message waits; read without the platform's help."""
    path = schema.path_of(platform.home)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        found = db.execute(
            "SELECT EXISTS (SELECT 1 FROM entries WHERE name = 'due'), EXISTS (SELECT 1 FROM messages),"
            " EXISTS (SELECT 1 FROM entries WHERE name = 'pool')"
        ).fetchone()
    return not any(found)


def submit(platform: Platform, module: str, count: int) -> dict[str, load.Answer]:
    """Submit ``count`` jobs at once; the answers by id of the job."""
    body = {"source": {"module": module}}
    requests = [load.request("POST", "/v1/jobs", platform.key, body)] * count
    answers = load.accepted(load.drive(platform.port, requests, connections=CONNECTIONS), 201)
    return {answer.json()["id"]: answer for answer in answers}


def run_round(platform: Platform, module: str, count: int) -> Round:
    """Submit, wait for rest, and look at what it cost."""
    before = readings(platform)
    answers = submit(platform, module, count)
    until(lambda: at_rest(platform), 300, "all jobs are at rest")
    used = cpu.passed(before, readings(platform))
    jobs = {str(job["id"]): job for job in _newest(platform, count)}
    ended = {job: datetime.fromisoformat(str(jobs[job]["finished_at"])).timestamp() for job in answers}
    assert all(jobs[job]["state"] == "succeeded" for job in answers)
    latencies = [max(0.0, ended[job] - answer.received) * 1000 for job, answer in answers.items()]
    seconds = max(ended.values()) - min(answer.sent for answer in answers.values())
    return Round(seconds, used, latencies)


def _newest(platform: Platform, count: int) -> Iterator[dict[str, object]]:
    listed = pages(platform.client())
    return (job for job, _ in zip(listed, range(count), strict=False))


def run_raw(folder: Path, count: int, warm_up: int) -> Raw:
    """The runner alone, in a process of its own."""
    folder.mkdir()
    command = [sys.executable, "-m", "tests.bench.raw_runner", str(folder), *map(str, (SLOTS, count, warm_up))]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, input=compiled(SMALL), stdout=subprocess.PIPE, cwd=root, timeout=300, check=True)
    found = json.loads(done.stdout)
    return Raw(found["seconds"], Cpu(*found["runner"]), Cpu(*found["workers"]))


@contextmanager
def warm_platform(home: Path, warm_up: int = WARM_UP) -> Iterator[tuple[Platform, str]]:
    """A platform whose module is uploaded and compiled and whose workers run; and the module's blob."""
    with Platform(home, slots=SLOTS) as platform:
        module = platform.client().upload_blob(compiled(SMALL))
        submit(platform, module, warm_up)
        until(lambda: at_rest(platform), 120, "the jobs of the warm-up are at rest")
        yield platform, module


def run(options: Options) -> Report:
    """Rounds of the platform and of the runner alone, interleaved."""
    count, warm_up = options.size(1000, 20), options.size(WARM_UP, 4)
    rounds: list[Round] = []
    raws: list[Raw] = []
    with warm_platform(options.folder("jobs") / "home", warm_up) as (platform, module):
        for number in range(options.rounds):
            rounds.append(run_round(platform, module, count))
            raws.append(run_raw(options.work / f"raw-{number}", count, warm_up))
            options.say(f"jobs {number + 1}/{options.rounds}: {rounds[-1].seconds:.1f} s, raw {raws[-1].seconds:.1f} s")
    return report(rounds, raws, count)


def report(rounds: list[Round], raws: list[Raw], count: int) -> Report:
    """CPU by process in ms per job, then what follows from it."""
    made = Report(f"{count:,} small WASM jobs at once", ["ms of CPU per job", "user", "system", "both"])

    def row(name: str, costs: list[Cpu]) -> list[float]:
        shares = [cost.each(count) for cost in costs]
        both = [share.total * 1000 for share in shares]
        user, system = ([1000 * getattr(share, side) for share in shares] for side in ("user", "system"))
        made.rows.append([name, spread(user), spread(system), spread(both)])
        return both

    for name in rounds[0].processes:
        row(name, [each.processes[name] for each in rounds])
    row("platform, all", [sum(each.processes.values(), Cpu()) for each in rounds])
    row("raw: runner alone", [each.runner for each in raws])
    row("raw: its workers", [each.workers for each in raws])
    pairs = zip(rounds, raws, strict=True)
    cost = row("platform without raw", [sum(a.processes.values(), Cpu()) - b.cpu for a, b in pairs])
    made.targets.append(Target("platform CPU per job, ms", spread(cost), PLATFORM_MS))
    for share in (0.5, 0.99):
        found = spread([percentile(each.latencies_ms, share) for each in rounds])
        made.notes.append(f"p{share * 100:.0f} from 2xx to outcome, ms: {found}")
    made.notes.append(f"jobs/s, first request to last outcome: {spread([count / each.seconds for each in rounds])}")
    made.notes.append(f"jobs/s of the runner alone: {spread([count / each.seconds for each in raws])}")
    return made
