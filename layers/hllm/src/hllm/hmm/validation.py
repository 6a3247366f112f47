"""Checks of what callers hand in: observations, lengths, distributions, random states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hllm.errors import InvalidInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LARGEST = 1e150
"""Bound of what can be squared."""
RandomState = int | np.random.Generator | np.random.RandomState | None


def observations(X: ArrayLike, *, features: int | None = None) -> Floats:
    """``X`` as float64, shape (n_samples, n_features). A row of NaN only is a missing observation.

    A row is missing, too, where all its values are masked (``numpy.ma``). Raises InvalidInput for another number of
    dimensions or features, for no rows, for infinities, and for rows of which only a part is missing.
    """
    try:
        if np.iscomplexobj(X):
            raise TypeError("complex numbers have no place here")
        if isinstance(X, np.ma.MaskedArray):
            array = np.where(np.ma.getmaskarray(X), np.nan, np.ma.getdata(X).astype(np.float64))
        else:
            array = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"X must be an array of numbers: {error}") from error
    if array.ndim != 2:
        raise InvalidInput(
            f"X must have shape (n_samples, n_features), got {array.shape}; reshape one feature with X.reshape(-1, 1)"
        )
    if 0 in array.shape:
        raise InvalidInput(f"X of shape {array.shape} holds no observations")
    if features is not None and array.shape[1] != features:
        raise InvalidInput(f"X has {array.shape[1]} features, the model has {features}")
    if not (array.max() < LARGEST and array.min() > -LARGEST):  # NaN fails both
        _explain(array)
    return array


def _explain(array: Floats) -> None:
    infinite = np.isinf(array)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise InvalidInput(f"X[{row}, {column}] is infinite: give finite numbers, or a row of NaN if it is missing")
    missing = np.isnan(array)
    part = missing.any(axis=1) & ~missing.all(axis=1)
    if part.any():
        row = int(np.flatnonzero(part)[0])
        raise InvalidInput(f"row {row} of X is NaN in part: only whole rows may be missing; drop it or fill it in")
    if (np.abs(array) >= LARGEST).any():
        raise InvalidInput(f"X holds numbers beyond {LARGEST:g}, whose squares overflow: rescale it")


def sequence_lengths(lengths: Sequence[int] | ArrayLike | None, samples: int) -> Ints:
    """The lengths of the sequences, shape (n_sequences,). Raises InvalidInput unless they are positive and sum up."""
    if lengths is None:
        return np.array([samples], dtype=np.int64)
    given = np.asarray(lengths)
    if given.ndim != 1 or not given.size or not np.issubdtype(given.dtype, np.integer):
        raise InvalidInput(f"lengths must be a list of whole numbers, got {lengths!r}")
    if (given < 1).any():
        raise InvalidInput("each of lengths must be 1 or more")
    if given.sum() != samples:
        raise InvalidInput(f"lengths sum to {given.sum()}, but X has {samples} rows")
    return given.astype(np.int64)


def distributions(value: Any, name: str, shape: tuple[int, ...]) -> Floats:
    """A copy: probabilities along the last axis.

    Raises InvalidInput for another shape, negatives, NaN, or sums that are not 1; what is off by
    less than 1e-6 is normalised.
    """
    array = np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise InvalidInput(f"{name} must have shape {shape}, got {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise InvalidInput(f"{name} must hold probabilities: finite and not negative")
    total = array.sum(axis=-1, keepdims=True)
    if (np.abs(total - 1) > 1e-6).any():
        raise InvalidInput(f"{name} must sum to 1 along its last axis, got {total.ravel()}")
    if (np.abs(total - 1) < 1e-13).all():
        return array  # as it is: what is stored comes back bit for bit
    normal: Floats = array / total
    return normal


def generator(random_state: RandomState) -> np.random.Generator:
    """A random generator from a seed, from a generator of either of numpy's kinds, or (None) from the system."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4))
    if random_state is not None and (isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer))):
        raise InvalidInput(f"random_state must be a seed, a generator of numpy or None, got {random_state!r}")
    if random_state is not None and random_state < 0:
        raise InvalidInput(f"a seed must not be negative, got {random_state}")
    return np.random.default_rng(random_state)
