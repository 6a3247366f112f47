"""A flame graph: sampled stacks, merged into a tree and drawn as one SVG without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 1200
ROW: Final = 17
CHARACTER: Final = 6.6
LEAST: Final = 0.001
"""Frames below this share of all samples are left out: they could not be seen."""


@dataclass
class Frame:
    """A function as called from those above it, and how many samples had it on the stack."""

    name: str
    samples: int = 0
    calls: dict[str, Frame] = field(default_factory=dict)

    def add(self, stack: Sequence[str], samples: int) -> None:
        """Count a stack, outermost function first."""
        self.samples += samples
        frame = self
        for name in stack:
            frame = frame.calls.setdefault(name, Frame(name))
            frame.samples += samples

    def depth(self, least: float) -> int:
        """Rows that it takes."""
        return 1 + max((each.depth(least) for each in self.calls.values() if each.samples >= least), default=0)


def tree(title: str, stacks: Mapping[tuple[str, ...], int]) -> Frame:
    """All stacks under one root."""
    root = Frame(title)
    for stack, samples in stacks.items():
        root.add(stack, samples)
    return root


def svg(root: Frame) -> str:
    """The picture: the root at the bottom, width is the share of samples."""
    least = max(1.0, root.samples * LEAST)
    height = root.depth(least) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    _draw(root, root.samples, 0.0, height - ROW, least, parts)
    return "\n".join([*parts, "</svg>", ""])


def _draw(frame: Frame, total: int, x: float, y: float, least: float, parts: list[str]) -> None:
    width = frame.samples / total * WIDTH
    name = escape(frame.name)
    room = int(width / CHARACTER) - 1
    shown = name if len(frame.name) <= room else escape(frame.name[: room - 1]) + "…" if room > 3 else ""
    parts.append(
        f'<g><title>{name}: {frame.samples / total:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}"'
        f' height="{ROW - 1}" fill="{_colour(frame.name)}"/>'
        + (f'<text x="{x + 3:.1f}" y="{y + 12}">{shown}</text>' if shown else "")
        + "</g>"
    )
    for each in sorted(frame.calls.values(), key=lambda call: call.name):
        if each.samples >= least:
            _draw(each, total, x, y - ROW, least, parts)
        x += each.samples / total * WIDTH


def _colour(name: str) -> str:
    """Ours are blue, others warm; the shade tells neighbours apart."""
    shade = sum(map(ord, name)) % 40
    if "hanzo_compute" in name or "job_intake" in name or "leases/" in name:
        return f"hsl(205, 70%, {60 + shade // 2}%)"
    return f"hsl({20 + shade}, 80%, 68%)"
