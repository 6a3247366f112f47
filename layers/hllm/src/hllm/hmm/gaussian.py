"""Hidden Markov models with Gaussian emissions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hllm.errors import InvalidInput, NotFitted
from hllm.hmm import clusters, covariance
from hllm.hmm.base import BaseHMM, Lengths, checked_rows
from hllm.hmm.features import Quadratic
from hllm.hmm.validation import LARGEST, Floats, Ints, RandomState


class GaussianHMM(BaseHMM):
    """A hidden Markov model whose states emit vectors of a Gaussian each. Names and meanings are those of hmmlearn.

    ``covariance_type``: ``spherical``, ``diag``, ``full``, or ``tied`` (one full matrix for all states). ``covars_``
    is set with shape (K,), (K, D), (K, D, D) or (D, D), and reads as (K, D, D). ``min_covar`` is added to the first
    covariances, as hmmlearn does. Priors: ``startprob_prior`` and ``transmat_prior`` are Dirichlet's; the mean is
    Normal around ``means_prior`` with the weight of ``means_weight`` samples; ``covars_prior`` and ``covars_weight``
    are those of an inverse Gamma (spherical, diag) or inverse Wishart. The defaults of hmmlearn are MAP estimates:
    ``covars_prior=0`` with ``covars_weight=1`` (0 for full and tied) is maximum likelihood.

    A row of NaN is a missing observation. ``init_params`` and ``params`` are letters of ``stmc``.
    """

    PARAMETERS = {"s": "startprob_", "t": "transmat_", "m": "means_", "c": "_covars_"}  # noqa: RUF012

    means_: Any
    _covars_: Any

    def __init__(  # noqa: PLR0913, PLR0917 (hmmlearn's)
        self,
        n_components: int = 1,
        covariance_type: str = "diag",
        min_covar: float = 1e-3,
        startprob_prior: Any = 1.0,
        transmat_prior: Any = 1.0,
        means_prior: Any = 0,
        means_weight: Any = 0,
        covars_prior: Any = 1e-2,
        covars_weight: Any = 1,
        algorithm: str = "viterbi",
        random_state: RandomState = None,
        n_iter: int = 10,
        tol: float = 1e-2,
        verbose: bool = False,
        params: str = "stmc",
        init_params: str = "stmc",
        implementation: str = "log",
        *,
        stickiness: float = 0.0,
        n_restarts: int = 1,
        allow_collapse: bool = False,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.min_covar = min_covar
        self.startprob_prior = startprob_prior
        self.transmat_prior = transmat_prior
        self.means_prior = means_prior
        self.means_weight = means_weight
        self.covars_prior = covars_prior
        self.covars_weight = covars_weight
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

    @property
    def n_features(self) -> int:
        """Features of an observation. Raises NotFitted before they are known."""
        if not hasattr(self, "means_"):
            raise NotFitted("n_features is not known: call fit() first, or set means_")
        return int(np.asarray(self.means_).shape[1])

    @property
    def covars_(self) -> Floats:
        """The covariances as full matrices, shape (n_components, n_features, n_features)."""
        if not hasattr(self, "_covars_"):
            raise NotFitted("covars_ is not known: call fit() first, or set it")
        return covariance.full(self._covars_, self.covariance_type, self.n_components, self.n_features)

    @covars_.setter
    def covars_(self, value: ArrayLike) -> None:
        self._covars_ = covariance.checked(value, self.covariance_type, self.n_components)

    def _check(self) -> None:
        super()._check()
        self.means_ = np.asarray(self.means_, dtype=np.float64)
        if self.means_.ndim != 2 or len(self.means_) != self.n_components or not self.means_.shape[1]:
            raise InvalidInput(f"means_ must have shape ({self.n_components}, n_features), got {self.means_.shape}")
        if not (np.abs(self.means_) < LARGEST).all():  # NaN fails
            raise InvalidInput(f"means_ must be finite, and below {LARGEST:g}")
        self._covars_ = covariance.checked(
            self._covars_, self.covariance_type, self.n_components, features=self.n_features
        )

    def _check_settings(self) -> None:
        super()._check_settings()
        covariance.check_kind(self.covariance_type)
        for name in ("min_covar", "means_weight", "covars_prior", "covars_weight"):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if not np.isfinite(value).all() or (name != "covars_prior" and (value < 0).any()):
                raise InvalidInput(f"{name} must be finite and not negative")

    def _prepared(self, X: ArrayLike, lengths: Lengths) -> Quadratic:
        features = self.n_features if hasattr(self, "means_") else None
        rows, layout = checked_rows(X, lengths, features)
        return Quadratic(rows, layout, crossed=self.covariance_type in ("full", "tied"))

    def _emission(self, data: Quadratic) -> Floats:
        return data.log_density(self.means_, self._covars_, self.covariance_type)

    def _initialise(self, data: Quadratic, letters: set[str], rng: np.random.Generator, restart: int) -> None:
        points = data.present
        if not len(points):
            raise InvalidInput("all observations are missing")
        if "m" in letters:
            scaled = (points - data.centre) / data.scale
            start = clusters.kmeans if restart == 0 else clusters.seeds
            self.means_ = start(scaled, self.n_components, rng) * data.scale + data.centre
        if "c" in letters:
            spread = points - points.mean(axis=0)
            total = spread.T @ spread / max(len(points) - 1, 1) + self.min_covar * np.eye(points.shape[1])
            self._covars_ = covariance.spread(total, self.covariance_type, self.n_components)

    def _maximise(self, data: Quadratic, posteriors: Floats) -> None:
        moments = data.moments(posteriors)
        weight = np.asarray(self.means_weight, dtype=np.float64)
        prior = np.asarray(self.means_prior, dtype=np.float64)
        if "m" in self.params:
            total = weight + moments.counts[:, None]
            # A state that nothing was given to keeps its mean.
            self.means_ = np.where(
                total > 0, (weight * prior + moments.sums) / np.where(total > 0, total, 1.0), self.means_
            )
        if "c" in self.params:
            self._covars_ = covariance.estimate(
                self.covariance_type,
                data.scatter(posteriors, moments, self.means_),
                moments.counts,
                weight * (self.means_ - prior) ** 2
                if self.covariance_type in ("spherical", "diag")
                else weight * np.einsum("ki,kj->kij", self.means_ - prior, self.means_ - prior),
                np.asarray(self.covars_prior, dtype=np.float64),
                float(np.max(self.covars_weight)),
            )

    def _collapsed(self, data: Quadratic, occupancy: Floats, *, ended: bool) -> str | None:
        if not (np.isfinite(self.means_).all() and np.isfinite(self._covars_).all()):
            return "singular: a parameter is not finite"
        if covariance.singular(self._covars_, self.covariance_type, data.finest):
            return "singular covariance"
        if self.n_components == 1:
            return None
        if occupancy.min() < 1.0:
            return f"state {int(occupancy.argmin())} holds {occupancy.min():.3g} samples"
        if not ended:
            return None
        return _equal_states(self.means_ / data.scale, self._covars_, self.covariance_type)

    def _emit(self, states: Ints, rng: np.random.Generator) -> Floats:
        roots = np.linalg.cholesky(self.covars_)
        noise = rng.standard_normal((len(states), self.n_features))
        drawn: Floats = self.means_[states] + np.einsum("tij,tj->ti", roots[states], noise)
        return drawn

    def _free_parameters(self) -> dict[str, int]:
        states, features = self.n_components, self.n_features
        sizes = {
            "spherical": states,
            "diag": states * features,
            "full": states * features * (features + 1) // 2,
            "tied": features * (features + 1) // 2,
        }
        return {
            "s": states - 1,
            "t": states * (states - 1),
            "m": states * features,
            "c": sizes[self.covariance_type],
        }

    def _point_emission(self) -> Callable[[Any], Floats]:
        return covariance.point_density(self.means_.copy(), self.covars_)


def _equal_states(means: Floats, covars: Floats, kind: str) -> str | None:
    """Two states that are the same to 6 digits (in standardised units) are one state: EM cannot part them again."""
    for one in range(len(means)):
        for other in range(one):
            near = np.abs(means[one] - means[other]).max() < 1e-6
            if near and (kind == "tied" or np.allclose(covars[one], covars[other], rtol=1e-6, atol=0)):
                return f"states {other} and {one} are equal"
    return None
