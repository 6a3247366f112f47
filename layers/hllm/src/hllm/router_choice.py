"""The choice of a route: hard constraints first, then the least expected free energy, with load as the tie break."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hllm.router_state import Array, RouterState
from hllm.router_terms import Draws, entropy, moments, outcomes
from hllm.routes import Candidate, Request


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that a hard constraint rules out: the predicate that failed first, and its numbers."""

    action: str
    predicate: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Every term of every route, each (N,): utility and price in credits, probabilities ``ok`` and ``met``, the rest in
    nats. With curiosity 1, ``efe`` = ``risk`` + ``ambiguity`` - ``gain``."""

    efe: Array
    utility: Array
    risk: Array
    ambiguity: Array
    information: Array
    gain: Array
    ok: Array
    met: Array
    price: Array


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was rejected, the terms of all routes (None: there are none), the index chosen, and why."""

    rejected: tuple[Rejected, ...]
    terms: Terms | None
    chosen: int | None
    why: str


def evaluate(
    state: RouterState, request: Request, routes: Sequence[Candidate], draws: Draws, domain: Array, regime: Array
) -> Terms:
    """Every term of every route, each (N,)."""
    s = state.settings
    quality, service = outcomes(draws, domain, regime)
    price = np.array([r.price for r in routes], dtype=np.float64)
    utility = request.value * quality.good - request.miss_cost * (1 - service.good) - price
    of_quality, of_service = entropy(np.array([quality.good, service.good]))
    surprise = of_quality + of_service
    ambiguity = quality.ambiguity + service.ambiguity
    information = (surprise - ambiguity).clip(min=0.0)
    gain = quality.gain + service.gain
    norm = _softplus(s.gamma * request.value) + _softplus(-s.gamma * request.miss_cost)
    value = norm - s.gamma * utility
    efe = value - s.curiosity * (information + gain)
    return Terms(
        efe=efe,
        utility=utility,
        risk=value - surprise,
        ambiguity=ambiguity,
        information=information,
        gain=gain,
        ok=quality.good,
        met=service.good,
        price=price,
    )


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def choose(
    state: RouterState, request: Request, routes: Sequence[Candidate], draws: Draws, domain: Array, regime: Array
) -> Choice:
    """Screens the routes, computes the terms of all of them and takes one of those that the constraints leave."""
    left, rejected = screen(request, routes)
    terms = evaluate(state, request, routes, draws, domain, regime)
    if not left:
        return Choice(rejected, terms, None, "no candidate: every one fails a hard constraint")
    if len(left) == 1:
        return Choice(rejected, terms, left[0], "the only candidate that the constraints leave")
    loads = [r.load for r in routes]
    rows = draws.rows
    if not any(map(rows.known.__getitem__, left)):
        i = min(left, key=lambda i: (loads[i], routes[i].price, routes[i].name))
        return Choice(rejected, terms, i, "no data: least loaded")
    efe = terms.efe.tolist()
    least = min([efe[i] for i in left])
    best = min([i for i in left if efe[i] == least], key=lambda i: (loads[i], routes[i].name))
    why = "the least expected free energy"
    lighter = [i for i in left if loads[i] < loads[best]]
    if not lighter:
        return Choice(rejected, terms, best, why)
    # Routes that the data cannot tell apart share the load: a queue is a cost that the counts see only later.
    ok, ok_var, met, met_var = (x.tolist() for x in moments(rows, domain, regime))
    value, cost, price = request.value, request.miss_cost, terms.price.tolist()
    value_squared, cost_squared, credible = value * value, cost * cost, state.settings.credible
    model, backend = routes[best].model, routes[best].backend
    most = value * ok[best] - cost * (1 - met[best]) - price[best]
    equal = []
    for i in lighter:
        variance = 0.0
        if routes[i].model != model:
            variance += value_squared * (ok_var[i] + ok_var[best])
        if routes[i].backend != backend:
            variance += cost_squared * (met_var[i] + met_var[best])
        if most - (value * ok[i] - cost * (1 - met[i]) - price[i]) <= credible * math.sqrt(variance):
            equal.append(i)
    if equal:
        why = f"as good as {routes[best].name} as far as the data tell, and less loaded"
        load = min([loads[i] for i in equal])
        best = min([i for i in equal if loads[i] == load], key=lambda i: (efe[i], routes[i].name))
    return Choice(rejected, terms, best, why)


def _short(resources: list[tuple[str, float]], limits: Mapping[str, float]) -> str | None:
    """The first resource of which the limits hold too little."""
    for name, wanted in resources:
        if wanted > limits.get(name, wanted):
            return name
    return None


def screen(request: Request, candidates: Sequence[Candidate]) -> tuple[list[int], tuple[Rejected, ...]]:
    """The indices of the candidates that satisfy the hard constraints, and the others with what failed first."""
    tier, wanted, cap = request.tier, request.capabilities, request.price_cap
    resources = sorted(request.resources.items())
    admissible, rejected = [], []
    for i, c in enumerate(candidates):
        if c.excluded:
            rejected.append(Rejected(c.name, "excluded", c.excluded))
        elif c.tier < tier:
            rejected.append(Rejected(c.name, "tier", f"proves {c.tier}, wanted {tier}"))
        elif not wanted <= c.capabilities:
            rejected.append(Rejected(c.name, "capabilities", f"lacks {', '.join(sorted(wanted - c.capabilities))}"))
        elif resources and c.limits and (k := _short(resources, c.limits)) is not None:
            rejected.append(
                Rejected(c.name, "resources", f"{k}: holds {c.limits[k]:g}, wanted {request.resources[k]:g}")
            )
        elif cap is not None and c.price > cap:
            rejected.append(Rejected(c.name, "price_cap", f"costs {c.price:g}, cap {cap:g}"))
        else:
            admissible.append(i)
    return admissible, tuple(rejected)
