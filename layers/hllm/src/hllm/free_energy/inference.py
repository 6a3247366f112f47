"""Beliefs about hidden states from outcomes: exact for one factor, by fixed-point iteration for several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hllm.errors import InvalidInput
from hllm.free_energy import checks
from hllm.free_energy.checks import TINY, Array, Arrays

FLOOR = -36.8
"""How far below the largest log-likelihood, in nats, one counts as in a mean field and in its free energy: all must be
finite. It is ln 1e-16, the constant of pymdp."""


def infer_states(
    A: Arrays,
    observation: Iterable[Any],
    prior: Arrays,
    *,
    max_iterations: int = 100,
    tolerance: float = 1e-12,
) -> list[Array]:
    """q(s) per factor after an observation.

    One factor: Bayes' rule. Several: the product of marginals that is a local minimum of the variational free energy,
    by coordinate descent from the prior (each step sets a factor to its minimum, so the free energy never rises).

    Args:
        A: Likelihoods, each (O_m, S_1, …, S_F).
        observation: Per modality an index, weights over outcomes (the mean likelihood by them), or None.
        prior: D, or the prediction from the step before; each (S_f,).
        max_iterations: Rounds over all factors.
        tolerance: A round that changes no belief by more ends it.

    Raises:
        InvalidInput: Also when the prior and the model give the observation probability 0.
    """
    beliefs, logs = _evidence(A, observation, prior)
    largest = float(np.where(_outer(beliefs) > 0, logs, -np.inf).max())
    if largest == -np.inf:
        raise InvalidInput(
            "the observation is impossible by the model and the prior: give each outcome some likelihood"
        )
    if len(beliefs) == 1:
        weights = beliefs[0] * np.exp(np.minimum(logs - largest, 0))
        return [weights / weights.sum()]
    logs = np.maximum(logs - largest, FLOOR)
    priors = beliefs
    for _ in range(checks.whole(max_iterations, "max_iterations", 1, 1 << 20)):
        change = 0.0
        for factor in range(len(beliefs)):
            logits = _expected(logs, beliefs, factor)
            weights = priors[factor] * np.exp(logits - logits[priors[factor] > 0].max())
            updated = weights / weights.sum()
            change = max(change, float(np.abs(updated - beliefs[factor]).max()))
            beliefs = [*beliefs[:factor], updated, *beliefs[factor + 1 :]]
        if change <= tolerance:
            break
    return beliefs


def variational_free_energy(A: Arrays, observation: Iterable[Any], qs: Arrays, prior: Arrays) -> float:
    """F = Σ_f KL[q(s_f) || prior] - E_q[ln P(o | s)], in nats: an upper bound of -ln P(o).

    It is equal to -ln P(o) at the exact posterior. Arguments as for :func:`infer_states`; a prior of 0
    under a belief that is not counts as 1e-16, and so does a likelihood of 0 beside the largest.
    """
    priors, logs = _evidence(A, observation, prior)
    beliefs = checks.beliefs(qs, "qs")
    if [len(each) for each in beliefs] != [len(each) for each in priors]:
        raise InvalidInput("qs has other numbers of states than the prior")
    complexity = sum(
        float(q @ (np.log(np.maximum(q, TINY)) - np.log(np.maximum(p, 1e-16))))
        for q, p in zip(beliefs, priors, strict=True)
    )
    largest = float(logs.max())
    if largest == -np.inf:
        raise InvalidInput("the observation is impossible by the model: give each outcome some likelihood")
    return complexity - largest - float((_outer(beliefs) * np.maximum(logs - largest, FLOOR)).sum())


def predict_states(B: Arrays, qs: Arrays, action: Iterable[int]) -> list[Array]:
    """The prior of the next step: B[f][:, :, u_f] @ q(s_f) per factor, for one action per factor."""
    beliefs = checks.beliefs(qs, "qs")
    steps = checks.distributions(B, "B", "factor")
    checks.transitions(steps, "B", tuple(map(len, beliefs)))
    taken = list(action)
    if len(taken) != len(steps):
        raise InvalidInput(f"the action has {len(taken)} factors, and B has {len(steps)}")
    found = []
    for factor, (step, belief) in enumerate(zip(steps, beliefs, strict=True)):
        index = checks.whole(taken[factor], f"action[{factor}]", 0, step.shape[2] - 1)
        found.append(step[:, :, index] @ belief)
    return found


def _evidence(A: Arrays, observation: Iterable[Any], prior: Arrays) -> tuple[list[Array], Array]:
    """The prior, and the log-likelihood of what was seen by joint state, (S_1, …, S_F): -inf where it is 0."""
    beliefs = checks.beliefs(prior, "prior")
    states = tuple(map(len, beliefs))
    tables = checks.distributions(A, "A", "modality")
    flat = checks.likelihoods(tables, "A", states)
    seen = checks.observed(observation, [len(each) for each in flat])
    logs = np.zeros(states)
    for table, weights in zip(tables, seen, strict=True):
        if weights is not None:
            likelihood = np.tensordot(weights, table, axes=1)
            logs = logs + np.where(likelihood > 0, np.log(np.maximum(likelihood, TINY)), -np.inf)
    return beliefs, logs


def _outer(beliefs: list[Array]) -> Array:
    joint = beliefs[0]
    for each in beliefs[1:]:
        joint = np.multiply.outer(joint, each)
    return joint


def _expected(logs: Array, beliefs: list[Array], factor: int) -> Array:
    """E of the log-likelihood over all factors but one, (S_f,)."""
    found = logs
    for other in reversed(range(len(beliefs))):
        if other != factor:
            found = np.tensordot(found, beliefs[other], axes=([other], [0]))
    return found
