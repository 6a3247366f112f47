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
    print("| world | regret | best with posteriors | ratio | best without | ratio | p99, s | paid | utility |")
    print("|---|---|---|---|---|---|---|---|---|")
    for d in all_results:
        r = d["results"]
        given, bare = best(r, entrants.GIVEN), best(r, entrants.BARE)
        ratios = ["{:.2f} [{:.2f}, {:.2f}]".format(*ratio(r["hllm"]["regret"], r[x]["regret"])) for x in (given, bare)]
        more = [
            f"{scale * np.mean(r['hllm'][key]):.{digits}f} / {scale * np.mean(r[given][key]):.{digits}f}"
            for key, scale, digits in (("p99", 1, 2), ("paid", 1000, 0), ("utility", 1000, 0))
        ]
        ours, theirs, other = (f"{np.mean(r[x]['regret']):.0f}" for x in ("hllm", given, bare))
        cells = [d["world"], ours, f"{given} {theirs}", ratios[0], f"{bare} {other}", ratios[1], *more]
        print(f"| {' | '.join(cells)} |")
    print("\n`hllm default` beside the best with posteriors, and the ablations' regret over that of `hllm`:\n")
    for d in all_results:
        r = d["results"]
        default = ratio(r["hllm default"]["regret"], r[best(r, entrants.GIVEN)]["regret"])
        print(f"- {d['world']}: default {default[0]:.2f} [{default[1]:.2f}, {default[2]:.2f}]", end="")
        for name in entrants.ABLATIONS[1:]:
            if name in r:
                x = ratio(r["hllm"]["regret"], r[name]["regret"])
                print(f"; {name[5:]} {x[0]:.2f} [{x[1]:.2f}, {x[2]:.2f}]", end="")
        print()
