"""What all hidden Markov models share: parameters of the chain, Baum-Welch with restarts, decoding, sampling."""

from __future__ import annotations

import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from hllm.errors import FitFailed, InvalidInput, NotFitted
from hllm.hmm import inference
from hllm.hmm.inference import Statistics
from hllm.hmm.layout import Layout
from hllm.hmm.monitor import ConvergenceMonitor
from hllm.hmm.online import OnlineFilter
from hllm.hmm.stationary import stationary
from hllm.hmm.validation import Floats, Ints, RandomState, distributions, generator, observations, sequence_lengths

Lengths = Sequence[int] | ArrayLike | None
DECODERS = ("viterbi", "map")


class BaseHMM(ABC):
    """The API of hmmlearn 0.3 (``fit score score_samples predict predict_proba decode sample``), and what it lacks.

    Of our own: ``n_restarts`` runs Baum-Welch from several starts and keeps the best (Rabiner 1989, §V.B);
    ``stickiness`` adds so many pseudo-transitions from each state to itself (MAP, after Fox et al. 2011, κ);
    ``verbose`` tells of each iteration on stderr. ``implementation`` ("log" or "scaling") changes nothing here: one
    recursion is scaled, and goes to logarithms where doubles do not suffice.
    ``allow_collapse`` accepts a fit in which states are empty or equal, which otherwise is FitFailed; ``online()``.
    """

    PARAMETERS: ClassVar[dict[str, str]] = {"s": "startprob_", "t": "transmat_"}
    """By the letters of ``params`` and ``init_params``: the attribute that holds what is learnt."""

    n_components: int
    startprob_prior: Any
    transmat_prior: Any
    stickiness: float
    algorithm: str
    random_state: RandomState
    n_iter: int
    tol: float
    n_restarts: int
    allow_collapse: bool
    verbose: bool
    params: str
    init_params: str
    implementation: str = "log"
    startprob_: Any
    transmat_: Any
    monitor_: ConvergenceMonitor
    restarts_: list[str]

    # What a kind of emission brings.

    @abstractmethod
    def _prepared(self, X: ArrayLike, lengths: Lengths) -> inference.Data:
        """Checked observations of the model's number of features, in the layout of the recursions."""

    @abstractmethod
    def _emission(self, data: Any) -> Floats:
        """ln P(x | s), shape (steps, states, blocks), a fresh array; 0 for padding and missing observations."""

    @abstractmethod
    def _initialise(self, data: Any, letters: set[str], rng: np.random.Generator, restart: int) -> None:
        """First values of the emission's parameters of these letters."""

    @abstractmethod
    def _maximise(self, data: Any, posteriors: Floats) -> None:
        """The M-step of the emission's parameters, from P(s_t | y), shape (steps, states, blocks), 0 in padding."""

    @abstractmethod
    def _collapsed(self, data: Any, occupancy: Floats, *, ended: bool) -> str | None:
        """Why the fit is degenerate: an empty state, a singular covariance, at the end also equal states; or None."""

    @abstractmethod
    def _emit(self, states: Ints, rng: np.random.Generator) -> Floats:
        """An observation for each of these states, shape (samples, features)."""

    @abstractmethod
    def _free_parameters(self) -> dict[str, int]:
        """By letter: how many numbers are free."""

    @abstractmethod
    def _point_emission(self) -> Any:
        """A function from one observation (features,) to ln P(x | s), shape (states,), for the online filter."""

    # The chain.

    def _check(self) -> None:
        """Validates and normalises the parameters, as the user may have set them."""
        for letter, name in self.PARAMETERS.items():
            if not hasattr(self, name):
                raise NotFitted(f"{name.lstrip('_')} is not known (letter {letter!r}): call fit() first, or set it")
        states = int(self.n_components)
        self.startprob_ = distributions(self.startprob_, "startprob_", (states,))
        self.transmat_ = distributions(self.transmat_, "transmat_", (states, states))

    def _check_settings(self) -> None:
        known = set(self.PARAMETERS)
        for name in ("params", "init_params"):
            value = getattr(self, name)
            if not isinstance(value, str) or not set(value) <= known:
                raise InvalidInput(f"{name} must be letters of {''.join(sorted(known))!r}, got {value!r}")
        for name, least in (("n_iter", 1), ("n_restarts", 1), ("n_components", 1)):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < least:
                raise InvalidInput(f"{name} must be a whole number from {least}, got {value!r}")
        if self.implementation not in ("log", "scaling"):
            raise InvalidInput(f"implementation must be 'log' or 'scaling', got {self.implementation!r}")
        if not np.isfinite(self.stickiness) or self.stickiness < 0:
            raise InvalidInput(f"stickiness must be 0 or more, got {self.stickiness!r}")
        for name in ("startprob_prior", "transmat_prior"):
            prior = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.isfinite(prior).all() or (prior < 0).any():
                raise InvalidInput(f"{name} must be finite and not negative")

    def _initialise_chain(self, letters: set[str], rng: np.random.Generator, restart: int) -> None:
        """The first start is even and sticky, the others are drawn around it."""
        states = self.n_components
        if "s" in letters:
            self.startprob_ = np.full(states, 1 / states) if restart == 0 else rng.dirichlet(np.full(states, 2.0))
        if "t" in letters:
            self.transmat_ = np.full((states, states), 0.2 / states) + 0.8 * np.eye(states)
            if restart:
                stay = rng.uniform(0.3, 0.99)
                self.transmat_ = stay * np.eye(states) + (1 - stay) * rng.dirichlet(np.ones(states), size=states)

    def _maximise_chain(self, statistics: Statistics) -> None:
        """MAP under Dirichlet priors; what is 0 stays 0, and a row or vector without any count stays as it is."""
        if "s" in self.params:
            start = np.maximum(np.asarray(self.startprob_prior, dtype=np.float64) - 1 + statistics.start, 0.0)
            start = np.where(self.startprob_ == 0, 0.0, start)
            if start.sum() > 0:
                self.startprob_ = start / start.sum()
        if "t" in self.params:
            prior = np.asarray(self.transmat_prior, dtype=np.float64) - 1
            counts = prior + statistics.transitions + self.stickiness * np.eye(self.n_components)
            counts = np.where(self.transmat_ == 0, 0.0, np.maximum(counts, 0.0))
            total = counts.sum(axis=1, keepdims=True)
            self.transmat_ = np.where(total > 0, counts / np.where(total > 0, total, 1.0), self.transmat_)

    # Learning.

    def fit(self, X: ArrayLike, lengths: Lengths = None) -> Self:
        """Baum-Welch (EM) on observations (n_samples, n_features) of sequences of these lengths.

        Parameters in ``init_params`` are initialised, others start from what is set; those in ``params`` are learnt.
        Of ``n_restarts`` starts the one with the best likelihood stays; those that collapsed do not count.
        ``monitor_`` tells of the run that was kept, ``restarts_`` what became of each.

        Raises InvalidInput for bad observations or settings, FitFailed if each start collapsed.
        """
        self._check_settings()
        data = self._prepared(X, lengths)
        rng = generator(self.random_state)
        given = {name: getattr(self, name) for name in self.PARAMETERS.values() if hasattr(self, name)}
        fresh = {letter for letter, name in self.PARAMETERS.items() if letter in self.init_params or name not in given}
        best: tuple[float, dict[str, Any], ConvergenceMonitor] | None = None
        self.restarts_ = []
        for restart in range(self.n_restarts if fresh else 1):
            for name, value in given.items():
                setattr(self, name, value)
            self._initialise_chain(fresh, rng, restart)
            self._initialise(data, fresh, rng, restart)
            self._check()
            monitor = ConvergenceMonitor(self.tol, self.n_iter)
            trouble = self._run(data, monitor)
            if trouble is not None:
                self.restarts_.append(trouble)
                continue
            self.restarts_.append(f"log-likelihood {monitor.history[-1]:.6g} after {monitor.iter} iterations")
            if best is None or monitor.history[-1] > best[0]:
                learnt = {name: getattr(self, name) for name in self.PARAMETERS.values()}
                best = monitor.history[-1], learnt, monitor
        if best is None:
            for name in self.PARAMETERS.values():
                if hasattr(self, name):
                    delattr(self, name)
            for name, value in given.items():
                setattr(self, name, value)
            raise FitFailed(
                f"no start gave usable parameters: {'; '.join(self.restarts_)}. Use fewer states, more data, "
                "more n_restarts or a stronger prior, or accept such a fit by allow_collapse=True"
            )
        _, learnt, self.monitor_ = best
        for name, value in learnt.items():
            setattr(self, name, value)
        return self

    def _run(self, data: inference.Data, monitor: ConvergenceMonitor) -> str | None:
        """One run of EM; why it is unusable, or None."""
        while not monitor.converged:
            try:
                statistics = self._expectation(data)
            except InvalidInput as error:
                return f"failed in iteration {monitor.iter + 1} ({error})"
            monitor.history.append(statistics.log_likelihood)
            if self.verbose:
                gain = monitor.history[-1] - monitor.history[-2] if monitor.iter > 1 else float("nan")
                sys.stderr.write(f"{monitor.iter:>10d} {monitor.history[-1]:>20.8f} {gain:>+16.8f}\n")
            self._maximise_chain(statistics)
            if set(self.params) - {"s", "t"}:
                self._maximise(data, statistics.posteriors)
            trouble = self._collapsed(data, statistics.posteriors.sum(axis=(0, 2)), ended=monitor.converged)
            if trouble is not None and (not self.allow_collapse or "singular" in trouble):
                return f"collapsed in iteration {monitor.iter} ({trouble})"
        return None

    def _expectation(self, data: inference.Data) -> Statistics:
        return inference.expectation(lambda: self._emission(data), data.layout, *self._chain())

    # The recursions may run on more states than the model has (an autoregressive model's know their past).

    def _chain(self) -> tuple[Floats, Floats]:
        return self.startprob_, self.transmat_

    def _posterior_rows(self, data: Any, posteriors: Floats) -> Floats:
        """P(s_t | y), (n_samples, K), from the lattice of the recursions."""
        out: Floats = data.layout.collect(posteriors)
        return out

    def _path_rows(self, data: Any, path: Ints) -> Ints:
        """The states, (n_samples,), from the path of the recursions."""
        return path

    # Inference.

    def score(self, X: ArrayLike, lengths: Lengths = None) -> float:
        """ln P(X), in nats, summed over the sequences. Raises NotFitted, InvalidInput."""
        self._check()
        data = self._prepared(X, lengths)
        return inference.log_likelihood(lambda: self._emission(data), data.layout, *self._chain())

    def score_samples(self, X: ArrayLike, lengths: Lengths = None) -> tuple[float, Floats]:
        """ln P(X), and P(s_t | X), shape (n_samples, n_components)."""
        self._check()
        data = self._prepared(X, lengths)
        statistics = self._expectation(data)
        return statistics.log_likelihood, self._posterior_rows(data, statistics.posteriors)

    def predict_proba(self, X: ArrayLike, lengths: Lengths = None) -> Floats:
        """P(s_t | X), shape (n_samples, n_components), from past and future: for the past alone see ``online``."""
        return self.score_samples(X, lengths)[1]

    def decode(self, X: ArrayLike, lengths: Lengths = None, algorithm: str | None = None) -> tuple[float, Ints]:
        """A state for each sample, shape (n_samples,).

        ``viterbi``: the most probable path of each sequence and Σ ln P(path, X). ``map``: the most probable state of
        each sample and, as in hmmlearn, the sum of these probabilities.
        """
        chosen = algorithm or self.algorithm
        if chosen not in DECODERS:
            raise InvalidInput(f"algorithm must be one of {DECODERS}, got {chosen!r}")
        if chosen == "map":
            posteriors = self.predict_proba(X, lengths)
            return float(posteriors.max(axis=1).sum()), posteriors.argmax(axis=1)
        self._check()
        data = self._prepared(X, lengths)
        value, path = inference.best_path(lambda: self._emission(data), data.layout, *self._chain())
        return value, self._path_rows(data, path)

    def predict(self, X: ArrayLike, lengths: Lengths = None) -> Ints:
        """The states that ``decode`` finds, shape (n_samples,)."""
        return self.decode(X, lengths)[1]

    def sample(
        self, n_samples: int = 1, random_state: RandomState = None, currstate: int | None = None
    ) -> tuple[Floats, Ints]:
        """One sequence drawn from the model: observations (n_samples, n_features) and states (n_samples,).

        ``currstate`` is the state of the first sample. The draws are numpy's Generator's, not those of hmmlearn.
        """
        self._check()
        if n_samples < 1:
            raise InvalidInput(f"n_samples must be 1 or more, got {n_samples}")
        if currstate is not None and not 0 <= currstate < self.n_components:
            raise InvalidInput(f"currstate must be a state from 0 to {self.n_components - 1}, got {currstate}")
        rng = generator(self.random_state if random_state is None else random_state)
        states = np.empty(n_samples, dtype=np.int64)
        state = int(rng.choice(self.n_components, p=self.startprob_)) if currstate is None else int(currstate)
        steps = self.transmat_.cumsum(axis=1)
        steps[:, -1] = 1.0  # rounding must not leave a gap
        for at, uniform in enumerate(rng.random(n_samples)):
            if at:
                state = int(np.searchsorted(steps[state], uniform, side="right"))
            states[at] = state
        return self._emit(states, rng), states

    def online(self) -> OnlineFilter:
        """A filter of this model for observations as they come in, with a copy of its present parameters."""
        self._check()
        return OnlineFilter(self.startprob_, self.transmat_, self._point_emission())

    def get_stationary_distribution(self) -> Floats:
        """p with p = p A, (n_components,). Raises InvalidInput if the chain has several."""
        self._check()
        return stationary(self.transmat_)

    # Choice among models.

    def _n_free(self) -> int:
        return sum(self._free_parameters().values())

    def aic(self, X: ArrayLike, lengths: Lengths = None) -> float:
        """Akaike's criterion, -2 ln P(X) + 2 (free parameters): the lower the better."""
        return -2 * self.score(X, lengths) + 2 * self._n_free()

    def bic(self, X: ArrayLike, lengths: Lengths = None) -> float:
        """Schwarz's criterion, -2 ln P(X) + (free parameters) ln n_samples: the lower the better."""
        return -2 * self.score(X, lengths) + self._n_free() * float(np.log(len(np.asarray(X))))

    # scikit-learn's protocol, without scikit-learn.

    @classmethod
    def _settings(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor by name."""
        return {name: getattr(self, name) for name in self._settings()}

    def set_params(self, **settings: Any) -> Self:
        """Changes arguments of the constructor. Raises InvalidInput for a name that is not one."""
        for name, value in settings.items():
            if name not in self._settings():
                raise InvalidInput(f"{type(self).__name__} has no setting {name!r}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        told = [f"{n}={v!r}" for n, v in self.get_params().items() if repr(v) != repr(defaults[n].default)]
        return f"{type(self).__name__}({', '.join(told)})"


def checked_rows(X: ArrayLike, lengths: Lengths, features: int | None) -> tuple[Floats, Layout]:
    """Observations and their layout. Raises InvalidInput."""
    rows = observations(X, features=features)
    return rows, Layout(sequence_lengths(lengths, len(rows)))
