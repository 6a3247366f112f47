"""How many sequences lie in memory: steps first, then features or states, then sequences."""

from __future__ import annotations

import numpy as np

from hllm.hmm.validation import Floats, Ints


class Layout:
    """Rows of sequences that follow each other, seen as an array of shape (steps, columns, blocks).

    One step of a recursion is then one numpy call over all blocks. Sequences that are shorter than the longest are
    padded at the end; ``padding`` (steps, blocks) is True there, and None when there is none.
    """

    def __init__(self, lengths: Ints) -> None:
        self.lengths = lengths
        self.samples = int(lengths.sum())
        self.steps = int(lengths.max())
        self.blocks = len(lengths)
        offsets = np.cumsum(lengths) - lengths
        step = np.arange(self.steps)[:, None]
        rows = offsets + step
        padding = step >= lengths
        self.padding = padding if padding.any() else None
        self.rows = np.where(padding, 0, rows)

    def spread(self, table: Floats, fill: float = 0.0) -> Floats:
        """(samples, columns) → (steps, columns, blocks)."""
        out = np.ascontiguousarray(table[self.rows].transpose(0, 2, 1))
        if self.padding is not None:
            out.transpose(0, 2, 1)[self.padding] = fill
        return out

    def collect(self, lattice: Floats) -> Floats:
        """(steps, columns, blocks) → (samples, columns)."""
        out = np.empty((self.samples, lattice.shape[1]))
        flat = lattice.transpose(0, 2, 1)
        if self.padding is None:
            out[self.rows] = flat
        else:
            out[self.rows[~self.padding]] = flat[~self.padding]
        return out
