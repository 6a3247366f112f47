"""What happens at a port call: nothing, a switch to another task, or one of the faults of the profile."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final, NamedTuple

import hanzo_compute.services
import hanzo_compute_agent
from hanzo_compute.errors import Unavailable
from tests.simulation.profiles import Profile
from tests.simulation.scheduler import SECOND, Process, ProcessKilled, Scheduler

_PRODUCT: Final = tuple(
    f"{Path(next(iter(package.__path__))).resolve()}/" for package in (hanzo_compute.services, hanzo_compute_agent)
)
SLOW_US: Final = 3 * SECOND
FROZEN_US: Final = 25 * SECOND
"""A process may stand still for longer than a lease lasts."""
_NAMES: Final[dict[str, str | None]] = {}


class Site(NamedTuple):
    """A line of the services or of the agent that calls a port."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Step(NamedTuple):
    """One line of a trace."""

    at_us: int
    task: str
    call: str
    site: Site | None
    event: str

    def __str__(self) -> str:
        where = f"  [{self.site}]" if self.site else ""
        event = f"  *** {self.event}" if self.event else ""
        return f"{self.at_us / SECOND:10.4f}  {self.task:<24} {self.call}{where}{event}"


@dataclass(frozen=True)
class Target:
    """Crash the process that makes the ``visit``-th call from ``site``."""

    site: Site
    visit: int


def call_site() -> Site | None:
    """The innermost line of the product that led here; None when a client or the simulated host calls."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path not in _NAMES:
            owner = [prefix for prefix in _PRODUCT if path.startswith(prefix)]
            _NAMES[path] = str(Path(path).relative_to(Path(owner[0]).parent)) if owner else None
        name = _NAMES[path]
        if name is not None:
            return Site(name, frame.f_lineno)
        frame = frame.f_back
    return None


class Faults:
    """Decides at each port call, and keeps the books: trace, sites seen, sites crashed at."""

    def __init__(self, scheduler: Scheduler, random: Random, profile: Profile, targets: Sequence[Target]) -> None:
        self.scheduler = scheduler
        self.random = random
        self.profile = profile
        self.targets = frozenset(targets)
        self.trace: list[Step] = []
        self.visits: dict[Site, int] = {}
        self.crashed: set[Site] = set()
        self.left = profile.budget
        self.embedded = random.random() < 0.5
        """The store holds the queues and sends with its transactions, as on one machine; else there is an outbox."""
        self._kinds = list(profile.weights)
        self._weights = list(profile.weights.values())

    def note(self, event: str, call: str = "", site: Site | None = None) -> None:
        """Add a line to the trace."""
        task = self.scheduler.current
        self.trace.append(Step(self.scheduler.now_us, task.name if task else "-", call, site, event))

    @property
    def quiet(self) -> bool:
        """True once nothing goes wrong any more."""
        return self.left <= 0 or self.scheduler.now_us > self.profile.until_s * SECOND

    def chance(self, probability: float, event: str) -> bool:
        """Decide on a fault that is not tied to the caller: a lost batch, a duplicated message."""
        if not probability or self.quiet or self.random.random() >= probability:
            return False
        self.left -= 1
        self.note(event)
        return True

    def step(self, call: str, *, fallible: bool = False) -> bool:
        """Come here before each port call. True: let it take effect, then lose its reply.

        Raises:
            ProcessKilled: the caller's process is dead, or dies here.
            Unavailable: the call fails without effect (only if ``fallible``).
        """
        scheduler = self.scheduler
        task = scheduler.current
        assert task is not None, f"{call} outside of a task"
        process = task.process
        if scheduler.over or (process is not None and not process.alive):
            raise ProcessKilled
        site = call_site()
        if site is not None and process is not None:
            visit = self.visits[site] = self.visits.get(site, 0) + 1
            if Target(site, visit) in self.targets:
                self._crash(process, call, site)
        profile, chance = self.profile, self.random.random()
        if chance < profile.fault and not self.quiet:
            return self._fault(call, site, process, fallible)
        self.note("", call, site)
        if chance > 1 - profile.switch:
            scheduler.pause(self.random.randrange(2000))
        return False

    def _fault(self, call: str, site: Site | None, process: Process | None, fallible: bool) -> bool:
        kind = self.random.choices(self._kinds, self._weights)[0]
        hit = process is not None and process.name.startswith(self.profile.victims)
        if kind == "crash" and hit and process is not None:
            self.left -= 1
            self._crash(process, call, site)
        if kind in ("before", "lost") and fallible:
            self.left -= 1
            self.note(kind, call, site)
            if kind == "before":
                raise Unavailable(f"simulated: {call} did nothing")
            return True
        if not hit:
            self.note("", call, site)
            return False
        self.left -= 1
        self.note("slow", call, site)
        longest = FROZEN_US if self.random.random() < self.profile.frozen else SLOW_US
        self.scheduler.pause(self.random.randrange(longest))
        return False

    def _crash(self, process: Process, call: str, site: Site | None) -> None:
        self.note(f"{process.name} crashes", call, site)
        if site is not None:
            self.crashed.add(site)
        self.scheduler.crash(process)
        raise ProcessKilled

    @staticmethod
    def reply(lost: bool, call: str) -> None:
        """After the effect: lose the reply if the step said so."""
        if lost:
            raise Unavailable(f"simulated: the reply of {call} was lost")
