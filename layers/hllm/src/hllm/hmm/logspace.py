"""The recursions in logarithms, one sequence at a time: slow, and right whatever the range of the probabilities.

Rabiner, "A tutorial on hidden Markov models", Proc. IEEE 77(2), 1989, III, with log-sum-exp for sums.
``emission`` is ln P(y_t | s_t), shape (T, K).
"""

from __future__ import annotations

import numpy as np

from hllm.hmm.validation import Floats


def log(values: Floats) -> Floats:
    """Logarithms, -inf for 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def logsumexp(values: Floats, axis: int) -> Floats:
    """ln of the sum of exp along an axis; -inf where all are -inf."""
    top = values.max(axis=axis, keepdims=True)
    top[np.isneginf(top)] = 0.0
    out: Floats = log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
    return out


def forward(emission: Floats, startprob: Floats, transmat: Floats) -> Floats:
    """ln P(y_1..t, s_t), (T, K)."""
    transitions = log(transmat)
    out = np.empty_like(emission)
    out[0] = log(startprob) + emission[0]
    for step in range(1, len(out)):
        out[step] = logsumexp(out[step - 1][:, None] + transitions, 0) + emission[step]
    return out


def backward(emission: Floats, transmat: Floats) -> Floats:
    """ln P(y_t+1.. | s_t), (T, K)."""
    transitions = log(transmat)
    out = np.zeros_like(emission)
    for step in range(len(out) - 2, -1, -1):
        out[step] = logsumexp(transitions + emission[step + 1] + out[step + 1], 1)
    return out


def smooth(emission: Floats, startprob: Floats, transmat: Floats) -> tuple[float, Floats, Floats]:
    """ln P(y), posteriors (T, K), sum of P(s_t, s_t+1 | y) (K, K). Where the first is -inf the rest is zeros."""
    ahead = forward(emission, startprob, transmat)
    likelihood = float(logsumexp(ahead[-1], 0))
    pairs = np.zeros_like(transmat)
    if np.isneginf(likelihood):
        return likelihood, np.zeros_like(emission), pairs
    behind = backward(emission, transmat)
    transitions = log(transmat)
    later = emission + behind - likelihood
    for step in range(1, len(emission)):
        # Normalised at each step: where logarithms are large, their differences have few digits.
        each = np.exp(ahead[step - 1][:, None] + transitions + later[step])
        pairs += each / each.sum()
    joint = ahead + behind
    posteriors = np.exp(joint - joint.max(axis=1, keepdims=True))
    return likelihood, posteriors / posteriors.sum(axis=1, keepdims=True), pairs
