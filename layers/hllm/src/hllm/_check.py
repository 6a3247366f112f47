"""Checks of arguments that several parts share. Each raises InvalidInput, and says what was there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInput

Array = NDArray[np.float64]


def array(name: str, value: Any, shape: tuple[int, ...] | None = None) -> Array:
    """A finite float64 array, of this shape if one is given. It may share memory with ``value``."""
    try:
        result = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} is no array of numbers ({error}); give floats") from None
    if shape is not None and result.shape != shape:
        raise InvalidInput(f"{name} has shape {result.shape}; {shape} is expected")
    if not np.isfinite(result).all():
        count = int(np.count_nonzero(~np.isfinite(result)))
        raise InvalidInput(
            f"{name} has {count} of {result.size} values that are NaN or infinite; remove or replace them"
        )
    return result


def spread(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """A finite array that is stretched to a shape by numpy's broadcasting; read-only if it was stretched."""
    result = array(name, value)
    try:
        return np.broadcast_to(result, shape)
    except ValueError:
        raise InvalidInput(f"{name} has shape {result.shape}, which does not stretch to {shape}") from None


def number(name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf) -> float:
    """A finite float that is ``least`` or more, and more than ``above``."""
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"{name} is {value!r}; a number is expected") from None
    if not math.isfinite(result):
        raise InvalidInput(f"{name} is {result}; a finite number is expected")
    if result < least:
        raise InvalidInput(f"{name} is {result}; it must be {least} or more")
    if result <= above:
        raise InvalidInput(f"{name} is {result}; it must be more than {above}")
    return result


def count(name: str, value: Any, *, least: int = 0) -> int:
    """A whole number that is ``least`` or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidInput(f"{name} is {value!r}; a whole number is expected")
    if value < least:
        raise InvalidInput(f"{name} is {value}; it must be {least} or more")
    return int(value)
