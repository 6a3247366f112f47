"""The writer process: applies at once, makes durable later, or loses what it had not yet made durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hanzo_compute.adapters.memory import MemoryCommits, MemoryDatabase
from hanzo_compute.adapters.memory.database import StoredRecord
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from tests.simulation.faults import Faults
from tests.simulation.scheduler import SECOND

if TYPE_CHECKING:
    from tests.simulation.invariants import Watch

Row = tuple[str, Key, StoredRecord]


class View:
    """What was durable after one commit."""

    def __init__(self, ended_us: int, partitions: dict[str, dict[str, StoredRecord]]) -> None:
        self.ended_us = ended_us
        self.partitions = partitions
        self._entries: dict[tuple[str, str], list[Row]] | None = None

    def entries(self, index: str, pk: str) -> list[Row]:
        """An index partition in order, computed when it is first asked for."""
        if self._entries is None:
            found: dict[tuple[str, str], list[Row]] = {}
            for part, records in self.partitions.items():
                for sk, stored in records.items():
                    for name, (entry_pk, entry_sk) in stored.index.items():
                        found.setdefault((name, entry_pk), []).append((entry_sk, Key(part, sk), stored))
            for rows in found.values():
                rows.sort(key=lambda row: row[:2])
            self._entries = found
        return self._entries.get((index, pk), [])


class Writer:
    """Owns the database; commits when the scheduler says so."""

    def __init__(self, faults: Faults, watch: Watch) -> None:
        self.database = MemoryDatabase(manual=True)
        self.database.listeners.append(self._ended)
        self.views = [View(0, {})]
        self.watch = watch
        self.settled: list[Callable[[], None]] = []
        """Told after each batch: its tickets are durable or failed."""
        self._faults = faults
        self._scheduler = faults.scheduler
        self._due = False
        self._down_until_us = 0
        self._woken: list[str] = []

    def check_up(self, commits: MemoryCommits) -> None:
        """Raises Unavailable while the writer is down, and to who has not taken note yet that it lost something."""
        if self._scheduler.now_us < self._down_until_us:
            raise Unavailable("simulated: the writer is down")
        commits.check()

    def touched(self) -> None:
        """Something may have been applied: it will be durable soon."""
        if self.database.dirty and not self._due:
            self._due = True
            self._scheduler.after(self._faults.random.randrange(self._faults.profile.commit_ms * 1000), self._end)

    def _end(self) -> None:
        self._due = False
        if self._faults.chance(self._faults.profile.commit_fail, "the writer loses a batch"):
            self.database.fail()
            if self._faults.random.random() < 0.5:
                self._down_until_us = self._scheduler.now_us + self._faults.random.randrange(5 * SECOND)
            self._woken.clear()
            self._scheduler.wake_all()  # on reconnecting everybody looks again
        else:
            self.database.commit()
        for tell in self.settled:
            tell()
        for key in self._woken:
            self._scheduler.wake(key)
        self._woken.clear()

    def _ended(self, _batch: int, durable: bool, woken: list[str]) -> None:
        if not durable:
            self.watch.lost()
            return
        partitions = dict(self.views[-1].partitions)
        for pk in woken:
            if pk in self.database.partitions:
                partitions[pk] = dict(self.database.partitions[pk])
        self.views.append(View(self._scheduler.now_us, partitions))
        self._woken = woken
