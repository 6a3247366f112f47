"""How sticky a hidden chain is, learnt from evidence alone: the transition of the domains, without labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from hllm.errors import InvalidInput
from hllm.router_state import Array


def fit_transition(log_likelihood: Any, *, n_iter: int = 20, pseudo_count: float = 1.0) -> Array:
    """The (n, n) transition matrix of a chain whose states are seen through ``log_likelihood`` (T, n), in nats.

    Baum-Welch with the emissions held (Baum et al. 1970; scaled recursions of Rabiner 1989, III and V), started at
    a chain that stays with probability 0.9, ``pseudo_count`` in each cell. Raises InvalidInput.
    """
    try:
        e = np.array(log_likelihood, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput("log_likelihood is no array of numbers: give shape (T, n)") from None
    if e.ndim != 2 or e.shape[0] < 2 or not e.size or not np.isfinite(e).all():
        raise InvalidInput(
            f"log_likelihood has shape {e.shape}, or a number that is not finite: give (T >= 2, n), finite"
        )
    if n_iter < 1 or not pseudo_count > 0:
        raise InvalidInput(f"n_iter is {n_iter}, pseudo_count {pseudo_count}: give at least 1, and above 0")
    steps, n = e.shape
    if n == 1:
        return np.ones((1, 1))
    seen = np.exp(e - e.max(axis=1, keepdims=True))
    transition = np.where(np.eye(n) > 0, 0.9, 0.1 / (n - 1))
    forward, backward = np.empty((steps, n)), np.ones((steps, n))
    for _ in range(n_iter):
        q = np.full(n, 1 / n)
        for t in range(steps):
            q = (q @ transition if t else q) * seen[t]
            q /= q.sum()
            forward[t] = q
        b = backward[-1]
        for t in range(steps - 1, 0, -1):
            b = transition @ (seen[t] * b)
            b /= b.sum()
            backward[t - 1] = b
        # Each step's joint posterior of (before, after), normalised by itself.
        after = seen[1:] * backward[1:]
        norm = ((forward[:-1] @ transition) * after).sum(axis=1)
        joint = (forward[:-1] / norm[:, None]).T @ after * transition + pseudo_count
        transition = joint / joint.sum(axis=1, keepdims=True)
    return np.asarray(transition)
