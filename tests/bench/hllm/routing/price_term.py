"""The price term: does a router do better with the market's forecast of what a job will pay than with what is posted?

    python -m tests.bench.hllm.routing.price_term tune [WORLD ...]     writes price_settings.json
    python -m tests.bench.hllm.routing.price_term run [WORLD ...]      fresh seeds, prints the tables

A job pays the price at which it begins, 1 to 20 requests after it was routed, and all agents know how long that is on
each backend. What an agent takes for the price is the posted one, the `forecast` of hllm.market, a linear
`regression`, or, as a bound, what will be `known`. Each agent's settings are tuned for the posted and for the forecast
price, on seeds 0-5; with the other two it has those of the forecast. Regret is against an oracle that knows the rates
and the price that will be paid, which no agent can: ratios are nearer to 1 than against one that must forecast.

The worlds surges and market were run first, on seeds 3000-3019 with two runs of each. Even to know the price gained
nothing there that could be told from noise, but in one of four places; so the dear ones were added, and run on seeds
4000-4019 with four.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.bench.hllm.routing import entrants, forecasts, prices, report, warm, worlds

SETTINGS = Path(__file__).parent / "price_settings.json"
OURS, PEERS = "hllm", ("linucb+", "thompson+", "ucb1+", "d-ucb+", "cheapest+", "epsilon-greedy+")
TUNING, STEPS_TUNING, STEPS = tuple(range(6)), 1500, 2000
FRESH = {
    name: (tuple(range(4000, 4020)), 4) if "dear" in name else (tuple(range(3000, 3020)), 2) for name in prices.WORLDS
}
"""Seeds, and runs of each."""
PRICES = ("posted", "forecast", "regression", "known")


def make(name, waits, seeds, steps):
    """(worlds by what is taken for the price, beliefs, P(P > cap) and whether it was)."""
    world = worlds.make(name, seeds, steps)
    beliefs = warm.beliefs(world)
    after = prices.WAITS[waits]
    paid = prices.settled(world.posted, after)[worlds.WARM :]
    told, caps = forecasts.views(
        world.posted, world.excess, warm.regimes(world, beliefs.states), beliefs.regime, after
    )  # fmt: skip
    told |= {"posted": world.posted[worlds.WARM : worlds.WARM + steps], "known": paid}
    by_price = {k: replace(world, price=arms(told[k]), settled=arms(paid)) for k in PRICES}
    return by_price, beliefs, {"told": told, "paid": paid, "caps": caps}


def arms(backends):
    """(T, R, 6) prices of the routes from those of the backends."""
    return worlds.MODEL_PRICE[worlds.MODEL_OF] + backends[..., worlds.BACKEND_OF]


def tune(name, waits, seeds=TUNING, steps=STEPS_TUNING):
    """The best setting of each agent by mean regret, for the posted and for the forecast price."""
    by_price, beliefs, _ = make(name, waits, seeds, steps)
    out = {}
    for agent in (OURS, *PEERS):
        some = entrants.grid(agent)
        for price in ("posted", "forecast"):
            regret = np.zeros(len(some))
            for at in entrants.groups(agent, some):
                player = entrants.make(agent, seeds, [some[i] for i in at], 1, by_price[price], beliefs)
                regret[at] = worlds.run(by_price[price], player, len(at))["regret"].reshape(-1, len(at)).mean(0)
            out.setdefault(agent, {})[price] = some[int(regret.argmin())]
        print(name, waits, agent, out[agent], flush=True)
    return out


def play(name, waits, settings, seeds, runs, steps=STEPS):
    """Means by seed of every agent with every price, and how well prices were told."""
    by_price, beliefs, seen = make(name, waits, seeds, steps)
    results = {}
    for agent in (OURS, *PEERS):
        for price in PRICES:
            setting = settings[agent]["posted" if price == "posted" else "forecast"]
            player = entrants.make(agent, seeds, [setting] * runs, 2, by_price[price], beliefs)
            out = worlds.run(by_price[price], player, runs)
            results[agent, price] = {k: v.reshape(len(seeds), runs).mean(1) for k, v in out.items()}
    return results, accuracy(seen)


def accuracy(seen):
    """The error of each price, root mean square over that of the posted one; and Brier scores of P(P > cap): the
    market's, that of the posted price taken as certain, that of how often it is so."""
    told, paid, caps = seen["told"], seen["paid"], seen["caps"]
    rms = {k: float(np.sqrt(((told[k] - paid) ** 2).mean())) for k in PRICES[:3]}
    over = (paid > caps).astype(float)
    brier = [float(((p - over) ** 2).mean()) for p in (told["exceeds"], 1.0 * (told["posted"] > caps), over.mean())]
    return {k: v / rms["posted"] for k, v in rms.items()}, brier


def show(name, waits, results, told):
    """Prints a place's rows: regrets, and ratios of the regret with the posted price over that with another."""
    peer = min(PEERS, key=lambda a: min(results[a, p]["regret"].mean() for p in PRICES[:2]))
    for agent in (OURS, peer):
        base = results[agent, "posted"]
        row = [f"{name}, {waits}", agent, f"{base['regret'].mean():.0f}"]
        for price in PRICES[1:]:
            x = results[agent, price]
            ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*report.ratio(x["regret"], base["regret"]))
            row.append(f"{x['regret'].mean():.0f}: {ratio}")
        row += [
            " / ".join(f"{1000 * results[agent, p][key].mean():.0f}" for p in PRICES[:2]) for key in ("paid", "utility")
        ]
        print(f"| {' | '.join(row)} |", flush=True)
    ours, theirs = results[OURS, "forecast"]["regret"], results[peer, "forecast"]["regret"]
    print("  both with the forecast, theirs over ours: {:.2f} [{:.2f}, {:.2f}]".format(*report.ratio(ours, theirs)))
    errors = ", ".join(f"{k} {v:.2f}" for k, v in told[0].items())
    print(f"  errors: {errors}; Brier: " + " / ".join(f"{x:.3f}" for x in told[1]), flush=True)


def main(arguments):
    command, names = (arguments or [""])[0], arguments[1:] or prices.WORLDS
    if command not in ("tune", "run"):
        raise SystemExit(__doc__)
    settings = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
    for name, waits in ((n, w) for n in names for w in prices.WAITS):
        key = f"{name}, {waits}"
        if command == "tune":
            settings[key] = tune(name, waits)
            SETTINGS.write_text(json.dumps(settings, indent=1) + "\n")
        else:
            show(name, waits, *play(name, waits, settings[key], *FRESH[name]))


if __name__ == "__main__":
    main(sys.argv[1:])
