"""Time for each placement, with the router and by the shortest queue, in one process.

``python -m tests.bench.hllm.placement``. A placement is the dispatch service on the memory store, from the job's record
to the transaction that places it, its trace included. Both ways alternate; medians are of a round's CPU time divided by
its jobs. Beside it stands the choice alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

from hanzo_compute.config import LEAST_LOADED, Policy, Pool
from hanzo_compute.model import keys
from hanzo_compute.ports import Put
from hanzo_compute.routing import placement
from hanzo_compute.routing.placement import Bounds, Place
from hanzo_compute.services import learn, place
from tests.support.stepped import Platform

BOUNDS = Bounds(10_000, 86_400_000)


def platform_of(pools: int) -> Platform:
    """A platform that has learnt of each of its pools."""
    names = [Pool(f"pool-{number:02d}", frozenset({"wasm"})) for number in range(pools)]
    made = Platform(Policy(pools=tuple(names)))
    now = made.clock.now_ms()
    for number in range(max(50, 4 * pools)):
        row = {"at_ms": now, "pool": f"pool-{number % pools:02d}", "runtime": "wasm", "category": "ok"}
        row |= {"wait_ms": 20 + number, "run_ms": 100, "ahead": number % 3, "tier": 0}
        made.store.transact([Put(keys.observed(now, f"j-{number}", 1), row)])
    learn.learn(made.ctx)
    return made


def placed_us(platform: Platform, routing: str, jobs: int, batch: int) -> float:
    """CPU time for each job, µs, of placing ``jobs`` jobs in batches."""
    ctx = replace(platform.ctx, policy=replace(platform.ctx.policy, routing=routing))
    ids = [platform.submitted() for _ in range(jobs)]
    begin = time.process_time()
    for first in range(0, jobs, batch):
        place.place(ctx, ids[first : first + batch])
    taken = time.process_time() - begin
    for job_id in ids:  # the queues are as long at each round
        record = platform.store.get(keys.job(job_id), fresh=True)
        assert record is not None
        assert record.body["state"] == "placed"
        platform.store.transact([Put(record.key, record.body, expect=record.rev)])
    return taken / jobs * 1e6


def choice_us(decide: Callable[[int], object], count: int) -> float:
    """CPU time for each choice, µs."""
    begin = time.process_time()
    for number in range(count):
        decide(number)
    return (time.process_time() - begin) / count * 1e6


def measure(pools: int, rounds: int, jobs: int) -> dict[str, float]:
    """Medians over rounds, µs, and bytes of a trace."""
    platform = platform_of(pools)
    _, known = learn.stored(platform.ctx)
    places = [Place(f"pool-{number:02d}", "wasm", load=number % 5, price=100) for number in range(pools)]
    found: dict[str, list[float]] = {"hllm": [], LEAST_LOADED: [], "choice hllm": [], "choice least_loaded": []}
    for number in range(rounds + 1):  # the first warms up
        one = {
            "hllm": placed_us(platform, "hllm", jobs, 10),
            LEAST_LOADED: placed_us(platform, LEAST_LOADED, jobs, 10),
            "choice hllm": choice_us(
                lambda n: placement.choose(places, known, tier=0, seed=n, now_ms=9, bounds=BOUNDS), jobs
            ),
            "choice least_loaded": choice_us(lambda _: placement.least_loaded(places, "", known, now_ms=9), jobs),
        }
        for name, value in one.items():
            if number:
                found[name].append(value)
    choice = placement.choose(places, known, tier=0, seed=1, now_ms=9, bounds=BOUNDS)
    size = len(json.dumps(choice.trace, separators=(",", ":")))
    return {name: statistics.median(values) for name, values in found.items()} | {"trace bytes": size}


def main(arguments: list[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--pools", default="1,3,50")
    options = parser.parse_args(arguments)
    print("| pools | least loaded, µs | router, µs | ratio | choice: least loaded | router | trace, bytes |")
    print("|---|---|---|---|---|---|---|")
    for pools in map(int, options.pools.split(",")):
        found = measure(pools, options.rounds, options.jobs)
        ratio = found["hllm"] / found[LEAST_LOADED]
        print(
            f"| {pools} | {found[LEAST_LOADED]:.0f} | {found['hllm']:.0f} | {ratio:.2f} | "
            f"{found['choice least_loaded']:.0f} | {found['choice hllm']:.0f} | {found['trace bytes']:.0f} |"
        )


if __name__ == "__main__":
    main()
