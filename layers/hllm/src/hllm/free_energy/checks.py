"""Arguments of this package as float arrays of the shapes that fit together, or InvalidInput."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hllm.errors import InvalidInput

Array = NDArray[np.float64]
Arrays = Iterable[Any]
"""One array per modality or factor: a list, a tuple or pymdp's object array."""

TOLERANCE = 1e-6
"""How far the sum of a distribution may be from 1; it is then divided by its sum."""

TINY = float(np.finfo(np.float64).tiny)


def arrays(values: Arrays, name: str, each: str) -> list[Array]:
    """One finite float array per ``each`` (modality, factor)."""
    listed = _listed(values, name, each)
    found = []
    for index, value in enumerate(listed):
        shown = f"{name}[{index}]"
        found.append(_array(value, shown))
        if not np.isfinite(found[-1]).all():
            raise InvalidInput(f"{shown} has a value that is not finite: replace NaN and infinity")
    return found


def _listed(values: Arrays, name: str, each: str) -> list[Any]:
    if isinstance(values, np.ndarray) and values.dtype != object:
        raise InvalidInput(f"{name} is one array: give a list with an array for each {each}, such as [{name}]")
    try:
        listed = list(values)
    except TypeError:
        raise InvalidInput(f"{name} is {type(values).__name__}: give a list with an array for each {each}") from None
    if not listed:
        raise InvalidInput(f"{name} is empty: give an array for each {each}")
    return listed


def _array(value: Any, name: str) -> Array:
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"{name} is no array of numbers: {error}") from None
    if found.ndim == 0 or found.size == 0:
        raise InvalidInput(f"{name} has shape {found.shape}: it needs a dimension and an element")
    return found


def distributions(values: Arrays, name: str, each: str) -> list[Array]:
    """Arrays whose first axis is a distribution, normalised."""
    found = []
    # One pass over what is as it should be, since this is a good part of a small plan; NaN fails every comparison.
    with np.errstate(over="ignore", invalid="ignore"):
        for index, value in enumerate(_listed(values, name, each)):
            shown = f"{name}[{index}]"
            table = _array(value, shown)
            sums = table.sum(axis=0)
            off = np.ravel(sums - 1)
            if not (table.min() >= 0 and off @ off <= TOLERANCE**2):
                _judge(table, shown)
            found.append(table / sums)
    return found


def _judge(value: Array, name: str) -> None:
    """Look again at what is not at once seen to be distributions: many that are each a little off may pass."""
    if not np.isfinite(value).all():
        raise InvalidInput(f"{name} has a value that is not finite: replace NaN and infinity")
    if value.min() < 0:
        raise InvalidInput(f"{name} has a negative probability, {value.min():g}")
    off = np.abs(value.sum(axis=0) - 1).max()
    if off > TOLERANCE:
        raise InvalidInput(
            f"{name} is not normalised: a sum over its first axis is off 1 by {off:g}; divide by the sums"
        )


def counts(values: Arrays, name: str, each: str) -> list[Array]:
    """Arrays of Dirichlet counts along the first axis: not negative, and some of every distribution positive."""
    found = arrays(values, name, each)
    for index, value in enumerate(found):
        if value.min() < 0:
            raise InvalidInput(f"{name}[{index}] has a negative count, {value.min():g}")
        if not value.sum(axis=0).min() > 0:
            raise InvalidInput(f"{name}[{index}] has a distribution without any count: give it a prior")
    return found


def beliefs(values: Arrays, name: str) -> list[Array]:
    """One distribution per factor, each of one axis."""
    found = distributions(values, name, "factor")
    for index, value in enumerate(found):
        if value.ndim != 1:
            raise InvalidInput(f"{name}[{index}] has shape {value.shape}: a belief has one axis, the states")
    return found


def likelihoods(values: list[Array], name: str, states: tuple[int, ...]) -> list[Array]:
    """Arrays of shape (O_m, S_1, …, S_F) as matrices of shape (O_m, S) over the joint states."""
    for index, value in enumerate(values):
        if value.shape[1:] != states:
            expected = ", ".join(map(str, states))
            raise InvalidInput(f"{name}[{index}] has shape {value.shape}: (outcomes, {expected}) fits the states")
    return [value.reshape(len(value), -1) for value in values]


def transitions(values: list[Array], name: str, states: tuple[int, ...]) -> None:
    """Refuse what has not the shape (S_f, S_f, U_f)."""
    if len(values) != len(states):
        raise InvalidInput(f"{name} has {len(values)} factors, and the beliefs have {len(states)}")
    for index, (value, size) in enumerate(zip(values, states, strict=True)):
        if value.ndim != 3 or value.shape[:2] != (size, size):
            raise InvalidInput(f"{name}[{index}] has shape {value.shape}: ({size}, {size}, actions) fits the states")


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InvalidInput(f"{name} is {value!r}: it is a whole number from {low} to {high}")
    return int(value)


def number(value: Any, name: str, low: float, high: float = np.inf) -> float:
    """A finite number from ``low`` to ``high``."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = float("nan")
    if not (np.isfinite(found) and low <= found <= high):
        raise InvalidInput(f"{name} is {value!r}: it is a finite number from {low:g} to {high:g}")
    return found


def observed(values: Any, outcomes: list[int]) -> list[Array | None]:
    """What was seen of each modality as weights over its outcomes; None where nothing was."""
    if not isinstance(values, Iterable):
        raise InvalidInput(f"the observation is {values!r}: give a list with an outcome for each modality")
    listed = list(values)
    if len(listed) != len(outcomes):
        raise InvalidInput(f"the observation has {len(listed)} modalities, and the model has {len(outcomes)}")
    found: list[Array | None] = []
    for index, (value, size) in enumerate(zip(listed, outcomes, strict=True)):
        name = f"observation[{index}]"
        if value is None:
            found.append(None)
        elif np.ndim(value) == 0:
            found.append(np.eye(size)[whole(value, name, 0, size - 1)])
        else:
            (weights,) = distributions([value], name, "modality")
            if weights.shape != (size,):
                raise InvalidInput(f"{name} has shape {weights.shape}: ({size},) fits the model")
            found.append(weights)
    return found
