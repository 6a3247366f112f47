"""Signs as bits, and back: one bit each, the lowest bit of a byte first, rows padded to whole bytes.

Unpacking is a look-up: a byte selects eight floats of a 256 by 8 table that the scale is multiplied into beforehand.
Measured, this beats shifting and masking, unpackbits and a table of 65,536 entries (docs/hllm.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hllm.bitdelta.tensors import Floats

TILE: Final = 1 << 18
"""Floats of a tile, 1 MiB: it stays in a core's cache between the steps that are done with it."""

SIGNS: Final[Floats] = (((np.arange(256)[:, None] >> np.arange(8)) & 1) * 2 - 1).astype(np.float32)
"""The eight signs of each byte."""


def row_bytes(columns: int) -> int:
    """Bytes that the signs of a row take."""
    return -(-columns // 8)


def pack(values: Floats, out: NDArray[np.uint8]) -> None:
    """The signs of ``values`` (rows, columns) to ``out`` (rows, row_bytes(columns)); zero counts as positive."""
    out[...] = np.packbits(values >= 0, axis=1, bitorder="little")


def tiles(rows: int, columns: int) -> Iterator[slice]:
    """The rows of a matrix in runs of about ``TILE`` values."""
    step = max(1, TILE // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


class Unpacker:
    """Sums of scaled planes of signs, tile by tile, in buffers that are used again.

    signs: (planes, rows, row_bytes); scales: (planes,) or (planes, rows), float32.
    """

    def __init__(self, signs: NDArray[np.uint8], scales: Floats, columns: int) -> None:
        planes, self._rows, width = signs.shape
        self._signs, self._columns = signs, columns
        self._row_scales = scales[:, :, None] if scales.ndim == 2 else None
        ones = np.ones(planes, np.float32) if scales.ndim == 2 else scales
        self._tables = [SIGNS * scale for scale in ones]
        most = next((each.stop for each in tiles(self._rows, columns)), 0)
        self._sum = np.empty((most, width, 8), np.float32)
        self._plane = np.empty_like(self._sum) if planes > 1 else self._sum

    def __call__(self, rows: slice) -> Floats:
        """(rows, columns), valid until the next call."""
        height = rows.stop - rows.start
        total = self._sum[:height]
        for number, table in enumerate(self._tables):
            plane = self._plane[:height] if number else total
            # Bytes cannot be out of range; "clip" saves the check, and writes to ``out`` without a buffer between.
            np.take(table, self._signs[number, rows], axis=0, out=plane, mode="clip")
            if self._row_scales is not None:
                plane *= self._row_scales[number, rows, :, None]
            if number:
                total += plane
        flat: Floats = total.reshape(height, -1)[:, : self._columns]
        return flat
