"""The collateral of one attester's evidence, from the vendors' services."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from hanzo_compute.adapters.collateral.wanted import Job, Jobs, Unobtainable
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.ports import Clock, FetchedCollateral, MissingCollateral

PATIENCE_S: Final = 30.0
"""How long a caller is kept waiting for all of it."""
AT_ONCE: Final = 8
"""Files of one caller that are asked for at the same time."""
ROUNDS: Final = 2
"""What was had may need something else: reference values have a chain, whose certificates have a status."""


class CollateralFetcher:
    """Implements :class:`hanzo_compute.ports.CollateralSource`; safe to share between threads."""

    def __init__(self, platforms: Mapping[Platform, Jobs], clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        self._platforms = platforms
        self._clock = clock
        self._patience_s = patience_s

    def fetch(self, evidence: Sequence[Evidence], now_ms: int) -> FetchedCollateral:
        """See :meth:`hanzo_compute.ports.CollateralSource.fetch`."""
        until = self._clock.monotonic() + self._patience_s
        files: dict[Platform, dict[str, bytes]] = {}
        missing: dict[tuple[Platform, str], MissingCollateral] = {}
        with ThreadPoolExecutor(AT_ONCE, "collateral") as pool:
            for _ in range(ROUNDS):
                wanted = self._wanted(evidence, files, missing)
                if not wanted:
                    break
                results = pool.map(lambda job: _run(job, now_ms, until), wanted.values())
                for (platform, name), result in zip(wanted, results, strict=True):
                    if isinstance(result, bytes):
                        files.setdefault(platform, {})[name] = result
                    else:
                        again = result.retry_after_s if result.retry_after_s is not None or not result.passing else 0.0
                        missing[platform, name] = MissingCollateral(platform, name, result.reason, again)
        return FetchedCollateral(files, tuple(missing.values()))

    def _wanted(
        self,
        evidence: Sequence[Evidence],
        had: Mapping[Platform, Mapping[str, bytes]],
        missing: Collection[tuple[Platform, str]],
    ) -> dict[tuple[Platform, str], Job]:
        """What is still to be asked for; each file once, however many pieces need it."""
        found: dict[tuple[Platform, str], Job] = {}
        for each in evidence:
            files = had.get(each.platform, {})
            for job in self._jobs(each.platform, {**each.files, **files}):
                if job.name not in files and (each.platform, job.name) not in missing:
                    found.setdefault((each.platform, job.name), job)
        return found

    def _jobs(self, platform: Platform, files: Mapping[str, bytes]) -> list[Job]:
        find = self._platforms.get(platform)
        if find is None:
            return []  # its evidence brings all that it needs
        try:
            return find(files)
        except Unreadable:
            return []


def _run(job: Job, now_ms: int, until: float) -> bytes | Unobtainable:
    try:
        return job.get(now_ms, until)
    except Unobtainable as error:
        return error
