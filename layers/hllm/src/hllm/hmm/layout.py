"""How sequences lie in memory: cut into blocks; steps first, then features or states, then blocks."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hllm.hmm.validation import Floats, Ints

Number = TypeVar("Number", np.float64, np.int64)
SHORTEST = 32
"""Steps of a block at least: below it, the work between blocks outweighs that within."""


class Layout:
    """Rows of sequences that follow each other, seen as an array of shape (steps, columns, blocks).

    Each sequence is cut into blocks of ``steps`` rows, about a quarter of the root of all rows: one step of a
    recursion is then one numpy call over all blocks. The last block of a sequence is padded at its end; ``padding``
    (steps, blocks) is True there, and None when there is none. ``first`` (blocks,) tells the first block of each
    sequence, ``last`` the last. ``whole`` leaves the sequences uncut.
    """

    def __init__(self, lengths: Ints, *, whole: bool = False) -> None:
        self.lengths = lengths
        self.samples = int(lengths.sum())
        longest = int(lengths.max())
        self.steps = longest if whole else min(longest, max(SHORTEST, math.isqrt(self.samples) // 4))
        per_sequence = -(-lengths // self.steps)
        self.blocks = int(per_sequence.sum())
        ends = per_sequence.cumsum()
        self.first = np.zeros(self.blocks, dtype=bool)
        self.first[ends - per_sequence] = True
        self.last = np.zeros(self.blocks, dtype=bool)
        self.last[ends - 1] = True
        self.filled = np.full(self.blocks, self.steps)
        self.filled[ends - 1] = lengths - (per_sequence - 1) * self.steps
        self.padding = None
        if (self.filled < self.steps).any():
            self.padding = np.arange(self.steps)[:, None] >= self.filled

    def _rows(self) -> Ints:
        """The row of each cell, (steps, blocks); that of padding is beyond its block."""
        out: Ints = self.filled.cumsum() - self.filled + np.arange(self.steps)[:, None]
        return out

    def spread(self, table: Floats, out: Floats) -> None:
        """(samples, columns) to (steps, columns, blocks); padding becomes 0."""
        if len(self.lengths) == 1:
            whole = self.samples // self.steps
            blocks = table[: whole * self.steps].reshape(whole, self.steps, -1)
            out[:, :, :whole] = blocks.transpose(1, 2, 0)
            if whole < self.blocks:
                rest = self.samples - whole * self.steps
                out[:rest, :, whole] = table[whole * self.steps :]
                out[rest:, :, whole] = 0.0
            return
        rows = self._rows()
        if self.padding is None:
            out[:] = table[rows].transpose(0, 2, 1)
        else:
            rows[self.padding] = 0
            out[:] = table[rows].transpose(0, 2, 1)
            out.transpose(0, 2, 1)[self.padding] = 0.0

    def collect(self, lattice: NDArray[Number]) -> NDArray[Number]:
        """(steps, columns, blocks) to (samples, columns)."""
        ordered: NDArray[Number] = lattice.transpose(2, 0, 1).reshape(self.blocks * self.steps, -1)
        if self.padding is None:
            return ordered
        out: NDArray[Number] = ordered[~self.padding.T.ravel()]
        return out
