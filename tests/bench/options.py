"""What every benchmark is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """``work`` is a folder that is removed afterwards; ``say`` gets a line for each step."""

    work: Path
    rounds: int = 5
    smoke: bool = False
    """Sizes so small that the figures mean nothing: only whether it runs."""
    say: Callable[[str], None] = lambda _: None

    def size(self, full: int, smoke: int) -> int:
        return smoke if self.smoke else full

    def folder(self, name: str) -> Path:
        """A new folder."""
        path = self.work / name
        path.mkdir(mode=0o700)
        return path
