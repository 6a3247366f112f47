"""The errors of the engine: one root, and what the caller can do about each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hllm.trace import Trace


class HllmError(Exception):
    """The root of this package's errors."""


class InvalidInput(HllmError, ValueError):
    """An argument has the wrong shape, type or values; the message says which, what was there and what is expected."""


class NotFitted(HllmError, AttributeError):
    """A model is asked for what it learns in ``fit`` before it was fitted."""


class FitFailed(HllmError, RuntimeError):
    """No restart of a fit gave usable parameters: each collapsed, or had a likelihood that is not finite."""


class NoCandidate(HllmError, LookupError):
    """The hard constraints leave no route; ``trace`` names, for every candidate, the predicate that failed."""

    def __init__(self, message: str, trace: Trace) -> None:
        super().__init__(message)
        self.trace = trace
