"""Which route a request takes, as an API Gateway HTTP API decides it.

Paths are matched segment by segment, after percent-decoding each; ``{name}`` takes one segment that is not
empty, ``{name+}`` all that is left (at least one). The most specific pattern wins: at the first segment in which
two patterns differ, text goes before ``{name}`` and that before ``{name+}``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from hanzo_compute_host.manifest import Route

ANY = "ANY"
"""Method of a route that takes what no route of its path takes by name."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What it stands for."""


@dataclass(frozen=True, slots=True)
class Match:
    """The route of a request, and what its path says for the route's names."""

    route: Route
    parameters: dict[str, str]


@dataclass
class _Step:
    """One segment of all patterns that begin alike."""

    texts: dict[str, _Step] = field(default_factory=dict)
    one: _Step | None = None
    rest: dict[str, tuple[Route, list[str]]] = field(default_factory=dict)
    ends: dict[str, tuple[Route, list[str]]] = field(default_factory=dict)


class Routes:
    """The routing table."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Step()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        step = self._root
        names: list[str] = []
        for segment in _segments(route.path):
            if segment.endswith("+}"):
                step.rest[route.method] = (route, [*names, segment[1:-2]])
                return
            if segment.startswith("{"):
                names.append(segment[1:-1])
                step.one = step.one or _Step()
                step = step.one
            else:
                step = step.texts.setdefault(segment, _Step())
        step.ends[route.method] = (route, names)

    def match(self, method: str, raw_path: str) -> Match | None:
        """The route for a method and an undecoded path, or None."""
        values: list[str] = []
        if method not in METHODS:
            return None
        found = _find(self._root, [unquote(each) for each in _segments(raw_path)], 0, method, values)
        return None if found is None else Match(found[0], dict(zip(found[1], values, strict=True)))

    def methods(self, raw_path: str) -> list[str]:
        """The methods that this path has routes for, sorted: what ``Allow`` says with a 405."""
        return sorted(method for method in METHODS if self.match(method, raw_path) is not None)


def _segments(path: str) -> list[str]:
    return path.removeprefix("/").split("/")


def _find(step: _Step, segments: list[str], at: int, method: str, values: list[str]) -> tuple[Route, list[str]] | None:
    if at == len(segments):
        return step.ends.get(method) or step.ends.get(ANY)
    here = segments[at]
    if here in step.texts:
        found = _find(step.texts[here], segments, at + 1, method, values)
        if found is not None:
            return found
    # A segment with an encoded slash is no name: the resolver behind us, which sees the decoded path, would take
    # another route with it than the one that was authorised.
    if step.one is not None and here and "/" not in here:
        values.append(here)
        found = _find(step.one, segments, at + 1, method, values)
        if found is not None:
            return found
        values.pop()
    rest = step.rest.get(method) or step.rest.get(ANY)
    if rest is not None:
        values.append("/".join(segments[at:]))
    return rest
