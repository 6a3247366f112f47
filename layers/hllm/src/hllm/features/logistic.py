"""Multinomial logistic regression by Newton's method, each step solved by conjugate gradients.

Minimises C·Σ -ln P(label | x) + |W|²/2, as scikit-learn's LogisticRegression does for three classes or more; biases
are free. With two classes scikit-learn penalises the difference of the classes' weights instead, which is this with
half its C. Source: Nocedal, Wright, "Numerical Optimization", 2nd ed. (2006), algorithm 7.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hllm._check import Array, count, number
from hllm.errors import FitFailed, InvalidInput, NotFitted

from .naive_bayes import header, normalised
from .packing import pack, unpack
from .rows import classes, rows

_KIND = "hllm.features.logistic/1"


class LogisticHead:
    """``C`` > 0: the inverse of the regularisation. ``fit`` stops when the gradient is ``tol`` of the first.

    After a fit: ``classes_`` (ascending), ``coef_`` (D, F), ``intercept_`` and ``class_log_prior_`` (D,), ``n_iter_``.
    """

    def __init__(self, C: float = 1.0, *, max_iter: int = 100, tol: float = 1e-7) -> None:
        self.C, self.tol = number("C", C, above=0.0), number("tol", tol, above=0.0)
        self.max_iter = count("max_iter", max_iter, least=1)

    def fit(self, features: Any, labels: Sequence[str] | Sequence[int]) -> LogisticHead:
        """Learns from ``features`` (Rows or (N, F)) and N labels of two classes or more.

        Raises InvalidInput, and FitFailed if ``max_iter`` steps are not enough.
        """
        x = rows(features)
        names, target = classes(labels, x.shape[0])
        if len(names) < 2:
            raise InvalidInput(f"all labels are {names!r}; two classes or more are expected")
        wanted = np.eye(len(names))[target]
        # The last row of the parameters holds the biases.
        theta = np.zeros((x.shape[1] + 1, len(names)))
        loss, log_p = self._loss(x, wanted, theta)
        first = None
        for iteration in range(1, self.max_iter + 1):
            p = np.exp(log_p)
            gradient = self._gradient(x, p - wanted, theta)
            size = float(np.abs(gradient).max())
            first = first or size
            if size <= self.tol * (first or 1.0):
                self.n_iter_ = iteration
                break
            step = self._newton(x, p, gradient, min(0.1, size / first))
            slope, scale = float((gradient * step).sum()), 1.0
            while True:
                trial, log_trial = self._loss(x, wanted, theta + scale * step)
                # Near the optimum the decrease is lost in rounding.
                if trial <= loss + 1e-4 * scale * slope + 1e-13 * abs(loss):
                    break
                scale *= 0.5
                if scale < 1e-10:
                    raise FitFailed("no step lowers the loss: scale the features, or lower C")
            theta, loss, log_p = theta + scale * step, trial, log_trial
        else:
            raise FitFailed(f"{self.max_iter} steps were not enough: raise max_iter or tol, scale features, or lower C")
        self.classes_: list[str | int] = names
        self.coef_, self.intercept_ = theta[:-1].T.copy(), theta[-1] - theta[-1].mean()
        self.class_log_prior_ = np.log(wanted.mean(axis=0))
        return self

    def _loss(self, x: Any, wanted: Array, theta: Array) -> tuple[float, Array]:
        log_p = normalised(x.times(theta[:-1]) + theta[-1])
        return float(-self.C * (wanted * log_p).sum() + 0.5 * (theta[:-1] ** 2).sum()), log_p

    def _gradient(self, x: Any, residual: Array, theta: Array) -> Array:
        weights = self.C * x.transposed_times(residual) + theta[:-1]
        return np.vstack([weights, self.C * residual.sum(axis=0)])

    def _newton(self, x: Any, p: Array, gradient: Array, tolerance: float) -> Array:
        """-H⁻¹·gradient, to ``tolerance`` of the gradient's norm."""
        step, residual = np.zeros_like(gradient), -gradient
        direction, square = residual.copy(), float((residual**2).sum())
        goal = tolerance**2 * square
        for _ in range(min(gradient.size, 500)):
            change = x.times(direction[:-1]) + direction[-1]
            change = p * (change - (p * change).sum(axis=1, keepdims=True))
            curved = self._gradient(x, change, direction)
            bend = float((direction * curved).sum())
            if bend <= 0:  # rounding: the loss is convex
                break
            length = square / bend
            step += length * direction
            residual -= length * curved
            before, square = square, float((residual**2).sum())
            if square <= goal:
                break
            direction = residual + square / before * direction
        return step

    def log_posterior(self, features: Any) -> Array:
        """ln P(class | features), shape (N, D). Raises NotFitted, InvalidInput."""
        self._fitted()
        scores = rows(features, self.coef_.shape[1]).times(np.ascontiguousarray(self.coef_.T))
        return normalised(scores + self.intercept_)

    def log_likelihood(self, features: Any) -> Array:
        """ln P(features | class) in nats, shape (N, D), up to a constant of each row. Raises as above.

        By Bayes' rule: the posterior less the training set's class frequencies.
        """
        return np.asarray(self.log_posterior(features) - self.class_log_prior_)

    def predict(self, features: Any) -> list[str | int]:
        """The most probable class of each row. Raises as above."""
        return [self.classes_[i] for i in self.log_posterior(features).argmax(axis=1)]

    def _fitted(self) -> None:
        if not hasattr(self, "coef_"):
            raise NotFitted("this head has learnt nothing: call fit first")

    def to_dict(self) -> dict[str, Any]:
        """JSON. Raises NotFitted."""
        self._fitted()
        arrays = {name: pack(getattr(self, f"{name}_")) for name in ("coef", "intercept", "class_log_prior")}
        width = self.coef_.shape[1]
        return {"kind": _KIND, "C": self.C, "classes": self.classes_, "width": width, **arrays}

    @classmethod
    def from_dict(cls, value: Any) -> LogisticHead:
        """The head of ``to_dict``. Raises InvalidInput for anything else."""
        names, width = header(value, _KIND, {"C", "coef", "intercept", "class_log_prior"})
        head = cls(value["C"])
        head.classes_ = names
        head.coef_ = unpack("coef", value["coef"], (len(names), width))
        head.intercept_ = unpack("intercept", value["intercept"], (len(names),))
        head.class_log_prior_ = unpack("class_log_prior", value["class_log_prior"], (len(names),))
        return head
