"""Multinomial naive Bayes over counts, which learns in batches and forgets nothing.

Source: Manning, Raghavan, Schütze, "Introduction to Information Retrieval" (2008), §13.2. Attributes have the names
and meanings of scikit-learn's MultinomialNB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hllm._check import Array, number
from hllm.errors import InvalidInput, NotFitted

from .packing import pack, unpack
from .rows import Dense, Integers, Rows, classes, rows

_KIND = "hllm.features.naive_bayes/1"


class NaiveBayesHead:
    """ln P(counts | class) = Σ count · ln θ, with θ = (n_cf + alpha)/(n_c + alpha·F), but for the multinomial
    coefficient, which no class changes. ``alpha`` > 0 smooths (1: Laplace).

    After a fit: ``classes_`` (ascending), ``class_count_`` (D,), ``feature_count_`` (D, F), ``class_log_prior_`` (D,),
    ``feature_log_prob_`` (D, F).
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = number("alpha", alpha, above=0.0)

    def fit(self, features: Any, labels: Sequence[str] | Sequence[int]) -> NaiveBayesHead:
        """Learns anew from ``features`` (Rows or (N, F), not negative) and N labels. Raises InvalidInput."""
        x = _counts(features)
        names, target = classes(labels, x.shape[0])
        self.classes_: list[str | int] = names
        self.class_count_, self.feature_count_ = np.zeros(len(names)), np.zeros((len(names), x.shape[1]))
        return self._add(x, target)

    def partial_fit(self, features: Any, labels: Sequence[str] | Sequence[int]) -> NaiveBayesHead:
        """Learns more, of the classes that ``fit`` saw. Raises NotFitted, InvalidInput."""
        self._fitted()
        x = _counts(features, self.feature_count_.shape[1])
        names, target = classes(labels, x.shape[0])
        unknown = [name for name in names if name not in self.classes_]
        if unknown:
            raise InvalidInput(f"labels {unknown!r} are new; fit anew with all classes, which were {self.classes_!r}")
        place = np.array([self.classes_.index(name) for name in names])
        return self._add(x, place[target])

    def _add(self, x: Rows | Dense, target: Integers) -> NaiveBayesHead:
        self.class_count_ = self.class_count_ + np.bincount(target, minlength=len(self.classes_))
        self.feature_count_ = self.feature_count_ + x.transposed_times(np.eye(len(self.classes_))[target]).T
        return self._smooth()

    def _smooth(self) -> NaiveBayesHead:
        smoothed = self.feature_count_ + self.alpha
        self.feature_log_prob_ = np.log(smoothed) - np.log(smoothed.sum(axis=1, keepdims=True))
        self.class_log_prior_ = np.log(self.class_count_) - np.log(self.class_count_.sum())
        return self

    def log_likelihood(self, features: Any) -> Array:
        """ln P(features | class) in nats, shape (N, D), up to a constant of each row.

        Raises NotFitted, InvalidInput.
        """
        self._fitted()
        return rows(features, self.feature_log_prob_.shape[1]).times(np.ascontiguousarray(self.feature_log_prob_.T))

    def log_posterior(self, features: Any) -> Array:
        """ln P(class | features) under the training set's class frequencies, shape (N, D). Raises as above."""
        return normalised(self.log_likelihood(features) + self.class_log_prior_)

    def predict(self, features: Any) -> list[str | int]:
        """The most probable class of each row. Raises as above."""
        return [self.classes_[i] for i in self.log_posterior(features).argmax(axis=1)]

    def _fitted(self) -> None:
        if not hasattr(self, "feature_log_prob_"):
            raise NotFitted("this head has learnt nothing: call fit first")

    def to_dict(self) -> dict[str, Any]:
        """JSON; counts are kept, so that learning can go on. Raises NotFitted."""
        self._fitted()
        return {
            "kind": _KIND,
            "alpha": self.alpha,
            "classes": self.classes_,
            "width": self.feature_count_.shape[1],
            "class_count": pack(self.class_count_),
            "feature_count": pack(self.feature_count_),
        }

    @classmethod
    def from_dict(cls, value: Any) -> NaiveBayesHead:
        """The head of ``to_dict``. Raises InvalidInput for anything else."""
        names, width = header(value, _KIND, {"alpha", "class_count", "feature_count"})
        head = cls(value["alpha"])
        head.classes_ = names
        head.class_count_ = unpack("class_count", value["class_count"], (len(names),))
        head.feature_count_ = unpack("feature_count", value["feature_count"], (len(names), width))
        if (head.class_count_ <= 0).any() or (head.feature_count_ < 0).any():
            raise InvalidInput("a class has no rows, or a negative count; write the head with to_dict")
        return head._smooth()


def _counts(features: Any, width: int | None = None) -> Rows | Dense:
    x = rows(features, width)
    if (x.values < 0).any():
        raise InvalidInput("features have negative values; naive Bayes takes counts: use LogisticHead for others")
    return x


def normalised(scores: Array) -> Array:
    """Scores less their row's ln Σ exp: log probabilities."""
    scores = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))


def header(value: Any, kind: str, more: set[str]) -> tuple[list[str | int], int]:
    """The classes and the width that a head's JSON tells, once its keys are the expected ones."""
    wanted = {"kind", "classes", "width"} | more
    if not isinstance(value, Mapping) or set(value) != wanted or value["kind"] != kind:
        raise InvalidInput(f"this is no {kind}: an object with {sorted(wanted)} is expected")
    names, width = value["classes"], value["width"]
    if not isinstance(names, list) or not names or classes(names, len(names))[0] != names:
        raise InvalidInput("classes is no ascending list of names; write the head with to_dict")
    if not isinstance(width, int) or not 0 < width <= 2**24:
        raise InvalidInput(f"width is {width!r}; a whole number up to 2^24 is expected")
    return names, width
