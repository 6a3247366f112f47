"""Endorsements and reference values that evidence did not bring itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from hanzo_compute.model.evidence import Evidence, Platform


@dataclass(frozen=True, slots=True)
class MissingCollateral:
    """A file that could not be had: that is no word against the evidence."""

    platform: Platform
    name: str
    reason: str
    """Which service does not give it, and why."""
    retry_after_s: float | None = None
    """When it is worth asking again, if asking again can help: seconds."""


@dataclass(frozen=True, slots=True)
class FetchedCollateral:
    """What was had, by platform and the name of its file, and what was not."""

    files: Mapping[Platform, Mapping[str, bytes]] = field(repr=False)
    missing: tuple[MissingCollateral, ...] = ()


@runtime_checkable
class CollateralSource(Protocol):
    """Where collateral comes from. Nothing that it returns is trusted: the appraisal verifies each signature."""

    def fetch(self, evidence: Sequence[Evidence], now_ms: int) -> FetchedCollateral:
        """What these pieces of one attester's evidence need to be judged at ``now_ms``, and do not carry.

        It does not raise for what a service does: a file that cannot be had is among ``missing``, the others are
        there all the same. Evidence that cannot be read needs nothing: the appraisal says what is wrong with it.
        """
        ...
