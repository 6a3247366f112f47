"""Routing by expected free energy: which route takes a request, what is believed, and what is learnt from outcomes.

Hard constraints first. Of the routes that remain, the one with the least expected free energy
G(a) = -gamma E[U] + ln Z - curiosity (I(s; o | a) + parameter information gain) is taken, where in credits
U = value [ok] - miss_cost [SLO missed] - price (Friston et al. 2017; Parr, Pezzulo and Friston 2022, ch. 4 and 7). With
curiosity 1 that is risk + ambiguity - parameter gain. All is pure: no clock, no I/O, no randomness but the given seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hllm.errors import InvalidInput, NoCandidate
from hllm.router_choice import Choice, choose
from hllm.router_rows import pair_name
from hllm.router_state import LARGEST, MODES, Array, Emission, RouterSettings, RouterState, Table, load_level
from hllm.router_terms import draw, weights
from hllm.routes import Candidate, Feedback, Request, number
from hllm.trace import Trace

__all__ = [
    "Candidate",
    "Decision",
    "Emission",
    "Feedback",
    "NoCandidate",
    "Request",
    "Router",
    "RouterSettings",
    "RouterState",
]

FLOOR = 1e-12
"""No state of a chain is ever believed impossible, so that evidence can bring it back."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The route that was chosen, and the trace that explains it."""

    chosen: Candidate
    trace: Trace


class Router:
    """Decides, filters and learns; it holds nothing itself."""

    def decide(
        self,
        state: RouterState,
        request: Request,
        candidates: Sequence[Candidate],
        *,
        seed: int,
        mode: str | None = None,
    ) -> Decision:
        """The route for one request. The same arguments give the same decision, in whatever order the candidates are.

        ``seed`` (0 to 2^128 - 1) draws the samples of the mode ``sampled``. Raises NoCandidate when the hard
        constraints leave none, and InvalidInput.
        """
        mode = state.settings.mode if mode is None else mode
        if mode not in MODES:
            raise InvalidInput(f"mode is {mode!r}: give one of {', '.join(MODES)}")
        _check_seed(seed)
        domain, regime = _beliefs(state, request.telemetry, request.domain_evidence)
        _check(request, candidates)
        candidates = tuple(candidates)
        if not candidates:
            why = "no candidate was given"
            raise NoCandidate(
                why, Trace(state, request, (), seed, mode, domain, regime, None, Choice((), None, None, why))
            )
        draws = draw(state, candidates, seed, mode)
        choice = choose(state, request, candidates, draws, domain, regime)
        trace = Trace(state, request, candidates, seed, mode, domain, regime, draws, choice)
        if choice.chosen is None:
            raise NoCandidate(f"{choice.why}; the trace's rejected names the predicates", trace)
        return Decision(candidates[choice.chosen], trace)

    def advance(
        self,
        state: RouterState,
        *,
        telemetry: Sequence[float] | None = None,
        domain_evidence: Sequence[float] | None = None,
    ) -> RouterState:
        """The state one filter step on. A chain steps when it is observed; with no observation at all both step."""
        domain, regime = _beliefs(state, telemetry, domain_evidence)
        if telemetry is None and domain_evidence is None:
            domain, regime = domain @ state.domain_transition, regime @ state.regime_transition
        return state._with(domain_belief=domain, regime_belief=regime)

    def learn(self, state: RouterState, feedback: Iterable[Feedback]) -> RouterState:
        """The state with a batch of feedback folded in, one by one, each count weighed by its posterior, which takes in
        the outcome's own likelihood. Raises InvalidInput."""
        batch = list(feedback)
        if not batch:
            return state
        folding = _Folding(state, batch)
        for f in batch:
            folding.fold(f)
        return folding.done()


def _check_seed(seed: Any) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**128:
        raise InvalidInput(f"seed is {seed!r}: give an integer from 0 to 2^128 - 1")


def _check(request: Request, candidates: Sequence[Candidate]) -> None:
    if len({c.name for c in candidates}) != len(candidates):
        raise InvalidInput("two candidates have one name: give each route a name of its own")
    for name in ("value", "miss_cost"):
        if abs(number(getattr(request, name), name)) > LARGEST:
            raise InvalidInput(f"{name} is {getattr(request, name)!r}: give at most {LARGEST:g} credits")
    if request.price_cap is not None:
        number(request.price_cap, "price_cap")
    loads = [c.load for c in candidates]
    # Sums first, which NaN fails: with many candidates that is much faster.
    if sum([abs(c.price) for c in candidates]) <= LARGEST and sum(loads) <= LARGEST and min(loads, default=0) >= 0:
        return
    for c in candidates:
        if not (abs(c.price) <= LARGEST and 0 <= c.load <= LARGEST):
            raise InvalidInput(
                f"candidate {c.name!r} has price {c.price!r}, load {c.load!r}: give at most {LARGEST:g}, load >= 0"
            )


def _beliefs(
    state: RouterState, telemetry: Sequence[float] | None, evidence: Sequence[float] | None
) -> tuple[Array, Array]:
    domain, regime = state.domain_belief, state.regime_belief
    if evidence is not None:
        e = _vector(evidence, len(state.domains), "domain_evidence")
        domain = _update(domain.dot(state.domain_transition), e)
    if telemetry is not None:
        if state.emission is None:
            raise InvalidInput("telemetry is given, but the state has no emission: fit one and call with_regimes")
        x = _vector(telemetry, state.emission.mean.shape[1], "telemetry")
        regime = _update(regime.dot(state.regime_transition), state.emission.log_likelihood(x))
    return domain, regime


def _vector(x: Sequence[float], size: int, name: str) -> Array:
    try:
        v = np.array(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"{name} is no vector of numbers: give {size} finite numbers") from None
    if v.shape != (size,) or not all(abs(y) <= LARGEST for y in v.tolist()):  # a NaN is not
        raise InvalidInput(f"{name} has shape {v.shape}, or a number out of range: give {size} finite numbers")
    return v


def _update(prior: Array, log_likelihood: Array) -> Array:
    q = np.maximum(prior, FLOOR) * np.exp(log_likelihood - max(log_likelihood.tolist()))
    q = np.maximum(q, FLOOR)
    return np.asarray(q / q.sum())


def _belief(x: Sequence[float] | None, today: Array, name: str) -> Array:
    if x is None:
        return today
    q = _vector(x, len(today), name)
    total = q.sum()
    if (q < 0).any() or total <= 0:
        raise InvalidInput(f"{name} is {x!r}: give probabilities")
    return np.asarray(q / total)


class _Folding:
    """Writable copies of a state's counts, while a batch is folded into them."""

    def __init__(self, state: RouterState, batch: Sequence[Feedback]) -> None:
        models, backends = [f.candidate_model for f in batch], [f.backend for f in batch]
        served = [f.backend for f in batch if f.met is not None]
        self.state, self.settings, self.at = state, state.settings, state.at
        self.quality = state.quality.widened(models)
        self.pairs = state.quality_pairs.widened([pair_name(m, b) for m, b in zip(models, backends, strict=True)])
        self.service = state.service.widened(served)
        self.by_domain = state.service_domains.widened(served)
        self.by_load = state.service_loads.widened(served)
        self.quality_score, self.service_score = state.quality_score, state.service_score

    def fold(self, f: Feedback) -> None:
        domain = _belief(f.domain, self.state.domain_belief, "domain")
        regime = _belief(f.regime, self.state.regime_belief, "regime")
        if f.at is not None:
            self.age(number(f.at, "at"))
        domain = self.fold_quality(f, domain)
        if f.met is not None:
            self.fold_service(f, 0 if f.met else 1, domain, regime)

    def age(self, now: float) -> None:
        before, half_life = self.at, self.settings.half_life
        if half_life is not None and before is not None and now > before:
            kept = np.array(2.0 ** -((now - before) / half_life))
            for table in (self.quality, self.pairs, self.service, self.by_domain, self.by_load):
                _decay(table, kept)
        self.at = now if before is None else max(before, now)

    def fold_quality(self, f: Feedback, domain: Array) -> Array:
        s, outcome = self.settings, 0 if f.ok else 1
        cell = self.quality.counts[self.quality.index[f.candidate_model]]
        fine = self.pairs.counts[self.pairs.index[pair_name(f.candidate_model, f.backend)]]
        mean = cell / cell.sum(-1, keepdims=True)
        each = np.array([mean[:, outcome], _backed_off(fine, mean, s.backoff)[:, outcome]])
        self.quality_score = s.scores_kept * self.quality_score + np.log(each @ domain)
        domain = _posterior(domain, each[0] if s.backoff == 0 else np.array(weights(self.quality_score)) @ each)
        if s.forgetting < 1:
            kept = (s.forgetting**domain)[:, None]
            _decay(self.quality, kept)
            _decay(self.pairs, kept)
        cell[:, outcome] += domain
        fine[:, outcome] += domain
        return domain

    def fold_service(self, f: Feedback, outcome: int, domain: Array, regime: Array) -> None:
        s = self.settings
        cell = self.service.counts[self.service.index[f.backend]]
        crossed = self.by_domain.counts[self.by_domain.index[f.backend]]
        loaded = self.by_load.counts[self.by_load.index[f.backend]]
        level = None if f.load is None else load_level(number(f.load, "load"))
        mean = cell / cell.sum(-1, keepdims=True)
        across = _backed_off(crossed, mean[:, None], s.backoff)[..., outcome] @ domain
        at_load = mean if level is None else _backed_off(loaded[:, level], mean, s.backoff)
        each = np.array([mean[:, outcome], across, at_load[:, outcome]])
        self.service_score = s.scores_kept * self.service_score + np.log(each @ regime)
        regime = _posterior(regime, each[0] if s.backoff == 0 else np.array(weights(self.service_score)) @ each)
        both = np.outer(regime, domain)
        if s.forgetting < 1:
            kept = s.forgetting**regime
            _decay(self.service, kept[:, None])
            _decay(self.by_load, kept[:, None, None])
            _decay(self.by_domain, (s.forgetting**both)[..., None])
        cell[:, outcome] += regime
        crossed[..., outcome] += both
        if level is not None:
            loaded[:, level, outcome] += regime

    def done(self) -> RouterState:
        return self.state._with(
            quality=self.quality,
            quality_pairs=self.pairs,
            service=self.service,
            service_domains=self.by_domain,
            service_loads=self.by_load,
            quality_score=self.quality_score,
            service_score=self.service_score,
            version=self.state.version + 1,
            at=self.at,
        )


def _posterior(prior: Array, likelihood: Array) -> Array:
    q = prior * likelihood
    return np.asarray(q / q.sum())


def _backed_off(fine: Array, parent: Array, backoff: float) -> Array:
    """Means of the cells of a finer table whose prior is ``backoff`` pseudo-counts of the parent's mean."""
    strength = max(backoff, 1e-6)
    return np.asarray((fine + strength * parent) / (fine.sum(-1, keepdims=True) + strength))


def _decay(table: Table, kept: Array) -> None:
    counts = table.counts
    if table.prior == (0.0, 0.0):
        counts *= kept
        return
    counts -= table.prior
    counts *= kept
    counts += table.prior
