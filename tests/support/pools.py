"""Pools with agents, queues and faults, in simulated time: jobs are placed by the real choice and learnt from by the
real fold, and only what the agents do is made up."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hanzo_compute.routing import learning, placement
from hanzo_compute.routing.placement import Bounds, Place
from hanzo_compute.routing.snapshot import Snapshot

LEASE_MS = 15_000
LEARN_MS = 2_000
READ_MS = 5_000
BOUNDS = Bounds(begin_ms=10_000, attested_ms=86_400_000)


@dataclass(frozen=True)
class Agents:
    """The agents of one pool: how many jobs they run at a time, how long one takes, and how often one is lost."""

    slots: int = 4
    run_ms: float = 400.0
    lost: float = 0.0
    lost_from_ms: int = 0
    lost_until_ms: int = 10**12
    """Between these times."""


@dataclass
class Result:
    """Times from submission to outcome, and how often an attempt was lost."""

    took_ms: list[float] = field(default_factory=list)
    lost: int = 0
    placed: list[int] = field(default_factory=list)

    @property
    def mean_ms(self) -> float:
        return sum(self.took_ms) / len(self.took_ms)


def simulate(pools: Sequence[Agents], *, routed: bool, seed: int, jobs: int, every_ms: float) -> Result:
    """Let ``jobs`` come, one each ``every_ms`` on average, and run to the end."""
    random = Random(seed)
    result = Result(placed=[0] * len(pools))
    queues: list[deque[dict[str, Any]]] = [deque() for _ in pools]
    free = [pool.slots for pool in pools]
    events: list[tuple[float, int, str, Any]] = []
    rows: list[dict[str, Any]] = []
    learnt, read = Snapshot(), Snapshot()
    at = 0.0
    for number in range(jobs):
        at += random.expovariate(1 / every_ms)
        heapq.heappush(events, (at, number, "come", {"number": number, "since": at, "tries": 0}))
    count = jobs
    for name, period in (("learn", LEARN_MS), ("read", READ_MS)):
        heapq.heappush(events, (period, count := count + 1, name, period))
    done = 0

    def begin(pool: int, now: float) -> None:
        nonlocal count
        while free[pool] and queues[pool]:
            job = queues[pool].popleft()
            free[pool] -= 1
            agents = pools[pool]
            faulty = agents.lost_from_ms <= now < agents.lost_until_ms and random.random() < agents.lost
            run = LEASE_MS if faulty else random.expovariate(1 / agents.run_ms)
            job |= {"pool": pool, "began": now, "lost": faulty}
            heapq.heappush(events, (now + run, count := count + 1, "end", job))

    while done < jobs:
        now, _, what, data = heapq.heappop(events)
        if what == "come":
            places = [_place(number, queue, now) for number, queue in enumerate(queues)]
            pool = _choose(places, read if routed else None, data, seed, now)
            result.placed[pool] += 1
            queues[pool].append(data | {"placed": now, "ahead": len(queues[pool]), "tries": data["tries"] + 1})
            begin(pool, now)
        elif what == "end":
            pool = data["pool"]
            free[pool] += 1
            rows.append(_row(data, now))
            if data["lost"]:
                result.lost += 1
                again = {name: data[name] for name in ("number", "since", "tries")}
                heapq.heappush(events, (now, count := count + 1, "come", again))
            else:
                result.took_ms.append(now - data["since"])
                done += 1
            begin(pool, now)
        else:
            if what == "learn" and rows and routed:
                waiting = sum(map(len, queues))
                learnt = learning.fold(
                    learnt, rows, now_ms=int(now), waiting=waiting, interval_ms=30_000, begin_ms=BOUNDS.begin_ms
                ).snapshot
                rows = []
            elif what == "read":
                read = learnt
            heapq.heappush(events, (now + data, count := count + 1, what, data))
    return result


def _place(number: int, queue: deque[dict[str, Any]], now: float) -> Place:
    head = int(now - queue[0]["placed"]) if queue else 0
    return Place(f"pool-{number}", "wasm", load=len(queue), head_ms=head, price=100)


def _choose(places: list[Place], read: Snapshot | None, job: dict[str, Any], seed: int, now: float) -> int:
    if read is None:
        found = placement.least_loaded(places, "", now_ms=int(now))
    else:
        number = (seed * 1_000_003 + job["number"] * 31 + job["tries"]) % 2**32
        found = placement.choose(places, read, tier=0, seed=number, now_ms=int(now), bounds=BOUNDS)
        assert found.warning is None, found.warning
    return places.index(found.place)


def _row(job: dict[str, Any], now: float) -> dict[str, Any]:
    return {
        "at_ms": int(now),
        "pool": f"pool-{job['pool']}",
        "runtime": "wasm",
        "category": "lapsed" if job["lost"] else "ok",
        "wait_ms": int(job["began"] - job["placed"]),
        "run_ms": int(now - job["began"]),
        "ahead": job["ahead"],
        "tier": 0,
    }
