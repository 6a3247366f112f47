"""Whether the router's information term earns its place in the mode `sampled`: a rule, written before it was run.

Seeds 2000 to 2019, 3,000 requests, four runs of each setting per seed, settings of settings.json; the worlds easy,
hard, interaction and drift. The ratio is the mean regret with curiosity 0 over that with curiosity 1, its interval the
95 % bootstrap over seeds, paired. Rule: if the interval's upper end is at most 1.02 in all four worlds, curiosity 0
becomes the default of that mode; else the default stays 1.
"""

from __future__ import annotations

import time

import numpy as np

from tests.bench.hllm.routing import entrants, report, warm, worlds

WORLDS = ("easy", "hard", "interaction", "drift")
SEEDS = tuple(range(2000, 2020))
STEPS, RUNS, BOUND = 3000, 4, 1.02


def play(world_name, setting, seeds=SEEDS, steps=STEPS, runs=RUNS):
    """Mean regrets by seed, (with curiosity 0, with curiosity 1)."""
    world = worlds.make(world_name, seeds, steps)
    beliefs = warm.beliefs(world)
    out = []
    for name in ("hllm without information gain", "hllm"):
        agent = entrants.make(name, seeds, [setting] * runs, 4, world, beliefs)
        out.append(worlds.run(world, agent, runs)["regret"].reshape(len(seeds), runs).mean(1))
    return tuple(out)


def main(settings):
    most = 0.0
    for name in WORLDS:
        began = time.process_time()
        without, ours = play(name, settings[name]["hllm"]["setting"])
        ratio, low, high = report.ratio(ours, without)
        most = max(most, high)
        print(
            f"{name}: curiosity 0 {np.mean(without):.1f}, 1 {np.mean(ours):.1f}, ratio {ratio:.3f} [{low:.3f}, "
            f"{high:.3f}], {time.process_time() - began:.0f} s",
            flush=True,
        )
    print(f"the largest upper end is {most:.3f}: the default {'becomes 0' if most <= BOUND else 'stays 1'}")
