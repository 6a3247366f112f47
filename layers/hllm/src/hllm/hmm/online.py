"""Filtering while observations come in: memory and time per step do not grow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hllm.errors import InvalidInput
from hllm.hmm.validation import Floats, distributions


def filter_update(predicted: Floats, log_likelihood: Floats) -> tuple[Floats, float]:
    """Bayes' rule for one observation: P(s_t | y_1..t) and log P(y_t | y_1..t-1).

    ``predicted`` is P(s_t | y_1..t-1), ``log_likelihood`` holds ln P(y_t | s_t) in nats; both have shape (states,).
    -inf is allowed, but not for every state that is possible. Raises InvalidInput.
    """
    top = max(log_likelihood.tolist())  # faster than numpy's, of a few numbers
    if not math.isfinite(top):
        raise InvalidInput(f"log_likelihood must be finite for some state and NaN for none, got {log_likelihood}")
    joint = np.exp(log_likelihood - top)
    joint *= predicted
    evidence: float = sum(joint.tolist())
    if evidence > 0:  # NaN is not
        joint /= evidence
        return joint, math.log(evidence) + top
    # What is likely is impossible here: only the states that are possible count, and exp() underflowed for them.
    possible = np.where(predicted > 0, log_likelihood, -np.inf)
    top = float(possible.max())
    if not math.isfinite(top):
        raise InvalidInput("the observation is impossible in every state that the model can be in")
    joint = predicted * np.exp(possible - top)
    evidence = float(joint.sum())
    return joint / evidence, math.log(evidence) + top


class OnlineFilter:
    """P(s_t | y_1..t), updated with each observation; nothing of the past is kept but this vector.

    ``startprob`` (states,) and ``transmat`` (states, states), rows sum to 1: ``transmat[i, j]`` = P(j at t+1 | i at t).
    ``emission``, if given, maps an observation to ln P(x | s), shape (states,), and makes ``step`` possible; a fitted
    model's ``online()`` makes a filter that is bound to it. Rabiner 1989, §III.A, scaled.
    """

    def __init__(
        self, startprob: ArrayLike, transmat: ArrayLike, emission: Callable[[Any], Floats] | None = None
    ) -> None:
        start = np.asarray(startprob, dtype=np.float64)
        if start.ndim != 1 or not start.size:
            raise InvalidInput(f"startprob must have shape (states,), got {start.shape}")
        self.startprob = distributions(start, "startprob", start.shape)
        self.transmat = distributions(transmat, "transmat", start.shape * 2)
        self.emission = emission
        self.reset()

    def reset(self) -> None:
        """Forget all observations: the next is the first of a sequence."""
        self.posterior: Floats | None = None
        self.observations = 0
        self.log_likelihood = 0.0

    def predict(self, steps: int = 1) -> Floats:
        """P(s) ``steps`` observations ahead, (states,); 1 is the next, which has startprob before the first."""
        if steps < 1:
            raise InvalidInput(f"steps must be 1 or more, got {steps}")
        if self.posterior is None:
            ahead, steps = self.startprob.copy(), steps - 1
        else:
            ahead = self.posterior
        for _ in range(steps):
            ahead = ahead @ self.transmat
        return ahead

    def update(self, log_likelihood: ArrayLike) -> Floats:
        """P(s_t | y_1..t), shape (states,), from ln P(y_t | s_t) in nats: zeros for an observation that is missing.

        The result is the caller's to keep: later updates do not change it. Raises InvalidInput for NaN, another shape,
        or -inf in every state that is possible; the filter is then as it was.
        """
        values = np.asarray(log_likelihood, dtype=np.float64)
        predicted = self.startprob if self.posterior is None else self.posterior.dot(self.transmat)
        if values.shape != predicted.shape:
            raise InvalidInput(f"log_likelihood must have shape {predicted.shape}, got {values.shape}")
        posterior, evidence = filter_update(predicted, values)
        self.posterior = posterior
        self.observations += 1
        self.log_likelihood += evidence
        return posterior

    def step(self, x: Any) -> Floats:
        """``update`` with the bound model's ln P(x | s); x is one observation (features,), all NaN when missing."""
        if self.emission is None:
            raise InvalidInput("this filter has no emission model: call update(), or make it by a model's online()")
        return self.update(self.emission(x))
