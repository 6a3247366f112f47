"""The stationary distribution of a chain, and its part in the likelihood of a transition matrix."""

from __future__ import annotations

import numpy as np

from hllm.errors import InvalidInput
from hllm.hmm.validation import Floats


def stationary(transmat: Floats) -> Floats:
    """p with p = p A and sum 1, (K,). Raises InvalidInput if there are several (states that never meet)."""
    states = len(transmat)
    system = np.vstack([transmat.T - np.eye(states), np.ones(states)])
    wanted = np.zeros(states + 1)
    wanted[-1] = 1.0
    found, _, rank, _ = np.linalg.lstsq(system, wanted)
    if rank < states:
        raise InvalidInput("the chain has no single stationary distribution: some of its states never reach each other")
    found = np.maximum(found, 0.0)
    out: Floats = found / found.sum()
    return out


def maximise(transmat: Floats, counts: Floats, first: Floats, steps: int = 100) -> Floats:
    """The transition matrix that maximises sum(counts ln A) + sum(first ln p(A)), p stationary; from ``transmat``.

    The gradient of ln p by A is that of Schweitzer, "Perturbation theory and finite Markov chains", 1968, with
    Z = inv(I - A + 1 p): d p = p dA Z. Setting the Lagrangian's gradient to 0 gives a fixed point for A, whose
    rows the start moves by about one count.
    """
    ones, identity = np.ones(len(transmat)), np.eye(len(transmat))
    for _ in range(steps):
        law = stationary(transmat)
        inverse = np.linalg.inv(identity - transmat + np.outer(ones, law))
        pull = inverse @ (first / np.maximum(law, 1e-300))
        # Within a row a constant does nothing: the least of it keeps the weights positive.
        weights = np.maximum(counts + transmat * law[:, None] * (pull - (transmat @ pull)[:, None]), 0.0)
        total = weights.sum(axis=1, keepdims=True)
        renewed = np.where(total > 0, weights / np.where(total > 0, total, 1.0), transmat)
        moved = np.abs(renewed - transmat).max()
        transmat = renewed
        if moved < 1e-13:
            break
    return transmat
