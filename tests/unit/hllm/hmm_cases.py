"""Oracles and data of the tests of hllm.hmm: enumeration of all paths, hmmlearn set to the same parameters."""

from __future__ import annotations

from itertools import product

import numpy as np


def enumerate_paths(emission, startprob, transmat):
    """By summing over all K^T paths: likelihood, posteriors (T, K), best path, its probability."""
    steps, states = emission.shape
    total, posteriors, best = 0.0, np.zeros((steps, states)), (0.0, ())
    for path in product(range(states), repeat=steps):
        weight = startprob[path[0]] * emission[0, path[0]]
        for t in range(1, steps):
            weight *= transmat[path[t - 1], path[t]] * emission[t, path[t]]
        total += weight
        for t, state in enumerate(path):
            posteriors[t, state] += weight
        best = max(best, (weight, path))
    return total, posteriors / total, np.array(best[1]), best[0]


def random_chain(rng, states, stay=2.0):
    """startprob (K,), transmat (K, K)."""
    transmat = rng.dirichlet(np.ones(states), size=states) + stay * np.eye(states)
    return rng.dirichlet(np.full(states, 3.0)), transmat / transmat.sum(axis=1, keepdims=True)


def gaussian_sequence(rng, samples, states, features, spread=3.0):
    """Observations (T, D) of a sticky chain, off the origin, and the states."""
    start, transmat = random_chain(rng, states, stay=20.0)
    means = 5.0 + spread * rng.normal(size=(states, features))
    path = np.empty(samples, dtype=int)
    path[0] = rng.choice(states, p=start)
    for t in range(1, samples):
        path[t] = rng.choice(states, p=transmat[path[t - 1]])
    return means[path] + rng.normal(size=(samples, features)) * (1 + 0.3 * path)[:, None], path


def set_gaussian(model, rng, X, kind):
    """The same rough start for ours and for hmmlearn's."""
    states, features = model.n_components, X.shape[1]
    model.startprob_, model.transmat_ = random_chain(rng, states)
    model.means_ = X[rng.integers(0, len(X), states)] + 0.1 * rng.normal(size=(states, features))
    total = np.cov(X.T).reshape(features, features)
    model.covars_ = {
        "spherical": np.full(states, np.diag(total).mean()),
        "diag": np.tile(np.diag(total), (states, 1)),
        "full": np.tile(total, (states, 1, 1)),
        "tied": total,
    }[kind]
    return model
