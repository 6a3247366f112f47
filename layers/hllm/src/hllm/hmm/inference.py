"""From emission likelihoods to what is asked: likelihood, posteriors with counts, the best path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hllm.errors import InvalidInput
from hllm.hmm import logspace
from hllm.hmm.layout import Layout
from hllm.hmm.validation import Floats, Ints

IMPOSSIBLE = "the model gives these observations probability 0: a path that they need has a zero in its parameters"


class Data(Protocol):
    """Observations as an emission model has prepared them."""

    layout: Layout


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the E-step hands to the M-step. States K, sequences S."""

    log_likelihood: float
    posteriors: Floats  # P(s_t | y), (steps, K, blocks), 0 in padding
    start: Floats  # Σ over sequences of P(s_1 | y), (K,)
    transitions: Floats  # Σ P(s_t, s_t+1 | y), (K, K)

    @property
    def occupancy(self) -> Floats:
        """Expected number of samples per state, (K,)."""
        out: Floats = self.posteriors.sum(axis=(0, 2))
        return out


def log_likelihood(emission: Floats, layout: Layout, startprob: Floats, transmat: Floats) -> float:
    """Σ over sequences of ln P(y), in nats. Raises InvalidInput if a sequence is impossible."""
    total = float(logspace.logsumexp(logspace.forward(emission, startprob, transmat)[-1], 0).sum())
    if not np.isfinite(total):
        raise InvalidInput(IMPOSSIBLE)
    return total


def expectation(emission: Floats, layout: Layout, startprob: Floats, transmat: Floats) -> Statistics:
    """Forward-backward. Raises InvalidInput if a sequence is impossible."""
    likelihood, posteriors, pairs = logspace.smooth(emission, startprob, transmat)
    if not np.isfinite(likelihood).all():
        raise InvalidInput(IMPOSSIBLE)
    if layout.padding is not None:
        posteriors.transpose(0, 2, 1)[layout.padding] = 0.0
        pairs.transpose(0, 3, 1, 2)[layout.padding[1:]] = 0.0
    start: Floats = posteriors[0].sum(axis=1)
    return Statistics(float(likelihood.sum()), posteriors, start, pairs.sum(axis=(0, 3)))


def viterbi(emission: Floats, layout: Layout, startprob: Floats, transmat: Floats) -> tuple[float, Ints]:
    """Σ over sequences of ln P(best path, y), and the paths, (samples,). Raises InvalidInput if one is impossible."""
    transitions = logspace.log(transmat)
    best = np.empty_like(emission)
    best[0] = logspace.log(startprob)[:, None] + emission[0]
    for step in range(1, len(best)):
        best[step] = (best[step - 1][:, None, :] + transitions[:, :, None]).max(axis=0) + emission[step]
    paths = np.empty((layout.steps, 1, layout.blocks))
    # Rows of a transition matrix sum to 1, so the padding would charge its cheapest path: begin at the true ends.
    ends = layout.lengths - 1
    total = 0.0
    for block, end in enumerate(ends):
        state = int(best[end, :, block].argmax())
        total += float(best[end, state, block])
        for step in range(end, -1, -1):
            paths[step, 0, block] = state
            if step:
                state = int((best[step - 1, :, block] + transitions[:, state]).argmax())
    if not np.isfinite(total):
        raise InvalidInput(IMPOSSIBLE)
    return total, layout.collect(paths)[:, 0].astype(np.int64)
