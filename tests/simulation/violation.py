"""What a schedule fails with."""

from __future__ import annotations


class Violation(AssertionError):
    """Something that must hold does not."""


def require(condition: object, message: str) -> None:
    """Raise Violation unless the condition holds."""
    if not condition:
        raise Violation(message)
