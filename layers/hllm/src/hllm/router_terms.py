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

import numpy as np
from numpy.typing import NDArray

from hllm.free_energy.dirichlet import parameter_gain
from hllm.router_state import Array, RouterState, Table, load_level, pair_name
from hllm.routes import Candidate

Index = NDArray[np.intp]
Entry = tuple[float, Array, Array | None, Index, bool]


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
    whether the columns are regimes by domains). ``of_model`` and ``of_backend`` (N,) index the sorted names.
    """

    quality: list[Entry]
    service: list[Entry]
    models: list[str]
    backends: list[str]
    of_model: Index
    of_backend: Index


def entropy(p: Array) -> Array:
    """The entropy (nats) of two outcomes with probabilities p and 1 - p."""
    p = p.clip(1e-12, 1 - 1e-12)
    q = 1 - p
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
    rng = np.random.Generator(np.random.Philox(key=seed)) if mode == "sampled" else None
    pick = rng.random(2).tolist() if rng else [None, None]
    models = sorted({r.model for r in routes})
    backends = sorted({r.backend for r in routes})
    at_model = {n: i for i, n in enumerate(models)}
    at_backend = {n: i for i, n in enumerate(backends)}
    of_model = np.array([at_model[r.model] for r in routes], dtype=np.intp)
    of_backend = np.array([at_backend[r.backend] for r in routes], dtype=np.intp)

    parent = state.quality.rows(models)
    p, gain = _cells(parent, rng)
    quality: list[Entry] = []
    for expert, weight in _experts(state.quality_score, pick[0], s.backoff):
        if expert == 0:
            quality.append((weight, p, gain, of_model, False))
            continue
        pairs = sorted({(r.model, r.backend) for r in routes})
        leaf = {x: i for i, x in enumerate(pairs)}
        above = p[[at_model[m] for m, _ in pairs]]
        cells = state.quality_pairs.rows([pair_name(m, b) for m, b in pairs]) + _pseudo(above, s.backoff)
        quality.append((weight, *_cells(cells, rng), np.array([leaf[r.model, r.backend] for r in routes]), False))

    parent = state.service.rows(backends)
    p, gain = _cells(parent, rng)
    service: list[Entry] = []
    for expert, weight in _experts(state.service_score, pick[1], s.backoff):
        if expert == 0:
            service.append((weight, p, gain, of_backend, False))
        elif expert == 1:
            cells = state.service_domains.rows(backends) + _pseudo(p[:, :, None], s.backoff)
            q, g = _cells(cells, rng)
            flat = (len(backends), -1)
            service.append((weight, q.reshape(flat), None if g is None else g.reshape(flat), of_backend, True))
        else:
            levels = sorted({(r.backend, load_level(r.load)) for r in routes})
            leaf_at = {x: i for i, x in enumerate(levels)}
            row = [at_backend[b] for b, _ in levels]
            counts = state.service_loads.rows(backends)[row, :, [x for _, x in levels]]
            q, g = _cells(counts + _pseudo(p[row], s.backoff), rng)
            service.append((weight, q, g, np.array([leaf_at[r.backend, load_level(r.load)] for r in routes]), False))
    return Draws(quality, service, models, backends, of_model, of_backend)


def outcomes(draws: Draws, domain: Array, regime: Array) -> tuple[Outcome, Outcome]:
    """Quality and service of each route under the beliefs (D,) and (K,)."""
    return _outcome(draws.quality, domain, domain), _outcome(draws.service, regime, np.outer(regime, domain).ravel())


def moments(
    state: RouterState, draws: Draws, domain: Array, regime: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(mean, variance), each (N,), of P(ok) and of P(SLO met) of each route under the factored tables' posteriors."""

    def of(table: Table, names: list[str], leaf: Index, q: Array) -> tuple[Array, Array]:
        a = table.rows(names)
        n = a[..., 0] + a[..., 1]
        mean = a[..., 0] / n
        return (mean @ q)[leaf], ((mean * (1 - mean) / (n + 1)) @ (q * q))[leaf]

    return (
        of(state.quality, draws.models, draws.of_model, domain),
        of(state.service, draws.backends, draws.of_backend, regime),
    )


def _outcome(entries: list[Entry], single: Array, joint: Array) -> Outcome:
    good = ambiguity = gain = np.zeros(len(entries[0][3]))
    for weight, p, g, leaf, crossed in entries:
        q = joint if crossed else single
        good = good + weight * (p @ q)[leaf]
        ambiguity = ambiguity + weight * (entropy(p) @ q)[leaf]
        if g is not None:
            gain = gain + weight * (g @ q)[leaf]
    return Outcome(good, ambiguity, gain)


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
    np.multiply(1 - p, backoff, out=out[..., 1])
    return out


def _cells(counts: Array, rng: np.random.Generator | None) -> tuple[Array, Array | None]:
    """P(good) of each cell: a Dirichlet sample, or the mean with the parameters' information gain."""
    if rng is None:
        return counts[..., 0] / (counts[..., 0] + counts[..., 1]), parameter_gain(np.moveaxis(counts, -1, 0))
    g = rng.standard_gamma(counts)
    good = g[..., 0]
    return good / (good + g[..., 1]), None
