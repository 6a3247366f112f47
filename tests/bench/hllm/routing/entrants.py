"""Who takes part: six settings of each, of which one is chosen per world on the tuning seeds."""

from __future__ import annotations

import numpy as np

from hllm.router import RouterSettings
from tests.bench.hllm.routing import agents
from tests.bench.hllm.routing.batched import Hllm, Unfactored

GRID = {
    "ucb1": [{"c": c} for c in (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)],
    "d-ucb": [{"c": c, "keep": k} for c in (0.03, 0.1, 0.3) for k in (0.999, 0.99)],
    "epsilon-greedy": [{"scale": s} for s in (1, 3, 10, 30, 100, 300)],
    "thompson": [{"prior": p, "sharp": s} for p, s in ((1, 0.5), (1, 1), (1, 3), (1, 10), (1, 30), (0.5, 3))],
    "linucb": [{"alpha": a, "crossed": 0} for a in (0.03, 0.1, 0.2, 0.3, 1.0, 2.0)],
    "linucb+": [{"alpha": a, "crossed": c} for c in (0, 1) for a in (0.3, 1.0, 2.0)],
    "cheapest+": [{"slack": s} for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)],
    "least-loaded+": [{"slack": s} for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)],
    "hllm": [{"forgetting": f, "backoff": b} for f in (1.0, 0.999, 0.995) for b in (4.0, 12.0)],
}
"""By entrant; a `+` has our posteriors and, where it is not named here, the settings of the one without."""

BARE = ("ucb1", "d-ucb", "linucb", "thompson", "epsilon-greedy", "least-loaded", "cheapest")
GIVEN = tuple(f"{name}+" for name in BARE)
DEFAULT = {"forgetting": RouterSettings().forgetting, "backoff": RouterSettings().backoff}
ABLATIONS = ("hllm default", "hllm without information gain", "hllm unfactored", "hllm factored only", "hllm expected")


def grid(name):
    """The settings that are tuned; one empty setting where there is nothing to tune."""
    return GRID.get(name) or GRID.get(name.rstrip("+")) or [{}]


def make(name, seeds, some, seed, world, beliefs):
    """An agent with these settings, one run of each per seed."""
    each = {k: np.tile(np.array([s[k] for s in some], dtype=float), len(seeds)) for k in some[0]}
    args = (seeds, len(some), seed, beliefs if name.endswith("+") else None)
    kind = name.rstrip("+")
    if kind == "ucb1":
        return agents.UCB1(*args, c=each["c"])
    if kind == "d-ucb":
        return agents.DUCB(*args, c=each["c"], keep=each["keep"])
    if kind == "epsilon-greedy":
        return agents.EpsilonGreedy(*args, scale=each["scale"])
    if kind == "thompson":
        return agents.Thompson(*args, prior=each["prior"], sharp=each["sharp"])
    if kind == "linucb":
        assert len({s["crossed"] for s in some}) == 1
        return agents.LinUCB(*args, alpha=each["alpha"], crossed=bool(some[0]["crossed"]), world=world)
    if kind in ("cheapest", "least-loaded") and beliefs is not None and name.endswith("+"):
        return agents.NearBest(*args, slack=each["slack"], by="price" if kind == "cheapest" else "load")
    if kind == "least-loaded":
        return agents.LeastLoaded(*args)
    if kind == "cheapest":
        return agents.Cheapest(*args)
    settings = [RouterSettings(**s) for s in some]
    if name == "hllm expected":
        settings = [RouterSettings(**s, mode="expected") for s in some]
    if name == "hllm factored only":
        settings = [RouterSettings(**{**s, "backoff": 0.0}) for s in some]
    if name == "hllm unfactored":
        return Unfactored(seeds, settings, seed, beliefs)
    return Hllm(seeds, settings, seed, beliefs, information=name != "hllm without information gain")


def groups(name, some):
    """Indices of the settings that can run as one agent."""
    keys = [s.get("crossed") for s in some]
    return [[i for i, k in enumerate(keys) if k == key] for key in dict.fromkeys(keys)]
