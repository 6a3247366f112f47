"""Where endorsements and reference values come from that evidence does not bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from hanzo_compute.model.evidence import Evidence, Platform


@runtime_checkable
class CollateralSource(Protocol):
    """Fetches collateral."""

    def fetch(self, evidence: Sequence[Evidence], now_ms: int) -> Mapping[Platform, Mapping[str, bytes]]:
        """What the appraisal of this evidence needs besides, by platform and name of the file.

        What cannot be had is left out: the appraisal says what is missing.
        """
        ...
