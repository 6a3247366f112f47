"""Several adapters over one base, and which of them is served.

A merged copy answers as fast as any model, so the adapter of the current regime is merged when it changes; requests of
other regimes in the same batch go through ``product``, which needs no copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hllm.bitdelta.delta import Delta
from hllm.bitdelta.matrix import add_to
from hllm.bitdelta.model import check_base, merge_unchecked
from hllm.bitdelta.tensors import Floats, Source, tensor
from hllm.errors import InvalidInput


class AdapterChoice:
    """Which adapter is served, by beliefs over regimes, with hysteresis: a glimpse of another regime changes nothing.

    An adapter's belief is that of its regimes together. Another adapter takes over when its belief has been at least
    ``margin`` above the current one's in ``dwell`` observations on end, and was the highest each time.
    """

    def __init__(self, adapters: Sequence[str], *, margin: float = 0.2, dwell: int = 2) -> None:
        """``adapters``: the adapter of each regime, by the regime's number; the first one is served at first."""
        if not adapters:
            raise InvalidInput("no regimes: give the adapter of each one")
        if not 0.0 <= margin < 1.0:
            raise InvalidInput(f"margin is {margin}; it is a difference of probabilities, 0 up to 1")
        if dwell < 1:
            raise InvalidInput(f"dwell is {dwell}; it counts observations, from 1")
        self.adapters = tuple(adapters)
        self.margin, self.dwell = margin, dwell
        self.current = self.adapters[0]
        self._rival, self._seen = "", 0

    def update(self, beliefs: Sequence[float] | NDArray[np.float64]) -> str:
        """The adapter to serve after these beliefs, one probability per regime. Raises InvalidInput."""
        given = [float(each) for each in beliefs]
        if len(given) != len(self.adapters):
            raise InvalidInput(f"{len(given)} beliefs for {len(self.adapters)} regimes")
        if not all(each >= 0.0 for each in given) or not math.isclose(sum(given), 1.0, abs_tol=1e-6):
            raise InvalidInput("beliefs must be probabilities: none below zero, and 1 in all")
        held = dict.fromkeys(self.adapters, 0.0)
        for adapter, belief in zip(self.adapters, given, strict=True):
            held[adapter] += belief
        best = max(held, key=lambda adapter: held[adapter])
        if best == self.current or held[best] - held[self.current] < self.margin:
            self._rival, self._seen = "", 0
            return self.current
        self._seen = self._seen + 1 if best == self._rival else 1
        self._rival = best
        if self._seen >= self.dwell:
            self.current, self._rival, self._seen = best, "", 0
        return self.current


class Adapters:
    """One base and adapters of it: k of them take k deltas more memory, not k models.

    Raises:
        InvalidInput: an adapter was made of another base.
    """

    def __init__(self, base: Source, deltas: Mapping[str, Delta]) -> None:
        for name, delta in deltas.items():
            try:
                check_base(base, delta)
            except InvalidInput as error:
                raise InvalidInput(f"adapter {name!r}: {error}") from None
        self.base, self.deltas = base, dict(deltas)
        self._merged: tuple[str, dict[str, NDArray[Any]]] = ("", {})

    @property
    def nbytes(self) -> int:
        """Bytes of the base and the deltas; a merged copy has those of its changed tensors besides."""
        base = sum(tensor(self.base, name).nbytes for name in self.base)
        return base + sum(each.nbytes for each in self.deltas.values())

    def weights(self, adapter: str) -> dict[str, NDArray[Any]]:
        """The merged model of an adapter; it is merged when it is not the one that was asked for last."""
        name, found = self._merged
        if name != adapter or not found:
            found = merge_unchecked(self.base, self._delta(adapter))
            self._merged = (adapter, found)
        return found

    def product(self, matrix: str, x: Floats, adapters: Sequence[str]) -> Floats:
        """``x[i] @ W.T`` with W of ``adapters[i]``: x (n, columns) gives (n, rows), a batch of mixed adapters.

        The product with the base is made once for all; to it each adapter adds that of its own rows.
        """
        weights = tensor(self.base, matrix).floats(repr(matrix))
        if weights.ndim != 2 or x.ndim != 2 or x.shape != (len(adapters), weights.shape[1]):
            raise InvalidInput(f"x is {x.shape}, {len(adapters)} adapters are named, and {matrix!r} is {weights.shape}")
        result: Floats = x @ weights.T
        for adapter in dict.fromkeys(adapters):
            delta = self._delta(adapter)
            rows = np.array([each == adapter for each in adapters])
            if entry := delta.matrices.get(matrix):
                part = result[rows]
                add_to(part, x[rows], entry.delta)
                result[rows] = part
            elif matrix in delta.values:
                result[rows] = x[rows] @ delta.values[matrix].floats(repr(matrix)).T
        return result

    def _delta(self, adapter: str) -> Delta:
        if adapter not in self.deltas:
            raise InvalidInput(f"there is no adapter {adapter!r}; known are {', '.join(sorted(self.deltas)) or 'none'}")
        return self.deltas[adapter]
