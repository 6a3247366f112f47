"""Texts to log-likelihoods of domains: an encoder and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hllm._check import Array, number
from hllm.errors import InvalidInput

from .encoder import Encoder, HashingEncoder
from .logistic import LogisticHead
from .naive_bayes import NaiveBayesHead, normalised

_KIND = "hllm.features.text/1"
_HEADS: dict[str, type[NaiveBayesHead] | type[LogisticHead]] = {
    "hllm.features.naive_bayes/1": NaiveBayesHead,
    "hllm.features.logistic/1": LogisticHead,
}


class TextClassifier:
    """What the router's filter takes as evidence about the domain of a request.

    ``encoder``: a ``HashingEncoder`` if None. ``head``: a ``NaiveBayesHead`` if None. ``temper``: the likelihoods'
    exponent, more than 0 and at most 1. The words of a text are not independent, as naive Bayes has it, so its
    likelihoods are too sure: it is 0.25 with that head if None, and 1 with another, whose posteriors are fitted.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        head: NaiveBayesHead | LogisticHead | None = None,
        *,
        temper: float | None = None,
    ) -> None:
        self.encoder: Encoder = HashingEncoder() if encoder is None else encoder
        self.head: NaiveBayesHead | LogisticHead = NaiveBayesHead() if head is None else head
        if temper is None:
            temper = 0.25 if isinstance(self.head, NaiveBayesHead) else 1.0
        self.temper = number("temper", temper, above=0.0)
        if self.temper > 1:
            raise InvalidInput(f"temper is {temper}; it is at most 1")

    @property
    def domains(self) -> tuple[str | int, ...]:
        """The classes, in the order of the columns. Raises NotFitted."""
        self.head._fitted()
        return tuple(self.head.classes_)

    def fit(self, texts: Sequence[str], labels: Sequence[str] | Sequence[int]) -> TextClassifier:
        """Learns from texts and a label for each. Raises as the encoder and the head."""
        self.head.fit(self.encoder(texts), labels)
        return self

    def log_likelihood(self, texts: Sequence[str]) -> Array:
        """temper · ln P(text | domain) in nats, shape (texts, D), with a greatest value of 0 in each row.

        Without what no domain changes, of which a filter sees nothing. A text without features has a row of zeros
        with naive Bayes: no evidence. Raises as the encoder and the head.
        """
        scores = self.head.log_likelihood(self.encoder(texts))
        return np.asarray(self.temper * (scores - scores.max(axis=1, keepdims=True)))

    def posterior(self, texts: Sequence[str]) -> Array:
        """P(domain | text) from the tempered likelihood and a uniform prior, shape (texts, D). Raises as above."""
        return np.exp(normalised(self.log_likelihood(texts)))

    def predict(self, texts: Sequence[str]) -> list[str | int]:
        """The most likely domain of each text. Raises as above."""
        return [self.domains[i] for i in self.log_likelihood(texts).argmax(axis=1)]

    def to_dict(self) -> dict[str, Any]:
        """JSON. Raises NotFitted."""
        return {
            "kind": _KIND,
            "encoder": self.encoder.to_dict(),
            "head": self.head.to_dict(),
            "temper": self.temper,
        }

    @classmethod
    def from_dict(cls, value: Any, *, encoder: Encoder | None = None) -> TextClassifier:
        """The classifier of ``to_dict``. An encoder of yours must be given, equal to the one that was saved.

        Raises InvalidInput for anything else.
        """
        if (
            not isinstance(value, Mapping)
            or set(value) != {"kind", "encoder", "head", "temper"}
            or value["kind"] != _KIND
        ):
            raise InvalidInput(f"this is no {_KIND}: write it with to_dict")
        if encoder is None:
            encoder = HashingEncoder.from_dict(value["encoder"])
        elif encoder.to_dict() != value["encoder"]:
            raise InvalidInput(f"the encoder is {encoder.to_dict()!r}; the classifier learnt with {value['encoder']!r}")
        head = value["head"]
        kind = head.get("kind") if isinstance(head, Mapping) else None
        if not isinstance(kind, str) or kind not in _HEADS:
            raise InvalidInput(f"the head is of kind {kind!r}; {sorted(_HEADS)} are known")
        return cls(encoder, _HEADS[kind].from_dict(head), temper=value["temper"])
