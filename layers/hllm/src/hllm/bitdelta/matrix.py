"""BitDelta of one matrix: signs and scales of what a fine-tune changed.

Source: Liu et al., "BitDelta: Your Fine-Tune May Only Be Worth One Bit" (2024, arXiv 2402.10193), §3: the difference
Δ = tuned - base is kept as a·sign(Δ), and a = mean |Δ| minimises ‖Δ - a·sign(Δ)‖². Because that is a projection,

    ‖Δ - a·sign(Δ)‖² = ‖Δ‖² - N·a²     (N values)

which is also how the error is known without a second pass. Beyond the paper, for fine-tunes that one bit hurts: a scale
per row; more planes, each one the BitDelta of what the planes before it left; and the rank-r part of the remaining
residual, the best there is by Eckart and Young (1936).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hllm.bitdelta.bits import Unpacker, pack, row_bytes, tiles
from hllm.bitdelta.tensors import Floats
from hllm.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class MatrixDelta:
    """What turns a base matrix into the tuned one, nearly: Σ scales[j]·signs[j] + left @ right.

    signs: (planes, rows, ⌈columns / 8⌉) uint8; scales: (planes,) or (planes, rows) float32; left: (rows, rank) and
    right: (rank, columns) float32, rank may be 0. ``norm2`` is ‖Δ‖² and ``error2`` ‖Δ - this‖².
    """

    signs: NDArray[np.uint8]
    scales: Floats
    left: Floats
    right: Floats
    norm2: float
    error2: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return len(self.left), self.right.shape[1]

    @property
    def rank(self) -> int:
        """Of the residual that is kept."""
        return len(self.right)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.signs.nbytes + self.scales.nbytes + self.left.nbytes + self.right.nbytes

    @property
    def relative_error(self) -> float:
        """‖Δ - this‖ / ‖Δ‖: √(1 - 2/π) ≈ 0.603 for one plane of normally distributed Δ."""
        return float(np.sqrt(self.error2 / self.norm2)) if self.norm2 > 0 else 0.0

    def dense(self) -> Floats:
        """The matrix that is added to the base, (rows, columns) float32."""
        return merge_matrix(np.zeros(self.shape, np.float32), self)


def compress_matrix(base: Floats, tuned: Floats, *, planes: int = 1, per_row: bool = False) -> MatrixDelta:
    """The BitDelta of one matrix (rows, columns) of float32, with ``planes`` bits per value.

    Raises:
        InvalidInput: the shapes differ, a matrix is empty, or the values or their differences are not finite.
    """
    _check(base, tuned)
    if not 1 <= planes <= 16:
        raise InvalidInput(f"planes is {planes}; it counts bits per value, 1 to 16")
    rows, columns = base.shape
    signs = np.empty((planes, rows, row_bytes(columns)), np.uint8)
    scales = np.empty((planes, rows) if per_row else planes, np.float32)
    # One plane is made tile by tile; more of them need what is left.
    left_over = np.empty((rows, columns), np.float32) if planes > 1 else None
    buffer = None if left_over is not None else np.empty((next(tiles(rows, columns)).stop, columns), np.float32)
    norm2 = error2 = 0.0
    for plane in range(planes):
        previous = Unpacker(signs[plane - 1 : plane], -scales[plane - 1 : plane], columns) if plane else None
        sums = np.empty(rows, np.float64)
        squares = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told of below
            for part in tiles(rows, columns):
                tile = left_over[part] if left_over is not None else buffer[: part.stop - part.start]  # type: ignore[index]
                if previous is None:
                    np.subtract(tuned[part], base[part], out=tile)
                else:
                    tile += previous(part)
                pack(tile, signs[plane, part])
                flat = tile.reshape(-1)
                squares += float(np.dot(flat, flat))
                sums[part] = np.abs(tile, out=tile if left_over is None else None).sum(axis=1)
        if not np.isfinite(squares) or not np.isfinite(sums).all():
            raise InvalidInput(
                "the matrices have values that are not finite, or differ by more than float32 can square"
            )
        means = sums / columns if per_row else np.array(sums.sum() / (rows * columns))
        scales[plane] = means
        norm2 = squares if plane == 0 else norm2
        error2 = squares - (columns if per_row else rows * columns) * float(np.sum(np.square(means)))
    return MatrixDelta(
        signs, scales, np.zeros((rows, 0), np.float32), np.zeros((0, columns), np.float32), norm2, max(0.0, error2)
    )


def with_residual(delta: MatrixDelta, base: Floats, tuned: Floats, rank: int) -> MatrixDelta:
    """``delta`` with the rank-``rank`` part of what it leaves: the truncated singular value decomposition of it.

    The eigenvectors of the smaller Gram matrix give it, in float64: O(n²·m) for the smaller side n. Slow for sides of
    thousands. Raises InvalidInput as ``compress_matrix`` does, and for ranks that the matrix does not have.
    """
    _check(base, tuned)
    if not 0 <= rank <= min(base.shape):
        raise InvalidInput(f"rank is {rank}; a matrix of {base.shape} has ranks 0 to {min(base.shape)}")
    if base.shape != delta.shape or delta.rank:
        raise InvalidInput("the delta is of another matrix, or has its residual already")
    if rank == 0:
        return delta
    residual = tuned.astype(np.float64) - base - delta.dense()
    wide = residual.shape[0] <= residual.shape[1]
    matrix = residual if wide else residual.T
    _, vectors = np.linalg.eigh(matrix @ matrix.T)
    top = vectors[:, : -rank - 1 : -1]
    other = top.T @ matrix
    norms = np.linalg.norm(other, axis=1)
    # Both factors get the root of the singular value, so that neither is far from 1 in float32.
    roots = np.sqrt(norms)
    other = np.divide(other, roots[:, None], out=np.zeros_like(other), where=roots[:, None] > 0)
    left, right = (top * roots, other) if wide else (other.T, (top * roots).T)
    error2 = max(0.0, float(np.sum(residual * residual)) - float(np.sum(norms * norms)))
    return replace(
        delta,
        left=np.ascontiguousarray(left, np.float32),
        right=np.ascontiguousarray(right, np.float32),
        error2=error2,
    )


def merge_matrix(base: Floats, delta: MatrixDelta, out: Floats | None = None) -> Floats:
    """base + delta, (rows, columns) float32; into ``out``, which may be ``base`` itself. Raises InvalidInput."""
    _fits(base, delta)
    result = np.empty(base.shape, np.float32) if out is None else out
    unpack = Unpacker(delta.signs, delta.scales, base.shape[1])
    for part in tiles(*base.shape):
        np.add(base[part], unpack(part), out=result[part])
        if delta.rank:
            result[part] += delta.left[part] @ delta.right
    return result


def apply(x: Floats, base: Floats, delta: MatrixDelta) -> Floats:
    """``x @ (base + delta).T`` without a merged copy of the matrix: x (n, columns) gives (n, rows), as a linear layer.

    The tuned matrix exists a tile at a time. This is slower than a product with a merged matrix (docs/hllm.md): it
    is for many adapters over one base, and for memory. Raises InvalidInput.
    """
    _fits(base, delta)
    if x.ndim != 2 or x.shape[1] != base.shape[1]:
        raise InvalidInput(f"x has the shape {x.shape}; (n, {base.shape[1]}) goes with this matrix")
    result = np.empty((x.shape[0], base.shape[0]), np.float32)
    add_to(result, x, delta, base)
    return result


def add_to(result: Floats, x: Floats, delta: MatrixDelta, base: Floats | None = None) -> None:
    """Write ``x @ (base + delta).T`` to ``result``; without a base, add ``x @ delta.T`` to it."""
    unpack = Unpacker(delta.signs, delta.scales, delta.shape[1])
    for part in tiles(*delta.shape):
        tile = unpack(part)
        if base is None:
            result[:, part] += x @ tile.T
        else:
            np.matmul(x, np.add(base[part], tile, out=tile).T, out=result[:, part])
    if delta.rank:
        result += (x @ delta.right.T) @ delta.left.T


def _check(base: Floats, tuned: Floats) -> None:
    for name, each in (("base", base), ("tuned", tuned)):
        if each.ndim != 2 or each.size == 0:
            raise InvalidInput(f"{name} has the shape {each.shape}; a matrix with rows and columns is needed")
        _is_float32(name, each)
    if base.shape != tuned.shape:
        raise InvalidInput(f"base has the shape {base.shape} and tuned {tuned.shape}: they are of different models")


def _fits(base: Floats, delta: MatrixDelta) -> None:
    _is_float32("base", base)
    if base.shape != delta.shape:
        raise InvalidInput(f"the delta is of a matrix of {delta.shape}, and base has the shape {base.shape}")


def _is_float32(name: str, values: NDArray[Any]) -> None:
    if values.dtype != np.float32:
        raise InvalidInput(f"{name} is of {values.dtype}; convert it to float32")
