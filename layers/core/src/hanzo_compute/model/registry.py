"""A function's record - which versions there are and where its aliases point - and how each change leaves it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from hanzo_compute.model import bounds
from hanzo_compute.model.spec import format_time

LIVE: Final = "live"
"""The alias that a call without a version goes to."""

Weights = dict[str, int]
"""Percent of the calls by version number (as text: JSON's names are)."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a function, which never changes."""

    name: str
    number: int
    digest: str
    """SHA-256, hex, of its spec."""
    created_ms: int
    spec: dict[str, Any]

    @property
    def reference(self) -> str:
        """What names it for good."""
        return f"{self.name}@{self.number}"

    @classmethod
    def from_record(cls, body: dict[str, Any]) -> Version:
        """The version that a stored record holds."""
        return cls(**body)

    def record(self) -> dict[str, Any]:
        """The record to store."""
        return {name: getattr(self, name) for name in self.__slots__}

    def view(self) -> dict[str, Any]:
        """As its tenant sees it."""
        return {
            "name": self.name,
            "version": self.number,
            "reference": self.reference,
            "digest": self.digest,
            "created_at": format_time(self.created_ms),
            "spec": self.spec,
        }


@dataclass(frozen=True, slots=True)
class Alias:
    """Where an alias points, and where it did before: the newest last."""

    weights: Weights
    previous: list[Weights] = field(default_factory=list)

    def pick(self, at: float) -> int:
        """The version for ``at`` in [0, 1): each gets the part of that range that is its weight."""
        left = at * 100
        numbers = sorted(map(int, self.weights))
        for number in numbers:
            left -= self.weights[str(number)]
            if left < 0:
                return number
        return numbers[-1]


@dataclass(frozen=True, slots=True)
class Function:
    """A function. Removed, it keeps its count of versions: a number never names two of them."""

    tenant: str
    name: str
    newest: int
    """Number of the newest version, removed or not."""
    digest: str
    """That version's."""
    versions: list[int]
    """Those that are kept, in order."""
    created_ms: int
    updated_ms: int
    aliases: dict[str, Alias] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """The last changes of aliases, in order: ``at_ms alias weights by``; without weights it was removed."""
    removed: bool = False

    @classmethod
    def from_record(cls, body: dict[str, Any]) -> Function:
        """The function that a stored record holds."""
        aliases = {name: Alias(**each) for name, each in body["aliases"].items()}
        return cls(**{**body, "aliases": aliases})

    def record(self) -> dict[str, Any]:
        """The record to store."""
        aliases = {name: {"weights": each.weights, "previous": each.previous} for name, each in self.aliases.items()}
        return {name: getattr(self, name) for name in self.__slots__} | {"aliases": aliases}

    def view(self) -> dict[str, Any]:
        """As its tenant sees it."""
        return {
            "name": self.name,
            "newest": self.newest,
            "versions": self.versions,
            "aliases": {name: each.weights for name, each in sorted(self.aliases.items())},
            "history": [
                {"at": format_time(each["at_ms"])} | {name: each[name] for name in ("alias", "weights", "by")}
                for each in self.history
            ],
            "created_at": format_time(self.created_ms),
            "updated_at": format_time(self.updated_ms),
        }

    def pointed(self, alias: str, weights: Weights, by: str, at_ms: int) -> Function:
        """With an alias that points there; the setting before is kept to go back to."""
        before = self.aliases.get(alias)
        if before is not None and before.weights == weights:
            return self
        kept = [] if before is None else [*before.previous, before.weights][-bounds.HISTORY_MAX :]
        return self._noted(alias, weights, by, at_ms, self.aliases | {alias: Alias(weights, kept)})

    def rolled_back(self, alias: str, at_ms: int) -> Function:
        """With an alias that points where it did before, which it must have."""
        *earlier, weights = self.aliases[alias].previous
        return self._noted(alias, weights, "rollback", at_ms, self.aliases | {alias: Alias(weights, earlier)})

    def without(self, alias: str, at_ms: int) -> Function:
        """Without an alias."""
        left = {name: each for name, each in self.aliases.items() if name != alias}
        return self._noted(alias, {}, "remove", at_ms, left)

    def pruned(self) -> tuple[Function, list[int]]:
        """Without the oldest versions over the bound that nothing points at, and their numbers.

        What an alias would go back to next stays; what lies further back is forgotten with its version.
        """
        over = len(self.versions) - bounds.VERSIONS_MAX
        if over <= 0:
            return self, []
        held = {self.newest}
        for alias in self.aliases.values():
            for weights in (alias.weights, *alias.previous[-1:]):
                held.update(map(int, weights))
        gone = [number for number in self.versions if number not in held][:over]
        return self.only([number for number in self.versions if number not in gone]), gone

    def only(self, versions: list[int]) -> Function:
        """With these versions alone, and aliases that point at no others."""
        there = {str(number) for number in versions}
        aliases = {
            name: Alias(alias.weights, [weights for weights in alias.previous if weights.keys() <= there])
            for name, alias in self.aliases.items()
            if alias.weights.keys() <= there
        }
        return replace(self, versions=versions, aliases=aliases)

    def _noted(self, alias: str, weights: Weights, by: str, at_ms: int, aliases: dict[str, Alias]) -> Function:
        entry = {"at_ms": at_ms, "alias": alias, "weights": weights, "by": by}
        history = [*self.history, entry][-bounds.HISTORY_MAX :]
        return replace(self, aliases=aliases, history=history)
