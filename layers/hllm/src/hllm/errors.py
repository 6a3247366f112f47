"""The errors of the engine: one root, and what the caller can do about each."""

from __future__ import annotations


class HllmError(Exception):
    """The root of this package's errors."""


class InvalidInput(HllmError, ValueError):
    """An argument has the wrong shape, type or values; the message says which, what was there and what is expected."""


class NotFitted(HllmError, AttributeError):
    """A model is asked for what it learns in ``fit`` before it was fitted."""


class FitFailed(HllmError, RuntimeError):
    """No restart of a fit gave usable parameters: each collapsed, or had a likelihood that is not finite."""
