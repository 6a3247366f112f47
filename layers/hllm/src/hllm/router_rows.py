"""What the routes of a decision read of the router's tables. It depends on nothing else, so a state keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hllm.router_state import RouterState

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Reads = tuple[tuple[str, str], ...]
"""The (model, backend) of each route."""


def pair_name(model: str, backend: str) -> str:
    """The name of a (model, backend) row; no two pairs share one."""
    return f"{len(model)}:{model}:{backend}"


class Rows:
    """Rows of a state's tables by sorted name, so that the order of the routes changes nothing.

    ``quality`` (M, D, 2) and ``service`` (B, K, 2) are counts; ``of_model``, ``of_backend`` and ``of_pair`` (N,) say
    which row is a route's. All of it is shared between decisions: it is not to be written to.
    """

    def __init__(self, state: RouterState, reads: Reads) -> None:
        self.reads = reads
        self.pairs = sorted(set(reads))
        models = sorted({model for model, _ in reads})
        self.backends = sorted({backend for _, backend in reads})
        self.at_model, self.at_backend = _places(models), _places(self.backends)
        self.of_model = _index([self.at_model[model] for model, _ in reads])
        self.of_backend = _index([self.at_backend[backend] for _, backend in reads])
        self.quality = state.quality.rows(models)
        self.service = state.service.rows(self.backends)
        self._priors = state.quality.prior, state.service.prior
        self._finer = state.quality_pairs, state.service_domains, state.service_loads  # the state would be a cycle
        self.rendered: tuple[str, str] | None = None
        """What a trace holds of the state, and its digest."""

    @cached_property
    def of_pair(self) -> Index:
        at = _places(self.pairs)
        return _index([at[pair] for pair in self.reads])

    @cached_property
    def model_of_pair(self) -> Index:
        return _index([self.at_model[model] for model, _ in self.pairs])

    @cached_property
    def quality_pairs(self) -> Array:
        return self._finer[0].rows([pair_name(*pair) for pair in self.pairs])

    @cached_property
    def service_domains(self) -> Array:
        return self._finer[1].rows(self.backends)

    @cached_property
    def service_loads(self) -> Array:
        return self._finer[2].rows(self.backends)

    @cached_property
    def moments(self) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Mean and variance of P(ok), each (M, D), and of P(SLO met), each (B, K), under the factored tables."""
        return _moments(self.quality), _moments(self.service)

    @cached_property
    def known(self) -> list[bool]:
        """Whether anything is known of each route: half an observation that is not yet forgotten."""
        quality, service = (
            (counts - prior).reshape(len(counts), -1).sum(-1) >= 0.5
            for counts, prior in zip((self.quality, self.service), self._priors, strict=True)
        )
        return (quality[self.of_model] | service[self.of_backend]).tolist()  # type: ignore[no-any-return]


def _places(names: Sequence[Any]) -> dict[Any, int]:
    return {name: i for i, name in enumerate(names)}


def _index(at: list[int]) -> Index:
    return np.array(at, dtype=np.intp)


def _moments(counts: Array) -> tuple[Array, Array]:
    n = counts[..., 0] + counts[..., 1]
    mean = counts[..., 0] / n
    return mean, mean * (1 - mean) / (n + 1)
