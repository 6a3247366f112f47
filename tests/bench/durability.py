"""Accepted jobs when a process is killed in the middle: the platform, and Dramatiq with Redis.

Method. 100 jobs of some tens of milliseconds are accepted (the call has returned), then, when about a quarter has run,
one process is killed with SIGKILL: the one that stores (our writer, Redis) or all that run jobs (our agent with its
workers, Dramatiq's workers). Our supervisor starts what was killed again, for the peer this script does so after half a
second. When nothing more happens it is counted how many of the accepted jobs never ran to an outcome, how many ran
more than once, and how many have more than one outcome. A job of the peer that ran twice has had its effect twice; of
ours at most one attempt's outcome is accepted, whatever ran. Redis runs synced (appendfsync always) and as it comes.

What it does not show. Power loss: a killed process loses nothing of what it had handed to the kernel. One kill at one
moment is an example, not a campaign: see tests/chaos. Both systems promise at-least-once execution. Dramatiq finds out
that a worker is gone by a heartbeat, looked at in one of a thousand commands: a minute and some, here set to 5 s and
one of ten so that this ends. We find out by the agent's return, or a lease of 15 s.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from hanzo_compute.errors import ComputeError
from tests.bench import dramatiq_worker, load
from tests.bench.dramatiq_worker import Workers, working
from tests.bench.jobs import SLOTS
from tests.bench.options import Options
from tests.bench.redis_server import DEFAULT, DURABLE, RedisServer
from tests.bench.report import Report
from tests.support.live import ECHO, Platform, compiled, pages, until

RESTART_S = 0.5
QUIET_S = 12.0
"""Nothing has run for so long: nothing more will. Longer than the heartbeat by which Dramatiq finds what was lost."""
REPAIR_S = 120.0
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "timed_out", "expired", "dead"})


@dataclass(frozen=True)
class Found:
    """What became of the accepted jobs."""

    accepted: int
    lost: int
    repeated: int
    outcomes_twice: int
    seconds: float
    """From the kill to the last job's end."""


def ours(home: Path, victim: str, count: int) -> Found:
    """Kill the writer or the agent with its workers."""
    with Platform(home, slots=SLOTS) as platform:
        module = platform.client().upload_blob(compiled(ECHO))
        requests = [load.request("POST", "/v1/jobs", platform.key, {"source": {"module": module}})] * count
        ids = [answer.json()["id"] for answer in load.accepted(load.drive(platform.port, requests, connections=8), 201)]
        client = platform.client()
        until(lambda: sum(job["state"] in TERMINAL for job in pages(client)) >= count // 4, 120, "a quarter has run")
        pid = platform.pid(victim)
        assert pid is not None
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        time.sleep(RESTART_S)
        seconds = _all_ended(platform, count) - killed
        assert {job["id"] for job in pages(client)} >= set(ids)
        events = {job: [each["type"] for each in client.events(job)] for job in ids}
    runs = [kinds.count("running") for kinds in events.values()]
    ends = [sum(kind in TERMINAL for kind in kinds) for kinds in events.values()]
    return Found(count, ends.count(0), sum(n > 1 for n in runs), sum(n > 1 for n in ends), seconds)


def _all_ended(platform: Platform, count: int) -> float:
    """Wait until all have ended, or longer than any repair takes; when that was."""
    deadline = time.monotonic() + REPAIR_S
    while time.monotonic() < deadline:
        # While a process is down the API says so, or nothing.
        with suppress(ComputeError):
            if sum(job["state"] in TERMINAL for job in pages(platform.client())) >= count:
                break
        time.sleep(0.1)
    return time.monotonic()


def theirs(folder: Path, settings: tuple[str, ...], victim: str, count: int) -> Found:
    """Kill Redis or all of Dramatiq's workers."""
    folder.mkdir()
    with RedisServer(folder / "redis", settings) as server, working(server, folder, soon=True) as workers:
        application = dramatiq_worker.application(server)
        for number in range(count):
            application.traced.send(number)
        until(lambda: len(_ran(workers)) >= count // 4, 120, "a quarter has run")
        killed = time.monotonic()
        target = server if victim == "redis" else workers
        target.kill()
        time.sleep(RESTART_S)
        target.start()
        last = _quiet(server, workers)
    ran = Counter(_ran(workers))
    lost = sum(str(number) not in ran for number in range(count))
    repeated = sum(n > 1 for n in ran.values())
    return Found(count, lost, repeated, 0, last - killed)


def _ran(workers: Workers) -> list[str]:
    return workers.effects.read_text().split()


def _quiet(server: RedisServer, workers: Workers) -> float:
    """Wait until nothing has run for a while, or nothing is left to run; when the last job began."""
    seen, last = len(_ran(workers)), time.monotonic()
    while time.monotonic() - last < QUIET_S:
        time.sleep(0.1)
        if len(_ran(workers)) != seen:
            seen, last = len(_ran(workers)), time.monotonic()
        try:
            if time.monotonic() - last > 1 and not dramatiq_worker.unfinished(server):
                break
        except redis.RedisError:
            continue
    return last


def run(options: Options) -> Report:
    """Each kill once."""
    folder, count = options.folder("durability"), options.size(100, 12)
    made = Report(
        "Accepted jobs when a process is killed",
        ["", "accepted", "lost", "ran more than once", "more than one outcome", "s to the last end"],
    )
    found: dict[str, Found] = {}
    for victim, name in (("writer", "writer"), ("agent-1", "agent and workers")):
        found[f"platform, {name} killed"] = ours(folder / f"home-{victim}", victim, count)
        options.say(f"platform, {name} killed")
    for settings, form in ((DURABLE, "synced Redis"), (DEFAULT, "Redis as it comes")):
        for victim in ("redis", "workers"):
            name = f"Dramatiq, {form}, {victim} killed"
            found[name] = theirs(folder / name.replace(" ", "-").replace(",", ""), settings, victim, count)
            options.say(name)
    for name, each in found.items():
        counts = (each.accepted, each.lost, each.repeated, each.outcomes_twice)
        made.rows.append([name, *map(str, counts), each.seconds])
    return made
