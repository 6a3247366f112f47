"""The regressions of a Markov-switching autoregression, and its filter. Hamilton 1990, J. Econometrics 45."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from hllm.errors import InvalidInput
from hllm.hmm.online import OnlineFilter
from hllm.hmm.validation import LARGEST, Floats, Ints


class Regression:
    """Weighted moments of (1, y_t, ..., y_t-p) for each state of the recursions, and what follows from them."""

    def __init__(self, tuples: Ints, values: Floats, there: Floats, posteriors: Floats) -> None:
        steps, width, blocks = values.shape
        full = np.empty((steps, width + 1, blocks))
        full[:, 0], full[:, 1:] = there, values
        rows, columns = np.triu_indices(width + 1)
        products = full[:, rows] * full[:, columns]
        sums = np.matmul(posteriors, products.transpose(0, 2, 1)).sum(axis=0)
        self.tuples, self.now = tuples, tuples[:, 0]
        self.states = int(tuples.max()) + 1
        self.moments = np.empty((len(tuples), width + 1, width + 1))
        self.moments[:, rows, columns] = sums
        self.moments[:, columns, rows] = sums
        self.held = np.bincount(self.now, weights=self.moments[:, 0, 0], minlength=self.states)

    def means(self, ar: Floats, variances: Floats, before: Floats) -> Floats:
        """The means that maximise the likelihood given the coefficients, (K,)."""
        filters: Floats = np.concatenate([np.ones((self.states, 1)), -ar], axis=1)[self.now]
        member = np.equal(self.tuples[:, :, None], np.arange(self.states))
        loads = np.einsum("ml,mlk->mk", filters, member)  # how each mean enters the residual
        precision = 1 / variances[self.now]
        filtered = np.einsum("ml,ml->m", self.moments[:, 0, 1:], filters)
        normal = np.einsum("mi,mj,m->ij", loads, loads, precision * self.moments[:, 0, 0])
        return _solve(normal, loads.T @ (precision * filtered), before)

    def _centred(self, means: Floats) -> Floats:
        """Moments of y_t-i - mu(s_t-i), (states of the recursions, p + 1, p + 1)."""
        width = self.tuples.shape[1]
        shift = np.zeros((len(self.tuples), width, width + 1))
        shift[:, :, 0] = -means[self.tuples]
        shift[:, np.arange(width), np.arange(1, width + 1)] = 1.0
        out: Floats = shift @ self.moments @ np.swapaxes(shift, 1, 2)
        return out

    def coefficients(self, means: Floats, variances: Floats, *, each: bool, before: Floats) -> Floats:
        """The coefficients that maximise the likelihood given the means, (K, p)."""
        centred = self._centred(means) / variances[self.now][:, None, None]
        groups = [self.now == state for state in range(self.states)] if each else [np.ones(len(self.now), dtype=bool)]
        found = []
        for at, group in enumerate(groups):
            total = centred[group].sum(axis=0)
            found.append(_solve(total[1:, 1:], total[1:, 0], before[at]))
        return np.array(found) if each else np.tile(found[0], (self.states, 1))

    def variances(self, means: Floats, ar: Floats, *, each: bool, before: Floats) -> Floats:
        """Weighted mean squares of the residuals, (K,)."""
        filters = np.concatenate([np.ones((self.states, 1)), -ar], axis=1)[self.now]
        squares = np.einsum("mi,mij,mj->m", filters, self._centred(means), filters)
        sums = np.bincount(self.now, weights=squares, minlength=self.states)
        if not each:
            return np.full(self.states, max(float(sums.sum() / self.held.sum()), 0.0))
        out: Floats = np.where(self.held > 0, np.maximum(sums, 0.0) / np.where(self.held > 0, self.held, 1.0), before)
        return out


def _solve(normal: Floats, right: Floats, before: Floats) -> Floats:
    """Least squares nearest to what was before: directions without data stay."""
    step = np.linalg.lstsq(normal, right - normal @ before)[0]
    return np.asarray(before + step, dtype=np.float64)


def point_density(tuples: Ints, means: Floats, ar: Floats, variances: Floats) -> Callable[[Any], Floats]:
    """ln P(y_t | y_t-1, ..., states) of one window y_t, y_t-1, ..., for each state of the recursions."""
    now = tuples[:, 0]
    filters = np.concatenate([np.ones((len(means), 1)), -ar], axis=1)
    offsets = (filters[now] * means[tuples]).sum(axis=1)
    constants = (-0.5 * np.log(2 * np.pi * variances))[now]
    precision = (0.5 / variances)[now]

    def density(window: Any) -> Floats:
        away = (filters @ window)[now] - offsets
        out: Floats = constants - precision * away * away
        return out

    return density


class LaggedFilter(OnlineFilter):
    """``OnlineFilter`` of an autoregressive model: ``step`` takes values, and keeps the last ``order`` of them."""

    def __init__(
        self,
        startprob: Floats,
        transmat: Floats,
        wide_start: Floats,
        wide_transmat: Floats,
        tuples: Ints,
        emission: Callable[[Any], Floats],
    ) -> None:
        self._wide = OnlineFilter(wide_start, wide_transmat)
        self._tuples = tuples
        self._window: deque[float] = deque(maxlen=tuples.shape[1])
        super().__init__(startprob, transmat, emission)

    def reset(self) -> None:
        """Forget all observations: the next is the first of a sequence."""
        super().reset()
        self._wide.reset()
        self._window.clear()

    def step(self, x: Any) -> Floats:
        """P(s_t | y_1..t), (K,). Before ``order`` values are known, that of the chain alone."""
        value = float(np.asarray(x, dtype=np.float64).reshape(-1)[0]) if np.size(x) == 1 else np.nan
        if not abs(value) < LARGEST:
            raise InvalidInput(f"an observation must be one finite number, got {x!r}")
        self._window.appendleft(value)
        if len(self._window) < self._tuples.shape[1]:
            return super().update(np.zeros(len(self.startprob)))
        assert self.emission is not None
        before = self._wide.log_likelihood
        wide = self._wide.update(self.emission(np.array(self._window)))
        self.log_likelihood += self._wide.log_likelihood - before
        self.observations += 1
        posterior = np.zeros(len(self.startprob))
        np.add.at(posterior, self._tuples[:, 0], wide)
        self.posterior = posterior
        return posterior

    def update(self, log_likelihood: Any) -> Floats:
        """Not for this filter: what is likely depends on the past states. Raises InvalidInput."""
        raise InvalidInput("a filter of an autoregressive model takes values: call step()")
