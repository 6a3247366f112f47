"""Feature rows: sparse ones of our own, or dense ones of numpy, with the two products that heads need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hllm._check import Array, array
from hllm.errors import InvalidInput

Integers = NDArray[np.int64]

_MOST = 1e30
"""Of features: products of their squares must not overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A sparse matrix in compressed rows: row i holds ``values[starts[i]:starts[i+1]]`` at ``columns[…]`` of width F.

    Columns are ascending and appear once in a row. ``starts`` has one entry more than there are rows.
    """

    starts: Integers
    columns: Integers
    values: Array
    width: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, width)."""
        return len(self), self.width

    def dense(self) -> Array:
        """The same as an array of shape (rows, width)."""
        result = np.zeros(self.shape)
        result[self.row_of(), self.columns] = self.values
        return result

    def row_of(self) -> Integers:
        """The row of each value."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def times(self, weights: Array) -> Array:
        """X @ weights, where weights are of shape (F, D); shape (rows, D)."""
        terms = weights[self.columns] * self.values[:, np.newaxis]
        result = np.zeros((len(self), weights.shape[1]))
        filled = self.starts[:-1] < self.starts[1:]  # reduceat gives an empty row its neighbour's value
        if filled.any():
            result[filled] = np.add.reduceat(terms, self.starts[:-1][filled], axis=0)
        return result

    def transposed_times(self, weights: Array) -> Array:
        """X.T @ weights, where weights are of shape (rows, D); shape (F, D)."""
        row = self.row_of()
        columns = [np.bincount(self.columns, self.values * weight[row], minlength=self.width) for weight in weights.T]
        return np.stack(columns, axis=1) if columns else np.zeros((self.width, 0))


class Dense:
    """A numpy array with the products of ``Rows``."""

    def __init__(self, values: Array) -> None:
        self.values, self.shape = values, values.shape

    def times(self, weights: Array) -> Array:
        """X @ weights."""
        return np.asarray(self.values @ weights)

    def transposed_times(self, weights: Array) -> Array:
        """X.T @ weights."""
        return np.asarray(self.values.T @ weights)


def rows(features: Any, width: int | None = None) -> Rows | Dense:
    """Rows or an array of shape (N, F) with their products. Raises InvalidInput for another shape or width."""
    if isinstance(features, Rows):
        result: Rows | Dense = features
    else:
        values = array("features", features)
        if values.ndim != 2:
            raise InvalidInput(f"features have shape {values.shape}; give (rows, features)")
        result = Dense(values)
    if (np.abs(result.values) > _MOST).any():
        raise InvalidInput(f"features reach {np.abs(result.values).max():.3g}; scale them to {_MOST} or less")
    if width is not None and result.shape[1] != width:
        raise InvalidInput(f"features are {result.shape[1]} wide; this was fitted with {width}")
    return result


def classes(labels: Any, count: int) -> tuple[list[str | int], Integers]:
    """The classes in ascending order and the class of each label. Labels are text or whole numbers, all of one kind."""
    if isinstance(labels, str):
        raise InvalidInput("labels is one str; give a sequence of them")
    found = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if len(found) != count:
        raise InvalidInput(f"there are {len(found)} labels for {count} rows; give one for each")
    kinds = {type(label) for label in found}
    if not found:
        raise InvalidInput("there are no rows to learn from")
    if kinds not in ({str}, {int}):
        raise InvalidInput(f"labels are of {sorted(k.__name__ for k in kinds)}; give all as str, or all as int")
    names = sorted(set(found))
    index = {name: i for i, name in enumerate(names)}
    return names, np.array([index[label] for label in found], dtype=np.int64)
