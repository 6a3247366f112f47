"""CPU time of other processes, as the kernel accounts for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""The kernel tells user from system, and what ended processes used, in these steps (10 ms)."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds in user mode and in the kernel."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        return self.user + self.system

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.user + other.user, self.system + other.system)

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.user - other.user, self.system - other.system)

    def each(self, count: int) -> Cpu:
        """The share of one of ``count``."""
        return Cpu(self.user / count, self.system / count)


def of(pid: int, *, reaped: bool = False) -> Cpu:
    """CPU time of a living process with all its threads, or (``reaped``) of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if reaped:
        return Cpu(int(fields[13]) * TICK_S, int(fields[14]) * TICK_S)
    system = int(fields[12]) * TICK_S
    return Cpu(time.clock_gettime(_clock(pid)) - system, system)


def _clock(pid: int) -> int:
    """What clock_getcpuclockid(3) gives: the clock of all threads of a process, in nanoseconds."""
    return (~pid << 3) | 2


def of_all(pids: Iterable[int]) -> Cpu:
    """CPU time of several processes; one that has just ended counts with its parent, see ``reaped``."""
    found = Cpu()
    for pid in pids:
        try:
            found += of(pid)
        except OSError:
            continue
    return found


def passed(before: Mapping[str, Cpu], after: Mapping[str, Cpu]) -> dict[str, Cpu]:
    """What each name has used between two readings."""
    return {name: used - before[name] for name, used in after.items()}
