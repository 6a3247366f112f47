"""Markov-switching autoregression: the mean that a series returns to depends on a hidden state."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hllm.errors import InvalidInput, NotFitted
from hllm.hmm import inference, switching
from hllm.hmm.base import BaseHMM, Lengths, checked_rows
from hllm.hmm.inference import Statistics
from hllm.hmm.layout import Layout
from hllm.hmm.online import OnlineFilter
from hllm.hmm.stationary import maximise, stationary
from hllm.hmm.validation import Floats, Ints, RandomState

LARGEST = 1024
"""States of the recursions, K ** (order + 1), at most."""
LARGEST_VALUE = 1e100
"""What a series that does not explode stays below."""
SMALL = 8
"""Up to so many states, sequences are cut into blocks."""


@dataclass(frozen=True, slots=True)
class Lags:
    """A series prepared: ``values`` (steps, order + 1, blocks) holds y_t, y_t-1, ..., standardised; 0 in padding."""

    layout: Layout  # of the rows that have all their lags
    lengths: Ints  # of the sequences as given
    values: Floats
    there: Floats  # 1, or 0 in padding, (steps, blocks)
    centre: float
    scale: float
    series: Floats  # as given, (n_samples,)


class AutoregressiveHMM(BaseHMM):
    """Hamilton's MS-AR(p): y_t - mu(s_t) = sum_i phi_i (y_t-i - mu(s_t-i)) + e_t, e_t Normal(0, variance).

    Hamilton, "A new approach to the economic analysis of nonstationary time series and the business cycle",
    Econometrica 57(2), 1989. The recursions run on (s_t, ..., s_t-p), K ** (order + 1) states. X has shape
    (n_samples, 1), without missing observations; the likelihood is conditional on the first ``order`` values of each
    sequence, whose states are inferred all the same. Baum-Welch as in Hamilton 1990, with the means and the
    coefficients maximised in turn (ECM).

    ``means_`` (K,), ``ar_`` (K, order), ``variances_`` (K,): the last two are equal for all states unless
    ``switching_ar``, ``switching_variance``. With ``stationary_start`` ``startprob_`` is the stationary distribution
    of ``transmat_``, as Hamilton has it, else it is a parameter. ``params`` are letters of ``stmav``.
    """

    PARAMETERS = {"s": "startprob_", "t": "transmat_", "m": "means_", "a": "ar_", "v": "variances_"}  # noqa: RUF012

    means_: Any
    ar_: Any
    variances_: Any

    def __init__(  # noqa: PLR0913
        self,
        n_components: int = 2,
        order: int = 1,
        *,
        switching_ar: bool = False,
        switching_variance: bool = False,
        stationary_start: bool = True,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        algorithm: str = "viterbi",
        random_state: RandomState = None,
        n_iter: int = 200,
        tol: float = 1e-6,
        verbose: bool = False,
        params: str = "stmav",
        init_params: str = "stmav",
        stickiness: float = 0.0,
        n_restarts: int = 1,
        allow_collapse: bool = False,
    ) -> None:
        self.n_components = n_components
        self.order = order
        self.switching_ar = switching_ar
        self.switching_variance = switching_variance
        self.stationary_start = stationary_start
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.stickiness = stickiness
        self.n_restarts = n_restarts
        self.allow_collapse = allow_collapse

    # Settings, parameters.

    def _check_settings(self) -> None:
        super()._check_settings()
        self._check_size()

    def _check_size(self) -> None:
        if self.order != int(self.order) or self.order < 1:
            raise InvalidInput(f"order must be a whole number from 1, got {self.order!r}; GaussianHMM has no lags")
        if self.n_components ** (self.order + 1) > LARGEST:
            raise InvalidInput(
                f"{self.n_components} states and {self.order} lags make {self.n_components ** (self.order + 1)} "
                f"states of the recursions; at most {LARGEST} are possible: lower order or n_components"
            )

    def _check(self) -> None:
        self._check_size()
        if self.stationary_start and hasattr(self, "transmat_"):
            transmat = np.asarray(self.transmat_, dtype=np.float64)
            if transmat.shape == (self.n_components, self.n_components) and np.isfinite(transmat).all():
                self.startprob_ = stationary(transmat)
        super()._check()
        states, order = self.n_components, self.order
        for name, shape in (("means_", (states,)), ("ar_", (states, order)), ("variances_", (states,))):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise InvalidInput(f"{name} must be finite, of shape {shape}, got {value.shape}")
            setattr(self, name, value)
        if (self.variances_ <= 0).any():
            raise InvalidInput("variances_ must be positive")

    def _tuples(self) -> Ints:
        """The states of the recursions, (K ** (order + 1), order + 1): s_t, s_t-1, ..., the oldest counting fastest."""
        return np.array(list(product(range(self.n_components), repeat=self.order + 1)), dtype=np.int64)

    def _chain(self) -> tuple[Floats, Floats]:
        tuples = self._tuples()
        start = self.startprob_[tuples[:, -1]]
        for lag in range(self.order, 0, -1):
            start = start * self.transmat_[tuples[:, lag], tuples[:, lag - 1]]
        shifted = (tuples[:, None, :-1] == tuples[None, :, 1:]).all(axis=2)
        return start, np.where(shifted, self.transmat_[tuples[:, 0][:, None], tuples[:, 0][None]], 0.0)

    # Emission.

    def _prepared(self, X: ArrayLike, lengths: Lengths) -> Lags:
        rows, layout = checked_rows(X, lengths, 1)
        series = rows[:, 0]
        if np.isnan(series).any():
            raise InvalidInput("an autoregressive model takes no missing observations: fill them in, or cut there")
        given = layout.lengths
        if given.min() <= self.order:
            raise InvalidInput(f"each sequence must be longer than order = {self.order}, got one of {given.min()}")
        begins = given.cumsum() - given
        at = np.concatenate([np.arange(b + self.order, b + n) for b, n in zip(begins, given, strict=True)])
        centre, scale = float(series.mean()), float(series.std())
        scale = scale if scale > 1e-12 * abs(centre) else 1.0
        lagged = ((series - centre) / scale)[at[:, None] - np.arange(self.order + 1)]
        cut = Layout(given - self.order, whole=self.n_components ** (self.order + 1) > SMALL)
        values = np.empty((cut.steps, self.order + 1, cut.blocks))
        cut.spread(lagged, values)
        there = np.ones((cut.steps, cut.blocks))
        if cut.padding is not None:
            there[cut.padding] = 0.0
        return Lags(cut, given, values, there, centre, scale, series)

    def _emission(self, data: Lags) -> Floats:
        tuples = self._tuples()
        means = (self.means_ - data.centre) / data.scale
        filters = np.concatenate([np.ones((self.n_components, 1)), -self.ar_], axis=1)
        now = tuples[:, 0]
        offsets = (filters[now] * means[tuples]).sum(axis=1)
        deviations = np.sqrt(self.variances_)
        away = np.take(np.matmul(filters, data.values), now, axis=1) - offsets[:, None]
        away *= (data.scale / deviations)[now][:, None]
        np.multiply(away, away, out=away)
        away *= -0.5
        away -= (0.5 * np.log(2 * np.pi) + np.log(deviations))[now][:, None]
        if data.layout.padding is not None:
            away *= data.there[:, None, :]
        return np.asarray(away)

    def _initialise(self, data: Lags, letters: set[str], rng: np.random.Generator, restart: int) -> None:
        states, spread = self.n_components, float(data.series.std()) or 1.0
        if "m" in letters:
            shares = (np.arange(states) + 0.5) / states if restart == 0 else np.sort(rng.random(states))
            self.means_ = np.quantile(data.series, shares)
        if "a" in letters:
            self.ar_ = np.zeros((states, self.order))
        if "v" in letters:
            self.variances_ = np.full(states, spread**2 * (1.0 if restart == 0 else rng.uniform(0.1, 1.0)))

    # Learning.

    def _expectation(self, data: Any) -> Statistics:
        found = inference.expectation(lambda: self._emission(data), data.layout, *self._chain())
        tuples, states = self._tuples(), self.n_components
        opening = found.posteriors[0][:, data.layout.first].sum(axis=1)
        start = np.zeros(states)
        np.add.at(start, tuples[:, -1], opening)
        transitions = np.zeros((states, states))
        np.add.at(transitions, (tuples[:, 0][:, None], tuples[:, 0][None]), found.transitions)
        for lag in range(self.order, 0, -1):
            np.add.at(transitions, (tuples[:, lag], tuples[:, lag - 1]), opening)
        return Statistics(found.log_likelihood, found.posteriors, start, transitions)

    def _maximise_chain(self, statistics: Statistics) -> None:
        super()._maximise_chain(statistics)
        if self.stationary_start and "t" in self.params:
            prior = np.asarray(self.transmat_prior, dtype=np.float64) - 1
            counts = statistics.transitions + prior + self.stickiness * np.eye(self.n_components)
            self.transmat_ = maximise(self.transmat_, np.maximum(counts, 0.0), statistics.start)
        if self.stationary_start:
            self.startprob_ = stationary(self.transmat_)

    def _maximise(self, data: Lags, posteriors: Floats) -> None:
        fitted = switching.Regression(self._tuples(), data.values, data.there, posteriors)
        means = (self.means_ - data.centre) / data.scale
        variances = self.variances_ / data.scale**2
        ar = self.ar_
        if "m" in self.params:
            means = fitted.means(ar, variances, means)
        if "a" in self.params:
            ar = fitted.coefficients(means, variances, each=self.switching_ar, before=ar)
        if "v" in self.params:
            variances = fitted.variances(means, ar, each=self.switching_variance, before=variances)
        self.means_ = means * data.scale + data.centre
        self.ar_, self.variances_ = ar, variances * data.scale**2

    def _collapsed(self, data: Lags, occupancy: Floats, *, ended: bool) -> str | None:
        finest = 16 * np.finfo(np.float64).eps * (abs(data.centre) + data.scale)
        if not np.isfinite(self.variances_).all() or (self.variances_ <= finest**2).any():
            return "singular variance"
        held = np.bincount(self._tuples()[:, 0], weights=occupancy, minlength=self.n_components)
        if self.n_components > 1 and held.min() < 1.0:
            return f"state {int(held.argmin())} holds {held.min():.3g} samples"
        if ended:
            for one, other in product(range(self.n_components), repeat=2):
                same = np.abs(self.means_[one] - self.means_[other]) < 1e-6 * data.scale
                alike = np.allclose(self.ar_[one], self.ar_[other], rtol=0, atol=1e-6)
                if other < one and same and alike and np.isclose(self.variances_[one], self.variances_[other]):
                    return f"states {other} and {one} are equal"
        return None

    # Inference.

    def _posterior_rows(self, data: Lags, posteriors: Floats) -> Floats:
        tuples, order = self._tuples(), self.order
        member = np.equal(tuples[:, :, None], np.arange(self.n_components)).astype(np.float64)
        rows = data.layout.collect(posteriors)
        now, out = rows @ member[:, 0], list[Floats]()
        begins = data.layout.lengths.cumsum() - data.layout.lengths
        for begin, length in zip(begins, data.layout.lengths, strict=True):
            out.extend(rows[begin] @ member[:, lag] for lag in range(order, 0, -1))
            out.extend(now[begin : begin + length])
        return np.array(out)

    def _path_rows(self, data: Lags, path: Ints) -> Ints:
        tuples, out = self._tuples(), list[Ints]()
        begins = data.layout.lengths.cumsum() - data.layout.lengths
        for begin, length in zip(begins, data.layout.lengths, strict=True):
            out.append(tuples[path[begin], :0:-1])
            out.append(tuples[path[begin : begin + length], 0])
        return np.concatenate(out)

    def _emit(self, states: Ints, rng: np.random.Generator) -> Floats:
        run_in = 100 * self.order
        path = np.concatenate([np.full(run_in, states[0]), states])
        noise = rng.standard_normal(len(path)) * np.sqrt(self.variances_)[path]
        away = np.zeros(len(path) + self.order)
        for at, state in enumerate(path):
            value = self.ar_[state] @ away[at : at + self.order][::-1] + noise[at]
            if not abs(value) < LARGEST_VALUE:
                raise InvalidInput("ar_ makes the series explode: its roots must lie outside the unit circle")
            away[at + self.order] = value
        out: Floats = (away[self.order + run_in :] + self.means_[states])[:, None]
        return out

    def _free_parameters(self) -> dict[str, int]:
        if not hasattr(self, "means_"):
            raise NotFitted("the number of parameters is not known: call fit() first")
        states = self.n_components
        return {
            "s": 0 if self.stationary_start else states - 1,
            "t": states * (states - 1),
            "m": states,
            "a": self.order * (states if self.switching_ar else 1),
            "v": states if self.switching_variance else 1,
        }

    def _point_emission(self) -> Any:
        return switching.point_density(self._tuples(), self.means_.copy(), self.ar_.copy(), self.variances_.copy())

    def online(self) -> OnlineFilter:
        """A filter for values as they come in; it keeps ``order`` of them. Its states are this model's."""
        self._check()
        start, transmat = self._chain()
        return switching.LaggedFilter(
            self.startprob_, self.transmat_, start, transmat, self._tuples(), self._point_emission()
        )
