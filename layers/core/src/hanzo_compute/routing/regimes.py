"""The regimes of the infrastructure: a hidden Markov model of telemetry, fitted anew from time to time.

A new model takes the place of the one in force only if it explains better what neither was fitted to: the last fifth of
the telemetry that is kept (the one in force may have seen a part of that, if it is younger).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute.routing.snapshot import Fit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hllm.hmm import GaussianHMM
    from hllm.router import RouterState

    Array = NDArray[np.float64]

ROWS_MIN: Final = 240
"""Observations of telemetry below which nothing is fitted: two hours of work."""
GAP: Final = 4
"""Intervals without work that do not end a sequence: on AWS the learner sees every second one."""
RESTARTS: Final = 8
ITERATIONS: Final = 50
NAMES: Final = {2: ("calm", "busy"), 3: ("calm", "busy", "stressed")}
"""Regimes in the order of their mean wait, by how many there are."""
DOMAINS: Final = ("any",)
FIRST: Final = ("normal",)
"""Before the first fit there is one regime."""
HALF_LIFE_S: Final = 120.0
"""What was seen of a pool counts half after this time: so one that failed is tried again."""
MARGIN: Final = 0.01
"""Nats for each observation: what is better by less is not."""
FLAT: Final = 1e-6
"""A feature that varies less is left in its own units."""


@dataclass(frozen=True, slots=True)
class Refit:
    """What a fit came to: the fit in force from now on, whether it is a new one, and why."""

    fit: Fit
    promoted: bool
    why: str


def refit(telemetry: Sequence[tuple[int, Sequence[float]]], before: Fit, *, now_ms: int) -> Refit:
    """Fit models with 2 and 3 regimes to the first four fifths of ``telemetry`` (slot, observation; any order), and
    compare the better one with the one in force, or with a single Gaussian if there is none, on the last fifth.

    Log-likelihoods are in nats for each observation in its own units. Never raises: a fit that fails is not promoted.
    """
    import numpy as np

    from hllm.errors import HllmError
    from hllm.hmm import GaussianHMM

    rows = sorted(telemetry)
    tried = replace(before, tried_ms=now_ms)
    if len(rows) < ROWS_MIN:
        return Refit(tried, False, f"{len(rows)} observations of telemetry are fewer than {ROWS_MIN}")
    slots, seen = [slot for slot, _ in rows], np.array([list(x) for _, x in rows], dtype=np.float64)
    cut = len(rows) * 4 // 5
    mean, scale = seen[:cut].mean(axis=0), seen[:cut].std(axis=0)
    scale = np.where(scale > FLAT, scale, 1.0)
    units, lengths = (seen - mean) / scale, (_lengths(slots[:cut]), _lengths(slots[cut:]))
    volume = float(np.log(scale).sum())

    def held_out(model: GaussianHMM) -> float:
        return float(model.score(units[cut:], lengths[1])) / (len(rows) - cut) - volume

    found: list[tuple[float, GaussianHMM]] = []
    problems: list[str] = []
    for regimes in NAMES:
        model = GaussianHMM(regimes, n_restarts=RESTARTS, n_iter=ITERATIONS, random_state=regimes)
        try:
            found.append((held_out(model.fit(units[:cut], lengths[0])), model))
        except HllmError as error:
            problems.append(f"{regimes} regimes: {error}")
    if not found:
        return Refit(tried, False, "; ".join(problems))
    best, model = max(found, key=lambda each: each[0])
    try:
        rival = _score(before, seen[cut:], lengths[1])
    except (HllmError, KeyError, TypeError, ValueError, ArithmeticError):
        rival = None
    if rival is None:
        rival = held_out(GaussianHMM(1, n_iter=1).fit(units[:cut], lengths[0]))
    if not math.isfinite(best) or best < rival + MARGIN:
        return Refit(tried, False, f"held-out log-likelihood {best:.4f} is no better than {rival:.4f}")
    order = [int(k) for k in np.argsort(model.means_[:, -1], kind="stable")]
    body = {
        "regimes": list(NAMES[len(order)]),
        "startprob": model.startprob_[order].tolist(),
        "transmat": model.transmat_[np.ix_(order, order)].tolist(),
        "means": model.means_[order].tolist(),
        "covars": model.covars_[order].tolist(),
        "belief": model.predict_proba(units[cut:], lengths[1])[-1][order].tolist(),
    }
    fit = replace(
        tried,
        fitted_ms=now_ms,
        rows=len(rows),
        held_out=best,
        mean=mean.tolist(),
        scale=scale.tolist(),
        model=body,
    )
    try:
        new(fit)
    except HllmError as error:
        return Refit(tried, False, f"the router cannot use these regimes: {error}")
    return Refit(fit, True, f"held-out log-likelihood {best:.4f}, before {rival:.4f}")


def new(fit: Fit) -> RouterState:
    """A router that has seen nothing, with the regimes in force."""
    from hllm.router import RouterSettings, RouterState

    settings = RouterSettings(half_life=HALF_LIFE_S)
    state = RouterState.new(settings, domains=DOMAINS, regimes=FIRST)
    return state if fit.model is None else rebased(state, fit)


def rebased(state: RouterState, fit: Fit) -> RouterState:
    """The router with the regimes of ``fit``. What it has counted is divided among them evenly: what was seen under
    other regimes says nothing of how they differ.

    Raises:
        HllmError: the two do not go together.
    """
    from hllm.router import RouterState

    model, body = fit.model or {}, state.to_dict()
    count = len(model["regimes"])
    prior = body["settings"]["service_prior"]
    for table, zero in (("service", prior), ("service_domains", 0.0), ("service_loads", 0.0)):
        body[table] = {name: _shared(cells, zero, count) for name, cells in body[table].items()}
    body |= {
        "regimes": model["regimes"],
        "regime_transition": model["transmat"],
        "regime_belief": model["belief"],
        "emission": {"mean": model["means"], "covariance": model["covars"]},
    }
    return RouterState.from_dict(body)


def promoted(engine: dict[str, Any] | None, fit: Fit) -> dict[str, Any]:
    """The stored router with the regimes of ``fit``; a new one where it cannot be read."""
    from hllm.errors import HllmError
    from hllm.router import RouterState

    if engine is not None:
        try:
            return rebased(RouterState.from_dict(engine), fit).to_dict()
        except HllmError:
            pass
    return new(fit).to_dict()


def _shared(cells: Any, zero: Any, count: int) -> Any:
    import numpy as np

    counts = np.array(cells, dtype=np.float64)
    each = np.asarray(zero) + (counts - zero).sum(axis=0) / count
    return [each.tolist() for _ in range(count)]


def _score(fit: Fit, seen: Array, lengths: list[int]) -> float | None:
    """Log-likelihood for each observation under the model in force; None without one."""
    import numpy as np

    from hllm.hmm import GaussianHMM

    if fit.model is None:
        return None
    model = GaussianHMM(len(fit.model["regimes"]), covariance_type="full")
    model.startprob_, model.transmat_ = np.array(fit.model["startprob"]), np.array(fit.model["transmat"])
    model.means_, model.covars_ = np.array(fit.model["means"]), np.array(fit.model["covars"])
    units = (seen - np.array(fit.mean)) / np.array(fit.scale)
    found = float(model.score(units, lengths)) / len(seen) - float(np.log(np.array(fit.scale)).sum())
    return found if math.isfinite(found) else None


def _lengths(slots: Sequence[int]) -> list[int]:
    """Lengths of the sequences in which no more than ``GAP`` intervals lie between two observations."""
    ends = [number for number, (a, b) in enumerate(pairwise(slots), start=1) if b - a > GAP]
    edges = [0, *ends, len(slots)]
    return [b - a for a, b in pairwise(edges)]
