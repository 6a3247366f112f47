"""Telemetry to standard scores: means and variances that are learnt online, column by column.

Sources: Welford, Technometrics 4 (1962) 419; batches and merging by Chan, Golub, LeVeque, Am. Stat. 37 (1983) 242.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hllm._check import Array, array, number
from hllm.errors import InvalidInput

_KIND = "hllm.features.telemetry/1"


class TelemetryStandardizer:
    """z = (x - mean)/deviation for named columns, such as ("queue_depth", "log_latency").

    A missing value is NaN: it teaches nothing, and ``transform`` refuses or masks it. Infinity is an error always.
    A column that has been seen less than twice, or whose values were all the same, is centred and not scaled.
    ``clip``, if given, is the greatest |z|: one wild value then cannot rule the filter.
    """

    def __init__(self, columns: Sequence[str], *, clip: float | None = None) -> None:
        names: tuple[str, ...] = () if isinstance(columns, str) else tuple(columns)
        if not names or not all(map(_is_name, names)) or len(set(names)) != len(names):
            raise InvalidInput(f"columns are {columns!r}; give one or more names, each once")
        self.columns = names
        self.clip = None if clip is None else number("clip", clip, above=0.0)
        self.counts, self.means, self._squares = (np.zeros(len(names)) for _ in range(3))

    @property
    def variances(self) -> Array:
        """Population variances, shape (columns,); zero for a column that was not seen."""
        return np.asarray(self._squares / np.maximum(self.counts, 1.0))

    def update(self, values: Any) -> TelemetryStandardizer:
        """Learns from one observation (columns,) or a batch (N, columns). Raises InvalidInput."""
        x, seen = self._read(values)
        x = x.reshape(-1, len(self.columns))
        seen = seen.reshape(x.shape)
        counts = seen.sum(axis=0).astype(np.float64)
        filled = np.maximum(counts, 1.0)
        # The mean about a value near it: far from zero, the sum itself would lose digits.
        pivot = np.where(
            self.counts > 0, self.means, x[np.argmax(seen, axis=0), np.arange(x.shape[1])] if len(x) else 0.0
        )
        off = np.where(seen, x - pivot, 0.0)
        shift = off.sum(axis=0) / filled
        squares = np.where(seen, (off - shift) ** 2, 0.0).sum(axis=0)
        self._merge(counts, np.where(counts > 0, pivot + shift, 0.0), squares)
        return self

    def merge(self, other: TelemetryStandardizer) -> TelemetryStandardizer:
        """Learns what another one of the same columns has learnt. Raises InvalidInput."""
        if other.columns != self.columns:
            raise InvalidInput(f"columns {other.columns!r} are not {self.columns!r}")
        self._merge(other.counts, other.means, other._squares)
        return self

    def _merge(self, counts: Array, means: Array, squares: Array) -> None:
        total = self.counts + counts
        share = counts / np.maximum(total, 1.0)
        gap = np.where(counts > 0, means - self.means, 0.0)
        self._squares = self._squares + squares + gap * gap * self.counts * share
        self.means = self.means + gap * share
        self.counts = total

    def transform(self, values: Any) -> Array:
        """Standard scores of the shape of ``values``. Raises InvalidInput if a value is missing."""
        scores, seen = self.transform_masked(values)
        if not seen.all():
            missing = [self.columns[i] for i in np.flatnonzero(~seen.reshape(-1, len(self.columns)).all(axis=0))]
            raise InvalidInput(f"values are missing in {missing!r}: fill them, or use transform_masked")
        return scores

    def transform_masked(self, values: Any) -> tuple[Array, NDArray[np.bool_]]:
        """Standard scores, with 0 (the mean) where a value is missing, and whether each was there.

        ``values``: (columns,) or (N, columns); so are both results. Raises InvalidInput.
        """
        x, seen = self._read(values)
        variances = self.variances
        # Rounding leaves a variance of about (ε·mean)² to equal values: that is none.
        floor = (4 * np.finfo(np.float64).eps * self.means) ** 2
        deviation = np.where((self.counts > 1) & (variances > floor), np.sqrt(variances), 1.0)
        with np.errstate(over="ignore"):
            scores = np.where(seen, (x - self.means) / deviation, 0.0)
        if self.clip is not None:
            scores = np.clip(scores, -self.clip, self.clip)
        if not np.isfinite(scores).all():
            raise InvalidInput("a value is too far from its mean for a standard score: set clip")
        return np.asarray(scores), seen

    def _read(self, values: Any) -> tuple[Array, NDArray[np.bool_]]:
        try:
            x = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"values are no numbers ({error}); give floats, and NaN for what is missing") from None
        if x.ndim not in (1, 2) or x.shape[-1] != len(self.columns):
            raise InvalidInput(f"values have shape {x.shape}; give ({len(self.columns)},) or (N, {len(self.columns)})")
        if (np.abs(np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)) > 1e150).any():
            raise InvalidInput("a value is infinite or beyond 1e150; give finite numbers, and NaN for what is missing")
        seen = ~np.isnan(x)
        return np.where(seen, x, 0.0), seen

    def to_dict(self) -> dict[str, Any]:
        """JSON; ``from_dict`` gives the same floats back."""
        return {
            "kind": _KIND,
            "columns": list(self.columns),
            "clip": self.clip,
            "counts": self.counts.tolist(),
            "means": self.means.tolist(),
            "squares": self._squares.tolist(),
        }

    @classmethod
    def from_dict(cls, value: Any) -> TelemetryStandardizer:
        """The standardiser of ``to_dict``. Raises InvalidInput for anything else."""
        wanted = {"kind", "columns", "clip", "counts", "means", "squares"}
        if not isinstance(value, Mapping) or set(value) != wanted or value["kind"] != _KIND:
            raise InvalidInput(f"this is no {_KIND}: an object with {sorted(wanted)} is expected")
        if not isinstance(value["columns"], list):
            raise InvalidInput("columns is no list of names")
        result = cls(value["columns"], clip=value["clip"])
        shape = (len(result.columns),)
        result.counts, result.means = array("counts", value["counts"], shape), array("means", value["means"], shape)
        result._squares = array("squares", value["squares"], shape)
        if (result.counts < 0).any() or (result._squares < 0).any():
            raise InvalidInput("counts or squares have negative values; write it with to_dict")
        return result


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""
