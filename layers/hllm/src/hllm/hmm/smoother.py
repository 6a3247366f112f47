"""Fixed-lag smoothing: what the next few observations say about a state, in memory that does not grow."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hllm.errors import InvalidInput
from hllm.hmm import logspace
from hllm.hmm.online import OnlineFilter
from hllm.hmm.validation import Floats

LEAST = 1e-200


class FixedLagSmoother:
    """P(s_t-lag | y_1..t) with each observation: ``lag`` later than the filter, and surer.

    It wraps an ``OnlineFilter`` and keeps ``lag`` vectors. Time per step is lag K x K products: Rabiner's backward
    recursion over the window. Source: Anderson and Moore, "Optimal Filtering", 1979, ch. 7, for finite chains.
    """

    def __init__(self, online: OnlineFilter, lag: int) -> None:
        if lag != int(lag) or lag < 0:
            raise InvalidInput(f"lag must be a whole number from 0, got {lag!r}")
        if type(online) is not OnlineFilter:
            raise InvalidInput("the smoother takes an OnlineFilter of a model without lags of its own")
        self.online = online
        self.lag = int(lag)
        self._filtered: deque[Floats] = deque(maxlen=self.lag + 1)
        self._seen: deque[Floats] = deque(maxlen=self.lag + 1)

    def reset(self) -> None:
        """Forget all observations: the next is the first of a sequence."""
        self.online.reset()
        self._filtered.clear()
        self._seen.clear()

    def update(self, log_likelihood: ArrayLike) -> Floats | None:
        """P(s_t-lag | y_1..t), (K,), from ln P(y_t | s_t); None while there are not more than ``lag`` observations."""
        values = np.asarray(log_likelihood, dtype=np.float64)
        self._filtered.append(self.online.update(values))
        self._seen.append(values)
        return self._smoothed(0) if len(self._seen) > self.lag else None

    def step(self, x: Any) -> Floats | None:
        """``update`` with ln P(x | s) of the model that the filter is bound to."""
        if self.online.emission is None:
            raise InvalidInput("this filter has no emission model: call update(), or make it by a model's online()")
        return self.update(self.online.emission(x))

    def drain(self) -> Floats:
        """At the end of a sequence: P(s | all) of those that no step has told yet, (up to lag, K); then ``reset``."""
        begin = 1 if len(self._seen) > self.lag else 0
        rest = [self._smoothed(at) for at in range(begin, len(self._seen))]
        self.reset()
        return np.array(rest).reshape(len(rest), len(self.online.startprob))

    def _smoothed(self, at: int) -> Floats:
        transmat, filtered = self.online.transmat, self._filtered[at]
        ahead = np.ones(len(filtered))
        for position in range(len(self._seen) - 1, at, -1):
            seen = self._seen[position]
            ahead = transmat @ (np.exp(seen - seen.max()) * ahead)
            top = ahead.max()
            if not top > LEAST:
                return self._in_logarithms(at)
            ahead /= top
        joint = filtered * ahead
        total = joint.sum()
        return np.asarray(joint / total) if total > LEAST else self._in_logarithms(at)

    def _in_logarithms(self, at: int) -> Floats:
        """The filter excluded a state that the future wants: doubles do not suffice."""
        window = np.array(self._seen)[at:]
        joint = logspace.log(self._filtered[at]) + logspace.backward(window, self.online.transmat)[0]
        return np.asarray(np.exp(joint - logspace.logsumexp(joint, 0)))
