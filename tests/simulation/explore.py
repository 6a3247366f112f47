"""Many schedules, in as many processes as the machine has processors, and what they reached."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from tests.simulation.faults import Site, Target
from tests.simulation.world import Report, run

CHUNK: Final = 25
"""Schedules that one process runs before it reports."""


@dataclass(frozen=True)
class Reached:
    """A schedule that came to a site, and how often: cheap to run again up to there."""

    profile: str
    seed: int
    visits: int
    steps: int
    after: tuple[Target, ...] = ()
    """Crashes that led there."""


@dataclass
class Summary:
    """What a number of schedules came to."""

    schedules: int = 0
    jobs: int = 0
    faults: int = 0
    steps: int = 0
    failures: list[str] = field(default_factory=list)
    reached: dict[Site, Reached] = field(default_factory=dict)
    crashed: set[Site] = field(default_factory=set)

    def add(self, report: Report, *targets: Target) -> None:
        """Count one schedule."""
        self.schedules += 1
        self.jobs += report.jobs
        self.faults += report.faults
        self.steps += len(report.trace)
        self.crashed |= report.crashed
        if report.failure is not None:
            self.failures.append(report.describe())
        for site, visits in report.visits.items():
            self._reach(site, Reached(report.profile, report.seed, visits, len(report.trace), targets))

    def merge(self, other: Summary) -> None:
        """Add what another process found."""
        self.schedules += other.schedules
        self.jobs += other.jobs
        self.faults += other.faults
        self.steps += other.steps
        self.failures += other.failures
        self.crashed |= other.crashed
        for site, reached in other.reached.items():
            self._reach(site, reached)

    def _reach(self, site: Site, reached: Reached) -> None:
        known = self.reached.get(site)
        if known is None or reached.steps < known.steps:
            self.reached[site] = reached

    @property
    def uncovered(self) -> list[Site]:
        """Sites that were reached, and where nothing has crashed yet."""
        return sorted(self.reached.keys() - self.crashed)

    def __str__(self) -> str:
        return (
            f"{self.schedules} schedules, {self.jobs} jobs, {self.faults} faults, {self.steps} steps; "
            f"{len(self.reached)} call sites, a crash at {len(self.reached) - len(self.uncovered)}"
        )


def schedules(profile: str, seeds: Iterable[int]) -> Summary:
    """Run the schedules of these seeds, up to the first failure."""
    summary = Summary()
    for seed in seeds:
        summary.add(run(seed, profile))
        if summary.failures:
            break
    return summary


def targeted(profile: str, seed: int, after: tuple[Target, ...], targets: Sequence[Target]) -> Summary:
    """Run one schedule again for each target, with a crash there, after those that led to it."""
    summary = Summary()
    for target in targets:
        report = run(seed, profile, *after, target)
        summary.add(report, *after, target)
        if target.site not in report.crashed:
            summary.failures.append(f"seed {seed}, profile {profile}: no crash at {target.site}, visit {target.visit}")
    return summary


class Pool:
    """Processes that run schedules."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(max_workers=min(os.cpu_count() or 1, 4), mp_context=context)

    def explore(self, profiles: Sequence[str], count: int) -> Summary:
        """``count`` schedules, divided among the profiles."""
        each = max(count // len(profiles), 1)
        jobs = [
            self._executor.submit(schedules, profile, range(first, min(first + CHUNK, each)))
            for first in range(0, each, CHUNK)
            for profile in profiles
        ]
        return self._collect([job.result() for job in jobs])

    def cover(self, summary: Summary) -> Summary:
        """Crash at the first and at the last visit of every site where nothing has crashed yet."""
        jobs = []
        for site in summary.uncovered:
            found = summary.reached[site]
            targets = [Target(site, visit) for visit in sorted({1, found.visits})]
            jobs.append(self._executor.submit(targeted, found.profile, found.seed, found.after, targets))
        return self._collect([job.result() for job in jobs])

    @staticmethod
    def _collect(parts: Sequence[Summary]) -> Summary:
        whole = Summary()
        for part in parts:
            whole.merge(part)
        return whole

    def close(self) -> None:
        """End the processes."""
        self._executor.shutdown(cancel_futures=True)
