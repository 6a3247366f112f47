"""Dirichlet counts: what they expect, what an observation is expected to tell about them, and learning by counting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from hllm.errors import InvalidInput
from hllm.free_energy import checks
from hllm.free_energy.checks import TINY, Array, Arrays

_SHIFT = 10
_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
"""B₂ₖ / 2k, k = 1…7 (Abramowitz and Stegun 6.3.18)."""


def digamma(x: Any) -> Array:
    """ψ(x) of positive numbers, to about 1e-14 relative to max(1, |ψ|).

    ψ(x) = ψ(x + 10) - Σ 1/(x + k), and ψ of numbers from 10 by its asymptotic series (Abramowitz and Stegun 6.3.5-18).
    """
    value = np.asarray(x, dtype=np.float64)
    if not (np.isfinite(value) & (value > 0)).all():
        raise InvalidInput("digamma is defined here for positive finite numbers")
    large = value + _SHIFT
    inverse = 1 / (large * large)
    tail = np.zeros_like(value)
    for coefficient in reversed(_SERIES):
        tail = (tail + coefficient) * inverse
    shift = sum((1 / (value + k) for k in range(1, _SHIFT)), 1 / value)
    found: Array = np.log(large) - 0.5 / large - tail - shift
    return found


def expected_parameters(counts: Arrays) -> list[Array]:
    """The expected distributions of Dirichlet counts: each array divided by its sums over the first axis."""
    return [value / value.sum(axis=0) for value in checks.counts(counts, "counts", "modality or factor")]


def parameter_gain(counts: Any) -> Array:
    """The mutual information in nats of a next outcome and the parameters, for each Dirichlet along the first axis.

    Exact: Σ_o -p ln p + p [ψ(a_o + 1) - ψ(n + 1)], with p = a/n. An outcome without counts is one that cannot occur.
    """
    (value,) = checks.counts([counts], "counts", "modality")
    total = value.sum(axis=0)
    share = value / total
    gain: Array = share * (digamma(value + 1) - digamma(total + 1) - np.log(np.maximum(share, TINY)))
    # The terms cancel for large counts, and a gain is not negative.
    found: Array = np.maximum(gain.sum(axis=0), 0.0)
    return found


def learn_likelihood(
    pA: Arrays,
    observation: Iterable[Any],
    qs: Arrays,
    *,
    rate: float = 1.0,
    forgetting: float = 1.0,
    initial: Arrays | None = None,
) -> list[Array]:
    """Counts of A after an observation: a ← a₀ + ω(a - a₀) + η·o ⊗ q(s), where a > 0.

    Args:
        pA: Counts, each (O_m, S_1, …, S_F); what has no count is impossible, and stays so.
        observation: Per modality an index, weights over outcomes, or None: then its counts only fade.
        qs: Beliefs about the states that gave the outcomes.
        rate: η, from 0.
        forgetting: ω, from 0 (all is forgotten at once) to 1 (nothing is).
        initial: a₀, what is faded to; needed with ω < 1.
    """
    before = checks.counts(pA, "pA", "modality")
    beliefs = checks.beliefs(qs, "qs")
    checks.likelihoods(before, "pA", tuple(map(len, beliefs)))
    seen = checks.observed(observation, [len(each) for each in before])
    joint = beliefs[0]
    for each in beliefs[1:]:
        joint = np.multiply.outer(joint, each)
    added = [0.0 if weights is None else np.multiply.outer(weights, joint) for weights in seen]
    return _learnt(before, added, "pA", rate, forgetting, initial)


def learn_transitions(
    pB: Arrays,
    action: Iterable[int],
    qs: Arrays,
    previous: Arrays,
    *,
    rate: float = 1.0,
    forgetting: float = 1.0,
    initial: Arrays | None = None,
) -> list[Array]:
    """Counts of B after a step: those of the action that was taken gain η·q(s_next) ⊗ q(s).

    Args:
        pB: Counts, each (S_f, S_f, U_f).
        action: One action per factor.
        qs: Beliefs after it.
        previous: Beliefs before it.
        rate: η.
        forgetting: ω; counts of actions that were not taken fade too.
        initial: What is faded to.
    """
    before = checks.counts(pB, "pB", "factor")
    after, earlier = checks.beliefs(qs, "qs"), checks.beliefs(previous, "previous")
    states = tuple(map(len, after))
    checks.transitions(before, "pB", states)
    if tuple(map(len, earlier)) != states:
        raise InvalidInput("previous has other numbers of states than qs")
    taken = list(action)
    if len(taken) != len(before):
        raise InvalidInput(f"the action has {len(taken)} factors, and pB has {len(before)}")
    added: list[Any] = []
    for factor, value in enumerate(before):
        each = np.zeros_like(value)
        index = checks.whole(taken[factor], f"action[{factor}]", 0, value.shape[2] - 1)
        each[:, :, index] = np.multiply.outer(after[factor], earlier[factor])
        added.append(each)
    return _learnt(before, added, "pB", rate, forgetting, initial)


def learn_prior(
    pD: Arrays,
    qs: Arrays,
    *,
    rate: float = 1.0,
    forgetting: float = 1.0,
    initial: Arrays | None = None,
) -> list[Array]:
    """Counts of D after beliefs about the first state, each (S_f,)."""
    before = checks.counts(pD, "pD", "factor")
    beliefs = checks.beliefs(qs, "qs")
    if [each.shape for each in before] != [each.shape for each in beliefs]:
        raise InvalidInput("pD has other shapes than qs")
    return _learnt(before, beliefs, "pD", rate, forgetting, initial)


def _learnt(
    before: list[Array], added: list[Any], name: str, rate: float, forgetting: float, initial: Arrays | None
) -> list[Array]:
    rate = checks.number(rate, "rate", 0)
    forgetting = checks.number(forgetting, "forgetting", 0, 1)
    base = before
    if initial is not None:
        base = checks.counts(initial, "initial", "modality or factor")
        if [each.shape for each in base] != [each.shape for each in before]:
            raise InvalidInput(f"initial has other shapes than {name}")
    elif forgetting < 1:
        raise InvalidInput("with forgetting below 1 give initial: the counts to fade to")
    found = []
    for value, start, more in zip(before, base, added, strict=True):
        kept = value if forgetting == 1 else start + forgetting * (value - start)
        found.append(kept + rate * more * (value > 0))
    return found
