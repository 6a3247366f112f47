"""Against the shortest queue, with one to three pools: never worse, and better where a pool fails.

Who is faster stands first in one run and last in the next: the shortest queue takes the first pool on a tie, which is
luck. All is simulated with given seeds, so the figures are the same at every run.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.pools import Agents, simulate

SEEDS = range(2)
JOBS = 300


def times(pools: Sequence[Agents], every_ms: float) -> tuple[float, float]:
    """Mean time from submission to outcome, ms: with the router, and by the shortest queue."""
    orders = [tuple(pools)] if len(set(pools)) == 1 else [tuple(pools), tuple(reversed(pools))]
    found: dict[bool, list[float]] = {True: [], False: []}
    for order in orders:
        for seed in SEEDS:
            for routed, means in found.items():
                means.append(simulate(order, routed=routed, seed=seed, jobs=JOBS, every_ms=every_ms).mean_ms)
    return sum(found[True]) / len(found[True]), sum(found[False]) / len(found[False])


@pytest.mark.parametrize(
    ("pools", "every_ms"),
    [
        ([Agents()], 130),
        ([Agents(), Agents()], 70),
        ([Agents(), Agents(), Agents()], 45),
        ([Agents(), Agents(run_ms=1600)], 110),
        ([Agents(slots=8), Agents(slots=1)], 60),
    ],
    ids=["one", "two", "three", "one is slow", "one is small"],
)
def test_pools_that_work_are_used_no_worse(pools: Sequence[Agents], every_ms: float) -> None:
    routed, by_load = times(pools, every_ms)
    assert routed <= 1.03 * by_load


@pytest.mark.parametrize(
    ("pools", "every_ms"),
    [([Agents(), Agents(lost=0.5)], 150), ([Agents(), Agents(), Agents(lost=0.9)], 80)],
    ids=["one of two", "one of three"],
)
def test_a_pool_that_loses_attempts_is_left_alone(pools: Sequence[Agents], every_ms: float) -> None:
    routed, by_load = times(pools, every_ms)
    assert routed <= 0.85 * by_load
