"""Forward-backward in logarithms: slow, and right whatever the range of the probabilities.

Rabiner, "A tutorial on hidden Markov models", Proc. IEEE 77(2), 1989, §III, with log-sum-exp for sums.
Arrays have the shape (steps, states, blocks) of ``Layout``; a block is a sequence here.
"""

from __future__ import annotations

import numpy as np

from hllm.hmm.validation import Floats


def log(values: Floats) -> Floats:
    """Logarithms, -inf for 0 without a warning."""
    with np.errstate(divide="ignore"):
        return np.log(values)


def logsumexp(values: Floats, axis: int) -> Floats:
    """log Σ exp along an axis; -inf where all are -inf."""
    top = values.max(axis=axis, keepdims=True)
    top[np.isneginf(top)] = 0.0
    out: Floats = log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
    return out


def forward(emission: Floats, startprob: Floats, transmat: Floats) -> Floats:
    """log P(y_1..t, s_t), shape (steps, states, blocks), from log P(y_t | s_t) of the same shape."""
    transitions = log(transmat)[:, :, None]
    out = np.empty_like(emission)
    out[0] = log(startprob)[:, None] + emission[0]
    for step in range(1, len(out)):
        out[step] = logsumexp(out[step - 1][:, None, :] + transitions, 0) + emission[step]
    return out


def backward(emission: Floats, transmat: Floats) -> Floats:
    """log P(y_t+1.. | s_t), shape (steps, states, blocks)."""
    transitions = log(transmat)[:, :, None]
    out = np.zeros_like(emission)
    for step in range(len(out) - 2, -1, -1):
        out[step] = logsumexp(transitions + (emission[step + 1] + out[step + 1])[None], 1)
    return out


def smooth(emission: Floats, startprob: Floats, transmat: Floats) -> tuple[Floats, Floats, Floats]:
    """Log-likelihoods (blocks,), posteriors (steps, states, blocks), Σ_t P(s_t, s_t+1 | y) per step and pair.

    The last has shape (steps - 1, states, states, blocks): the caller leaves out padding before summing. Where a
    log-likelihood is -inf (the model cannot make the sequence) the rest is meaningless.
    """
    ahead, behind = forward(emission, startprob, transmat), backward(emission, transmat)
    likelihood = logsumexp(ahead[-1], 0)
    scale = np.where(np.isneginf(likelihood), 0.0, likelihood)
    posteriors = np.exp(ahead + behind - scale)
    later = (emission + behind)[1:, None, :, :] - scale
    pairs = np.exp(ahead[:-1, :, None, :] + log(transmat)[:, :, None] + later)
    return likelihood, posteriors, pairs
