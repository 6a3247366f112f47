"""The trace of a routing decision: what was believed, what was weighed, what was ruled out, and what would change it.

A trace holds the decision's inputs and terms; ``to_dict`` renders it, with counterfactuals that are found by deciding
again. ``recompute`` renders it anew from the inputs alone: bit-equal on the same build of Python and numpy, elsewhere
to within 1e-9 with the same ranking. Keys are those of HIP-7.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from hllm.errors import InvalidInput, NoCandidate
from hllm.router_choice import Choice, Terms, choose
from hllm.router_state import Array, RouterState
from hllm.router_terms import Draws
from hllm.routes import Candidate, Request

__all__ = ["Trace", "recompute"]

ENGINE = "hllm.router/2"
GRID = 8
"""Points that are tried in each direction of a belief before the boundary is bisected."""
BISECTIONS = 40


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One decision: its inputs and its terms. ``domain`` (D,) and ``regime`` (K,) are the beliefs that it used."""

    state: RouterState
    request: Request
    candidates: tuple[Candidate, ...]
    seed: int
    mode: str
    domain: Array
    regime: Array
    draws: Draws | None
    choice: Choice

    def inputs(self) -> dict[str, Any]:
        """All that ``recompute`` needs, as JSON; of the state, the rows that the candidates read.

        ``state`` is a string: canonical JSON, whose SHA-256 is ``state_digest``, made once for all such decisions.
        """
        state, digest = self.state.part(tuple([(c.model, c.backend) for c in self.candidates]))
        return {
            "engine": ENGINE,
            "numpy": np.__version__,
            "mode": self.mode,
            "seed": self.seed,
            "request": self.request.to_dict(),
            "candidates": [c.to_dict() for c in self.candidates],
            "state": state,
            "state_digest": digest,
        }

    def to_dict(self, *, counterfactuals: bool = True) -> dict[str, Any]:
        """The whole trace as JSON, the candidates by rank. Counterfactuals decide again some hundred times."""
        state, choice = self.state, self.choice
        out = {cause.action for cause in choice.rejected}
        routes = [] if choice.terms is None else _rows(self.candidates, choice.terms)
        chosen = None if choice.chosen is None else self.candidates[choice.chosen].name
        return {
            "beliefs": {
                "domain": dict(zip(state.domains, self.domain.tolist(), strict=True)),
                "regime": dict(zip(state.regimes, self.regime.tolist(), strict=True)),
            },
            "uncertainty": {"domain": _nats(self.domain), "regime": _nats(self.regime)},
            "candidates": [r for r in routes if r["action"] not in out],
            "rejected": [
                {"action": x.action, "predicate": x.predicate, "detail": x.detail}
                for x in sorted(choice.rejected, key=lambda x: x.action)
            ],
            "chosen": chosen,
            "why": choice.why,
            "counterfactuals": self.counterfactuals() if counterfactuals else [],
            "inputs": self.inputs(),
        }

    def counterfactuals(self) -> list[dict[str, Any]]:
        """What would change the decision, all else (and the samples) being equal.

        Each has ``of`` (price, domain or regime), ``name``, ``now``, ``above`` or ``below`` (the boundary), ``then``
        (who would be chosen beyond it) and ``text``. Each boundary was found by deciding again on both sides of it.
        """
        i = self.choice.chosen
        if i is None or self.draws is None:
            return []
        found: list[dict[str, Any]] = []
        me = self.candidates[i]

        def at_price(x: float) -> str | None:
            routes = (*self.candidates[:i], replace(me, price=x), *self.candidates[i + 1 :])
            return self._again(routes, self.domain, self.regime)

        step = self.request.value + self.request.miss_cost + abs(me.price) + 1.0
        tries = [me.price + step * k for k in (0.05, 0.25, 1.0, 4.0)]
        if edge := _boundary(at_price, me.price, tries, me.name):
            text = f"changes to {edge[1]} if the price of {me.name} > {edge[0]:.6g}"
            found.append(_found("price", me.name, me.price, "above", edge, text))
        for of, names, belief in (
            ("domain", self.state.domains, self.domain),
            ("regime", self.state.regimes, self.regime),
        ):
            for j, name in enumerate(names) if len(names) > 1 else ():
                at = self._at_belief(of, j)
                now = float(belief[j])
                for side, end in (("above", 1.0), ("below", 0.0)):
                    tries = [now + (end - now) * k / GRID for k in range(1, GRID + 1)]
                    if edge := _boundary(at, now, tries, me.name):
                        sign = ">" if side == "above" else "<"
                        text = f"changes to {edge[1]} if P({name}) {sign} {edge[0]:.6g}"
                        found.append(_found(of, name, now, side, edge, text))
        return found

    def _at_belief(self, of: str, j: int) -> Callable[[float], str | None]:
        def at(y: float) -> str | None:
            if of == "domain":
                return self._again(self.candidates, moved(self.domain, j, y), self.regime)
            return self._again(self.candidates, self.domain, moved(self.regime, j, y))

        return at

    def _again(self, routes: tuple[Candidate, ...], domain: Array, regime: Array) -> str | None:
        assert self.draws is not None
        chosen = choose(self.state, self.request, routes, self.draws, domain, regime).chosen
        return None if chosen is None else routes[chosen].name


def moved(belief: Array, j: int, y: float) -> Array:
    """The belief with entry j at y and the others in the proportions that they had."""
    rest = 1 - belief[j]
    out = belief * ((1 - y) / rest) if rest > 1e-9 else np.full(len(belief), (1 - y) / (len(belief) - 1))
    out[j] = y
    return np.asarray(out)


def recompute(trace: Mapping[str, Any]) -> dict[str, Any]:
    """The trace that the stored inputs of a trace give now. Raises InvalidInput when they are no inputs."""
    from hllm.router import Router  # router makes traces

    given: Any = trace
    inputs = given.get("inputs") if isinstance(given, Mapping) else None
    if not isinstance(inputs, Mapping) or inputs.get("engine") != ENGINE:
        raise InvalidInput(f"the trace has no inputs of engine {ENGINE}: give what Trace.to_dict gave")
    state = _state(inputs.get("state"), inputs.get("state_digest"))
    candidates = inputs.get("candidates")
    if not isinstance(candidates, list):
        raise InvalidInput("the trace's candidates are no list: give what Trace.to_dict gave")
    routes = [Candidate.from_dict(c) for c in candidates]
    request = Request.from_dict(inputs.get("request", {}))
    seed, mode = inputs.get("seed"), inputs.get("mode")
    try:
        made = Router().decide(state, request, routes, seed=seed, mode=mode).trace  # type: ignore[arg-type]
    except NoCandidate as e:
        made = e.trace
    return made.to_dict(counterfactuals=bool(trace.get("counterfactuals", True)))


def _state(text: Any, digest: Any) -> RouterState:
    if not isinstance(text, str) or sha256(text.encode(errors="replace")).hexdigest() != digest:
        raise InvalidInput("the trace's state is not the one of its digest: it was altered")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput("the trace's state is no JSON: give what Trace.to_dict gave") from None
    return RouterState.from_dict(given)


def _rows(candidates: tuple[Candidate, ...], t: Terms) -> list[dict[str, Any]]:
    columns = (t.efe, t.utility, t.information + t.gain, t.risk, t.ambiguity, t.gain, t.ok, t.met, t.price)
    rows = [
        {
            "action": c.name,
            "provider": c.provider,
            "model": c.model,
            "backend": c.backend,
            "adapter": c.adapter,
            "efe": efe,
            "utility": utility,
            "curiosity": curiosity,
            "risk": risk,
            "ambiguity": ambiguity,
            "parameter_gain": gain,
            "p_ok": ok,
            "p_met": met,
            "price": price,
            "load": float(c.load),
        }
        for c, efe, utility, curiosity, risk, ambiguity, gain, ok, met, price in zip(
            candidates, *[column.tolist() for column in columns], strict=True
        )
    ]
    return sorted(rows, key=lambda r: (r["efe"], r["action"]))


def _nats(q: Array) -> float:
    return float(-(q * np.log(np.maximum(q, 1e-300))).sum())


def _boundary(
    at: Callable[[float], str | None], now: float, tries: list[float], same: str
) -> tuple[float, str | None] | None:
    """The first change of ``at`` on the way through ``tries``: a boundary, and what is chosen just beyond it."""
    inside = now
    for x in tries:
        then = at(x)
        if then == same:
            inside = x
            continue
        outside = x
        for _ in range(BISECTIONS):
            middle = 0.5 * (inside + outside)
            if middle in (inside, outside):
                break
            if (other := at(middle)) == same:
                inside = middle
            else:
                outside, then = middle, other
        return outside, then
    return None


def _found(of: str, name: str, now: float, side: str, edge: tuple[float, str | None], text: str) -> dict[str, Any]:
    return {"of": of, "name": name, "now": float(now), side: edge[0], "then": edge[1], "text": text}
