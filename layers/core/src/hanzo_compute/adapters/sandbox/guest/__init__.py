"""What guests of a language import to reach the platform: a module of theirs, beside their code."""

from __future__ import annotations

from importlib import resources
from typing import Final

NAMES: Final = {"python": "hzc.py", "javascript": "hzc.js"}
"""The module's file by language."""


def module(language: str) -> tuple[str, bytes]:
    """The name of a language's module, and its source."""
    name = NAMES[language]
    return name, resources.files(__package__).joinpath(name).read_bytes()


def resume() -> bytes:
    """The source that Python runs before a snapshot of it is taken."""
    return resources.files(__package__).joinpath("resume.py").read_bytes()
