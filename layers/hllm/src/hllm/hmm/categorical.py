"""Hidden Markov models with categorical emissions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hllm.errors import InvalidInput
from hllm.hmm import logspace
from hllm.hmm.base import BaseHMM, Lengths, checked_rows
from hllm.hmm.layout import Layout
from hllm.hmm.validation import Floats, Ints, RandomState, distributions


class Symbols:
    """Symbols in the layout of the recursions, (steps, blocks); ``count`` stands for missing ones and padding."""

    def __init__(self, rows: Floats, layout: Layout, count: int) -> None:
        self.layout = layout
        self.count = count
        lattice = np.empty((layout.steps, 1, layout.blocks))
        layout.spread(np.where(np.isnan(rows), count, rows), lattice)
        self.symbols = lattice[:, 0].astype(np.int64)
        if layout.padding is not None:
            self.symbols[layout.padding] = count


class CategoricalHMM(BaseHMM):
    """A hidden Markov model whose states emit symbols 0, 1, ... Names and meanings are those of hmmlearn.

    X has shape (n_samples, 1) and holds whole numbers; NaN, or a masked entry, is a missing observation.
    ``emissionprob_`` (n_components, n_features) holds P(symbol | state), ``emissionprob_prior`` its Dirichlet prior.
    ``n_features`` is the number of symbols, by default the largest seen in ``fit`` plus 1. ``init_params`` and
    ``params`` are letters of ``ste``.
    """

    PARAMETERS = {"s": "startprob_", "t": "transmat_", "e": "emissionprob_"}  # noqa: RUF012

    emissionprob_: Any

    def __init__(  # noqa: PLR0913 (hmmlearn's)
        self,
        n_components: int = 1,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        *,
        emissionprob_prior: Any = 1.0,
        n_features: int | None = None,
        algorithm: str = "viterbi",
        random_state: RandomState = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: bool = False,
        params: str = "ste",
        init_params: str = "ste",
        implementation: str = "log",
        stickiness: float = 0.0,
        n_restarts: int = 1,
        allow_collapse: bool = False,
    ) -> None:
        self.n_components = n_components
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.emissionprob_prior = emissionprob_prior
        self.n_features = n_features
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params
        self.implementation = implementation
        self.stickiness = stickiness
        self.n_restarts = n_restarts
        self.allow_collapse = allow_collapse

    def _symbols(self) -> int | None:
        if hasattr(self, "emissionprob_"):
            return int(np.asarray(self.emissionprob_).shape[-1])
        return self.n_features

    def _check(self) -> None:
        super()._check()
        self.emissionprob_ = distributions(
            np.atleast_2d(self.emissionprob_), "emissionprob_", (self.n_components, self._symbols() or 0)
        )
        if self.n_features is None:
            self.n_features = self._symbols()

    def _check_settings(self) -> None:
        super()._check_settings()
        prior = np.asarray(self.emissionprob_prior, dtype=np.float64)
        if not np.isfinite(prior).all() or (prior < 0).any():
            raise InvalidInput("emissionprob_prior must be finite and not negative")

    def _prepared(self, X: ArrayLike, lengths: Lengths) -> Symbols:
        rows, layout = checked_rows(X, lengths, None)
        if rows.shape[1] != 1:
            raise InvalidInput(f"X must have shape (n_samples, 1), got {rows.shape}")
        present = rows[~np.isnan(rows)]
        if not present.size:
            raise InvalidInput("all observations are missing")
        if (present != np.floor(present)).any() or present.min() < 0:
            raise InvalidInput("symbols must be whole numbers from 0")
        largest, known = int(present.max()), self._symbols()
        if known is not None and largest >= known:
            raise InvalidInput(f"the largest symbol is {largest}, but the model knows only those up to {known - 1}")
        return Symbols(rows, layout, known if known is not None else largest + 1)

    def _emission(self, data: Symbols) -> Floats:
        table = np.zeros((self.n_components, data.count + 1))
        table[:, :-1] = logspace.log(self.emissionprob_)
        return np.ascontiguousarray(np.take(table, data.symbols, axis=1).transpose(1, 0, 2))

    def _initialise(self, data: Symbols, letters: set[str], rng: np.random.Generator, restart: int) -> None:
        if "e" in letters:
            self.emissionprob_ = rng.dirichlet(np.ones(data.count), size=self.n_components)

    def _maximise(self, data: Symbols, posteriors: Floats) -> None:
        flat = data.symbols.ravel()
        counts = np.array(
            [
                np.bincount(flat, weights=posteriors[:, state].ravel(), minlength=data.count + 1)
                for state in range(self.n_components)
            ]
        )
        counts = np.maximum(np.asarray(self.emissionprob_prior, dtype=np.float64) - 1 + counts[:, :-1], 0.0)
        total = counts.sum(axis=1, keepdims=True)
        self.emissionprob_ = np.where(total > 0, counts / np.where(total > 0, total, 1.0), self.emissionprob_)

    def _collapsed(self, data: Symbols, occupancy: Floats, *, ended: bool) -> str | None:
        if self.n_components == 1:
            return None
        if occupancy.min() < 1.0:
            return f"state {int(occupancy.argmin())} holds {occupancy.min():.3g} samples"
        if ended:
            for one in range(self.n_components):
                for other in range(one):
                    if np.abs(self.emissionprob_[one] - self.emissionprob_[other]).max() < 1e-6:
                        return f"states {other} and {one} are equal"
        return None

    def _emit(self, states: Ints, rng: np.random.Generator) -> Any:
        bounds = self.emissionprob_.cumsum(axis=1)
        bounds[:, -1] = 1.0  # rounding must not leave a gap
        return (bounds[states] <= rng.random(len(states))[:, None]).sum(axis=1)[:, None]

    def _free_parameters(self) -> dict[str, int]:
        states, symbols = self.n_components, self.emissionprob_.shape[1]
        return {"s": states - 1, "t": states * (states - 1), "e": states * (symbols - 1)}

    def _point_emission(self) -> Callable[[Any], Floats]:
        table = np.ascontiguousarray(logspace.log(self.emissionprob_).T)
        missing = np.zeros(self.n_components)

        def density(x: Any) -> Floats:
            value = np.asarray(x, dtype=np.float64)
            symbol = value.item() if value.size == 1 else -1.0
            if math.isnan(symbol):
                return missing
            if not 0 <= symbol < len(table) or symbol != int(symbol):
                raise InvalidInput(f"a symbol must be a whole number from 0 to {len(table) - 1}, got {x!r}")
            return table[int(symbol)]  # type: ignore[no-any-return]

        return density
