"""What is made of the bytes of evidence, remembered by those bytes: so much, and nothing that is large.

Who presents evidence chooses how large its parts are. What is real is small; what is not is made anew each time, so
that a process does not fill with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, update_wrapper
from typing import Any, Final, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LARGEST: Final = 16 * 1024
"""Bytes of all arguments of a call that is remembered: a chain of certificates with room to spare."""
LIST: Final = 64 * 1024
"""The same where a list of revoked certificates is among them."""


class Remembered(Generic[P, R]):
    """A function of bytes, and of tuples of bytes, with the results of the last ``most`` calls that are not large."""

    def __init__(self, function: Callable[P, R], most: int, largest: int) -> None:
        self._function = function
        self._kept: Any = lru_cache(maxsize=most)(function)
        self._largest = largest
        self.cache_info = self._kept.cache_info
        self.cache_clear = self._kept.cache_clear
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns. Exceptions are not remembered."""
        if _size(args) + (_size(tuple(kwargs.values())) if kwargs else 0) > self._largest:
            return self._function(*args, **kwargs)
        found: R = self._kept(*args, **kwargs)
        return found


def remembered(most: int, largest: int = LARGEST) -> Callable[[Callable[P, R]], Remembered[P, R]]:
    """Remember the last ``most`` calls of at most ``largest`` bytes."""
    return lambda function: Remembered(function, most, largest)


def _size(values: tuple[Any, ...]) -> int:
    size = 0
    for each in values:
        if isinstance(each, bytes):
            size += len(each)
        elif isinstance(each, tuple):
            size += _size(each)
    return size
