"""What a delta takes and what it misses."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

from hllm.bitdelta.delta import Delta
from hllm.bitdelta.tensors import DTYPES


@dataclass(frozen=True, slots=True)
class Line:
    """One matrix: bytes of it in the fine-tune and in the delta, and ‖Δ - kept‖ / ‖Δ‖."""

    name: str
    shape: tuple[int, ...]
    planes: int
    per_row: bool
    rank: int
    tuned_bytes: int
    delta_bytes: int
    relative_error: float


@dataclass(frozen=True, slots=True)
class Report:
    """Sizes in bytes, without headers: of the matrices, and of what is kept whole. ``relative_error`` is over all."""

    matrices: tuple[Line, ...]
    whole: tuple[tuple[str, int], ...]
    tuned_bytes: int
    delta_bytes: int
    relative_error: float

    @property
    def whole_bytes(self) -> int:
        """Of the tensors that are kept as they are in the fine-tune."""
        return sum(size for _, size in self.whole)

    @property
    def ratio(self) -> float:
        """How many times smaller than the changed matrices their BitDeltas are; 0 when none changed."""
        return self.tuned_bytes / self.delta_bytes if self.delta_bytes else 0.0


def report(delta: Delta) -> Report:
    """The sizes of a delta, matrix by matrix."""
    lines = tuple(
        Line(
            name,
            entry.shape,
            entry.delta.signs.shape[0],
            entry.delta.scales.ndim == 2,
            entry.delta.rank,
            prod(entry.shape) * DTYPES[entry.dtype].itemsize,
            entry.delta.nbytes,
            entry.delta.relative_error,
        )
        for name, entry in delta.matrices.items()
    )
    norm2 = sum(entry.delta.norm2 for entry in delta.matrices.values())
    error2 = sum(entry.delta.error2 for entry in delta.matrices.values())
    return Report(
        lines,
        tuple((name, each.nbytes) for name, each in delta.values.items()),
        sum(line.tuned_bytes for line in lines),
        sum(line.delta_bytes for line in lines),
        sqrt(error2 / norm2) if norm2 > 0 else 0.0,
    )
