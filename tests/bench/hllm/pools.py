"""Pools in simulated time, with the router and by the shortest queue: ``python -m tests.bench.hllm.pools``.

Jobs come at random and are placed by the real choice, which learns by the real fold; what agents do is made up. The
mean time from submission to outcome is that of all seeds.
"""

from __future__ import annotations

import argparse
import statistics

from tests.support.pools import Agents, simulate

WORLDS: dict[str, tuple[list[Agents], float]] = {
    "one": ([Agents()], 130),
    "two equal": ([Agents(), Agents()], 70),
    "two equal, 93 % load": ([Agents(), Agents()], 54),
    "three equal": ([Agents()] * 3, 45),
    "three equal, 93 % load": ([Agents()] * 3, 36),
    "fast first, slow": ([Agents(), Agents(run_ms=1600)], 100),
    "8 slots, 1 slot": ([Agents(slots=8), Agents(slots=1)], 60),
    "one of two loses half": ([Agents(), Agents(lost=0.5)], 150),
    "one of three loses 90 %": ([Agents(), Agents(), Agents(lost=0.9)], 80),
    "one of two loses all for 40 s": ([Agents(), Agents(lost=1.0, lost_from_ms=20_000, lost_until_ms=60_000)], 120),
}
"""Pools, and the mean time between two jobs, ms."""


def main(arguments: list[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=1500)
    parser.add_argument("--only", choices=WORLDS, default=None)
    options = parser.parse_args(arguments)
    print("| pools | router, ms | least loaded, ms | ratio | lost: router | least loaded |")
    print("|---|---|---|---|---|---|")
    for name, (pools, every_ms) in WORLDS.items():
        if options.only not in (None, name):
            continue
        routed, by_load = (
            [
                simulate(pools, routed=way, seed=seed, jobs=options.jobs, every_ms=every_ms)
                for seed in range(options.seeds)
            ]
            for way in (True, False)
        )
        mine, theirs = (statistics.mean(each.mean_ms for each in found) for found in (routed, by_load))
        lost = [sum(each.lost for each in found) for found in (routed, by_load)]
        print(f"| {name} | {mine:.1f} | {theirs:.1f} | {mine / theirs:.3f} | {lost[0]} | {lost[1]} |", flush=True)


if __name__ == "__main__":
    main()
