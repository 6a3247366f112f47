"""The terms of the expected free energy of routes: predictions under the counts, and their information.

Each of the two outcomes is told by one or more tables ("experts"): the factored one, and finer ones that back off to
it (a cell starts with ``backoff`` pseudo-counts of its parent). The weights of the experts are the softmax of their
log evidence. In ``sampled`` mode one expert is drawn by weight and its probabilities are drawn from their Dirichlet
posteriors (Thompson 1933; the "sampled" mode). In ``expected`` mode the terms are averaged over the experts, with the
exact expected information gain on the Dirichlet parameters (Friston et al. 2017, in closed form).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

from hllm.free_energy.dirichlet import parameter_gain
from hllm.router_rows import Index, Rows
from hllm.router_state import Array, RouterState, load_level
from hllm.routes import Candidate

Entry = tuple[float, Array, Array | None, Index, bool]


class _Key(ISeedSequence):
    """Makes ``Philox(_Key(k))`` the generator ``Philox(key=k)``, which asks the system for entropy to throw it away."""

    def __init__(self, key: int) -> None:
        self.words = [key & 2**64 - 1, key >> 64]

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        return np.array(self.words, dtype=np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One outcome's terms per route, each (N,): the probability that it is good, and in nats the ambiguity
    E_q[H(o | s)] and the information gain on the parameters."""

    good: Array
    ambiguity: Array
    gain: Array


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Leaves of the tables with their probabilities: what a decision needs besides the beliefs.

    Each entry is (weight of the expert, probabilities (n, J), parameter gain (n, J) or None, leaf of each route (N,),
    whether the columns are regimes by domains).
    """

    quality: list[Entry]
    service: list[Entry]
    rows: Rows


def entropy(p: Array) -> Array:
    """The entropy (nats) of two outcomes with probabilities p and 1 - p."""
    p = p.clip(1e-12, 1 - 1e-12)
    q = 1.0 - p
    return np.asarray(-(p * np.log(p) + q * np.log(q)))


def weights(score: Array) -> list[float]:
    """The experts' weights from their log evidence."""
    scores = score.tolist()
    most = max(scores)
    w = [math.exp(x - most) for x in scores]
    total = sum(w)
    return [x / total for x in w]


def draw(state: RouterState, routes: Sequence[Candidate], seed: int, mode: str) -> Draws:
    """The probabilities that a decision uses. Names are sorted first: the order of ``routes`` changes nothing."""
    s = state.settings
    rng = np.random.Generator(np.random.Philox(_Key(seed))) if mode == "sampled" else None  # type: ignore[arg-type]
    pick = rng.random(2).tolist() if rng else [None, None]
    rows = state.rows(tuple([(r.model, r.backend) for r in routes]))

    p, gain = _cells(rows.quality, rng)
    quality: list[Entry] = []
    for expert, weight in _experts(state.quality_score, pick[0], s.backoff):
        if expert == 0:
            quality.append((weight, p, gain, rows.of_model, False))
        else:
            cells = rows.quality_pairs + _pseudo(p.take(rows.model_of_pair, 0), s.backoff)
            quality.append((weight, *_cells(cells, rng), rows.of_pair, False))

    p, gain = _cells(rows.service, rng)
    service: list[Entry] = []
    for expert, weight in _experts(state.service_score, pick[1], s.backoff):
        if expert == 0:
            service.append((weight, p, gain, rows.of_backend, False))
        elif expert == 1:
            q, g = _cells(rows.service_domains + _pseudo(p[:, :, None], s.backoff), rng)
            flat = (len(p), -1)
            service.append((weight, q.reshape(flat), None if g is None else g.reshape(flat), rows.of_backend, True))
        else:
            of_route = [(rows.at_backend[r.backend], load_level(r.load)) for r in routes]
            cells_read = sorted(set(of_route))
            leaf = {x: i for i, x in enumerate(cells_read)}
            row = [b for b, _ in cells_read]
            counts = rows.service_loads[row, :, [level for _, level in cells_read]]
            q, g = _cells(counts + _pseudo(p[row], s.backoff), rng)
            service.append((weight, q, g, np.array([leaf[x] for x in of_route]), False))
    return Draws(quality, service, rows)


def outcomes(draws: Draws, domain: Array, regime: Array) -> tuple[Outcome, Outcome]:
    """Quality and service of each route under the beliefs (D,) and (K,)."""
    return _outcome(draws.quality, domain, regime), _outcome(draws.service, regime, domain)


def moments(rows: Rows, domain: Array, regime: Array) -> tuple[Array, Array, Array, Array]:
    """Mean and variance of P(ok), then of P(SLO met), each (N,), under the factored tables' posteriors."""
    (ok, ok_var), (met, met_var) = rows.moments
    model, backend = rows.of_model, rows.of_backend
    return (
        ok.dot(domain).take(model),
        ok_var.dot(domain * domain).take(model),
        met.dot(regime).take(backend),
        met_var.dot(regime * regime).take(backend),
    )


def _outcome(entries: list[Entry], single: Array, crossing: Array) -> Outcome:
    terms = []
    for weight, p, g, leaf, crossed in entries:
        q = (single[:, None] * crossing).ravel() if crossed else single
        good, ambiguity = p.dot(q).take(leaf), entropy(p).dot(q).take(leaf)
        gain = np.zeros(len(leaf)) if g is None else g.dot(q).take(leaf)
        terms.append((good, ambiguity, gain) if weight == 1 else (weight * good, weight * ambiguity, weight * gain))
    return Outcome(*terms[0]) if len(terms) == 1 else Outcome(*[sum(each) for each in zip(*terms, strict=True)])


def _experts(score: Array, pick: float | None, backoff: float) -> list[tuple[int, float]]:
    """(expert, weight): the one that ``pick`` in [0, 1) draws, or all of them."""
    if backoff == 0:
        return [(0, 1.0)]
    w = weights(score)
    if pick is None:
        return list(enumerate(w))
    total = 0.0
    for i, x in enumerate(w):
        total += x
        if pick < total:
            return [(i, 1.0)]
    return [(0, 1.0)]


def _pseudo(p: Array, backoff: float) -> Array:
    p = p.clip(1e-6, 1 - 1e-6)
    out = np.empty((*p.shape, 2))
    np.multiply(p, backoff, out=out[..., 0])
    np.multiply(1.0 - p, backoff, out=out[..., 1])
    return out


def _cells(counts: Array, rng: np.random.Generator | None) -> tuple[Array, Array | None]:
    """P(good) of each cell: a Dirichlet sample, or the mean with the parameters' information gain."""
    if rng is None:
        return counts[..., 0] / (counts[..., 0] + counts[..., 1]), parameter_gain(np.moveaxis(counts, -1, 0))
    g = rng.standard_gamma(counts)
    good = g[..., 0]
    return good / (good + g[..., 1]), None
