"""From emission likelihoods to what is asked: likelihood, posteriors with counts, the best path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hllm.errors import InvalidInput
from hllm.hmm import accelerator, blocks, logspace, viterbi
from hllm.hmm.layout import Layout
from hllm.hmm.validation import Floats, Ints

IMPOSSIBLE = "the model gives these observations probability 0: a path that they need has a zero in its parameters"

Emission = Callable[[], Floats]
"""Makes ln P(x | s) afresh, (steps, K, blocks): the scaled recursions overwrite it, and may have to give up."""


class Data(Protocol):
    """Observations as an emission model has prepared them."""

    @property
    def layout(self) -> Layout:
        """Where they lie."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the E-step hands to the M-step. States K."""

    log_likelihood: float
    posteriors: Floats  # P(s_t | y), (steps, K, blocks), 0 in padding
    start: Floats  # sum over sequences of P(s_1 | y), (K,)
    transitions: Floats  # sum of P(s_t, s_t+1 | y), (K, K)


def _sequences(emission: Floats, layout: Layout) -> list[Floats]:
    return np.split(layout.collect(emission), layout.lengths.cumsum()[:-1])


def log_likelihood(emission: Emission, layout: Layout, startprob: Floats, transmat: Floats) -> float:
    """ln P(y) summed over the sequences, in nats. Raises InvalidInput if one is impossible."""
    values = emission()
    top = blocks.relative(values)
    fast = accelerator.active()
    if fast is not None:
        made = accelerator.smooth(fast, values, layout, startprob, transmat, both=False)
        total = None if made is None else made[0]
    else:
        total = blocks.evidence(values, layout, startprob, transmat)
    if total is not None:
        return total + float(top.sum())
    parts = [logspace.forward(part, startprob, transmat)[-1] for part in _sequences(emission(), layout)]
    total = float(logspace.logsumexp(np.array(parts), 1).sum())
    if np.isneginf(total):
        raise InvalidInput(IMPOSSIBLE)
    return total


def expectation(emission: Emission, layout: Layout, startprob: Floats, transmat: Floats) -> Statistics:
    """Forward-backward. Raises InvalidInput if a sequence is impossible."""
    values = emission()
    top = blocks.relative(values)
    fast = accelerator.active()
    if fast is not None:
        found = accelerator.smooth(fast, values, layout, startprob, transmat, both=True)
    else:
        found = blocks.smooth(values, layout, startprob, transmat)
    if found is not None:
        logarithm, posteriors, pairs = found
        return Statistics(logarithm + float(top.sum()), posteriors, posteriors[0][:, layout.first].sum(axis=1), pairs)
    parts = [logspace.smooth(part, startprob, transmat) for part in _sequences(emission(), layout)]
    total = sum(part[0] for part in parts)
    if np.isneginf(total):
        raise InvalidInput(IMPOSSIBLE)
    posteriors = np.empty_like(values)
    layout.spread(np.concatenate([part[1] for part in parts]), posteriors)
    start = np.sum([part[1][0] for part in parts], axis=0)
    return Statistics(total, posteriors, start, np.sum([part[2] for part in parts], axis=0))


def best_path(emission: Emission, layout: Layout, startprob: Floats, transmat: Floats) -> tuple[float, Ints]:
    """Sum over sequences of ln P(best path, y), and the paths, (samples,). Raises InvalidInput if one is impossible."""
    total, path = viterbi.best_path(emission(), layout, startprob, transmat)
    if np.isneginf(total):
        raise InvalidInput(IMPOSSIBLE)
    return total, path
