"""Tables of the experiment: means with 95 % intervals, ratios by paired bootstrap over seeds."""

from __future__ import annotations

import numpy as np

from tests.bench.hllm.routing import entrants


def interval(x):
    """Half of the 95 % interval of a mean (normal)."""
    return 1.96 * np.std(x, ddof=1) / np.sqrt(len(x))


def ratio(ours, theirs, draws=10_000):
    """Ratio of mean regrets, theirs over ours, with the 95 % interval of a bootstrap over seeds, paired."""
    ours, theirs = np.array(ours), np.array(theirs)
    pick = np.random.default_rng(0).integers(len(ours), size=(draws, len(ours)))
    r = theirs[pick].mean(1) / ours[pick].mean(1)
    return theirs.mean() / ours.mean(), *np.percentile(r, [2.5, 97.5])


def best(results, names):
    return min((n for n in names if n in results), key=lambda n: np.mean(results[n]["regret"]))


def show(all_results):
    for d in all_results:
        r = d["results"]
        print(f"\n#### {d['world']}: {len(d['seeds'])} seeds, {d['steps']:,} requests\n")
        print("| agent | regret (credits) | p99 latency (s) | paid per 1,000 | utility per 1,000 |")
        print("|---|---|---|---|---|")
        order = sorted(r, key=lambda n: (not n.startswith("hllm"), np.mean(r[n]["regret"])))
        for n in order:
            x = r[n]
            print(
                f"| {n} | {np.mean(x['regret']):.0f} ± {interval(x['regret']):.0f} | {np.mean(x['p99']):.2f} "
                f"| {1000 * np.mean(x['paid']):.0f} | {1000 * np.mean(x['utility']):.0f} |"
            )
        print()
    print("| world | best with posteriors | ratio to `hllm` | ratio to `hllm default` | best without | ratio |")
    print("|---|---|---|---|---|---|")
    for d in all_results:
        r = d["results"]
        given, bare = best(r, entrants.GIVEN), best(r, entrants.BARE)
        cells = [
            "{:.2f} [{:.2f}, {:.2f}]".format(*ratio(r[a]["regret"], r[b]["regret"]))
            for a, b in (("hllm", given), ("hllm default", given), ("hllm", bare))
        ]
        print(f"| {d['world']} | {given} | {cells[0]} | {cells[1]} | {bare} | {cells[2]} |")
