"""What a benchmark found: spreads over rounds, a table, and what was aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of the rounds."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        if self.least == self.greatest:
            return number(self.median)
        return f"{number(self.median)} ({number(self.least)} … {number(self.greatest)})"


def spread(values: Sequence[float]) -> Spread:
    """The spread of one value for each round."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The spread of the quotient of each round: what disturbs a round disturbs both of its sides."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that ``share`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


Cell = str | float | Spread | None


@dataclass(frozen=True)
class Target:
    """What was aimed at: ``value`` at most (or at least) ``bound``."""

    what: str
    value: Spread
    bound: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        return self.value.median <= self.bound if self.at_most else self.value.median >= self.bound

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return f"{self.what}: {self.value}, aimed at {sign} {number(self.bound)}: {'met' if self.met else 'MISSED'}"


@dataclass
class Report:
    """One benchmark's result. The first column names what the row is about."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """A table for people and for docs/benchmarks.md."""
        lines = [f"### {self.title}", "", _line(self.columns), _line(["---", *["---:"] * (len(self.columns) - 1)])]
        lines += [_line([_text(cell) for cell in row]) for row in self.rows]
        lines += ["", *(f"- {target}" for target in self.targets), *(f"- {note}" for note in self.notes)]
        return "\n".join(lines).rstrip() + "\n"

    def as_json(self) -> dict[str, Any]:
        """The same for ``bench.json``."""
        return asdict(self) | {"targets": [asdict(each) | {"met": each.met} for each in self.targets]}


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    return number(cell) if isinstance(cell, float | int) else str(cell)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
