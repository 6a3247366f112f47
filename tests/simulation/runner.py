"""A Runner that runs plans instead of programs, with the memory of the real one: what is on disk survives a crash."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from hanzo_compute.errors import Conflict, NotFound
from hanzo_compute.model.outcome import Category, Outcome
from hanzo_compute.ports import Handle, Lease, LogEntry, LoggingService, RunnerOutcome
from hanzo_compute_agent.journal import Shipment
from tests.simulation import entries
from tests.simulation.faults import Faults
from tests.simulation.scheduler import SECOND

PAGE: Final = 3
"""Log entries that one call returns at most: a runner may have more to say than fits into one answer."""
STOP_US: Final = SECOND // 5


@dataclass(frozen=True)
class Plan:
    """What the program of one attempt does: how long, how it ends, what it writes."""

    seconds: float
    category: str
    entries: int
    size: int = 10
    stdout: int = 5

    @staticmethod
    def of(lease: Lease) -> Plan:
        """The plan of this attempt; the last one is for all further ones."""
        plans = json.loads(lease.spec["env"]["PLAN"])
        return Plan(*plans[min(lease.attempt, len(plans)) - 1])


@dataclass
class Execution:
    """One attempt of a job on one agent."""

    name: str
    lease: Lease
    plan: Plan
    begin_us: int
    end_us: int
    category: str
    outcome: Outcome | None = None
    reaped: bool = False
    texts: list[str] = field(default_factory=list)
    stdin: bytes = b""

    @property
    def left(self) -> dict[str, bytes]:
        """What it has written, by name: what is there of it."""
        wrote = {
            "stdout": b"o" * self.plan.stdout if self.category == "ok" else b"",
            "log": "".join(self.texts).encode(),
        }
        return {name: data for name, data in wrote.items() if data}

    def written(self, now_us: int) -> list[str]:
        """The log so far: spread evenly over the planned time."""
        if self.outcome is not None:
            return self.texts
        passed = min(now_us, self.end_us) - self.begin_us
        total = max(round(self.plan.seconds * SECOND), 1)
        count = min(self.plan.entries * passed // total, self.plan.entries)
        name = f"{self.lease.job}.{self.lease.attempt}"
        return [f"{name}.{number}".ljust(self.plan.size, ".") + "\n" for number in range(count)]


class Disk:
    """What an agent's machine keeps while agents come and go: attempts, the journal, and all that ever ran."""

    def __init__(self) -> None:
        self.attempts: dict[Handle, Execution] = {}
        self.shipments: dict[Handle, Shipment] = {}
        self.executions: list[Execution] = []


class SimJournal:
    """The agent's journal on its disk."""

    def __init__(self, faults: Faults, disk: Disk) -> None:
        self._faults = faults
        self._disk = disk

    def last(self, handle: Handle) -> Shipment:
        self._faults.step(f"journal.last {handle.job}")
        return self._disk.shipments.get(handle, Shipment())

    def intend(self, handle: Handle, shipment: Shipment) -> None:
        self._faults.step(f"journal.intend {handle.job} {shipment}")
        self._disk.shipments[handle] = shipment

    def forget(self, handle: Handle) -> None:
        self._faults.step(f"journal.forget {handle.job}")
        self._disk.shipments.pop(handle, None)

    def keep_only(self, handles: Collection[Handle]) -> None:
        self._faults.step("journal.keep_only")
        self._disk.shipments = {handle: sent for handle, sent in self._disk.shipments.items() if handle in handles}


class SimRunner:
    """The runner of one life of an agent. When that ends, programs that have not ended are lost."""

    runtimes = frozenset({"wasm"})

    def __init__(self, faults: Faults, disk: Disk, name: str) -> None:
        self._faults = faults
        self._scheduler = faults.scheduler
        self._disk = disk
        self._name = name
        self._known: dict[Handle, Execution] = {}

    def start(
        self, lease: Lease, *, module: bytes | None, stdin: bytes, service: LoggingService | None = None
    ) -> Handle:
        lost = self._faults.step(f"runner.start {lease.job} {lease.attempt}", fallible=True)
        handle = Handle(lease.job, lease.attempt)
        found = self._disk.attempts.get(handle)
        if found is None:
            plan, now = Plan.of(lease), self._scheduler.now_us
            end, category = now + round(plan.seconds * SECOND), plan.category
            if end > now + lease.timeout_ms * 1000:
                end = now + lease.timeout_ms * 1000
                category = "deadline" if lease.timeout_is_deadline else "timeout"
            name = f"{self._name}/{lease.job}/{lease.attempt}"
            found = Execution(name, lease, plan, now, end, category, stdin=stdin)
            self._disk.attempts[handle] = found
            self._disk.executions.append(found)
            self._known[handle] = found
            # While it has, it runs: what it was to do in its time it does at its beginning.
            if service is not None and not entries.run(service, name) and found.outcome is None:
                found.category = "exit" if found.category == "ok" else found.category
        self._known[handle] = found
        if lost:
            raise OSError("simulated: the disk is full")
        return handle

    def poll(self, handle: Handle, wait_s: float) -> bool:
        self._faults.step(f"runner.poll {handle.job}")
        found = self._find(handle)
        until = self._scheduler.now_us + round(wait_s * SECOND)
        while found.outcome is None and self._scheduler.now_us < min(until, found.end_us):
            keys = [found.name]
            self._scheduler.wait(keys, self._scheduler.mark(keys), min(until, found.end_us) - self._scheduler.now_us)
        return self._ended(found)

    def logs(self, handle: Handle, cursor: int) -> tuple[list[LogEntry], int]:
        self._faults.step(f"runner.logs {handle.job} {cursor}")
        found = self._find(handle)
        self._ended(found)
        texts = found.written(self._scheduler.now_us)[cursor : cursor + PAGE]
        return [LogEntry(self._scheduler.now_ms, "stdout", text) for text in texts], cursor + len(texts)

    def ready(self) -> bool:
        return True

    def cancel(self, handle: Handle, reason: str) -> None:
        self._faults.step(f"runner.cancel {handle.job} {reason}")
        found = self._known.get(handle)
        now = self._scheduler.now_us
        if found is not None and not self._ended(found) and found.end_us > now + STOP_US:
            found.end_us, found.category = now + STOP_US, reason
            self._scheduler.wake(found.name)

    def collect(self, handle: Handle) -> RunnerOutcome:
        self._faults.step(f"runner.collect {handle.job}")
        found = self._find(handle)
        if not self._ended(found) or found.outcome is None:
            raise Conflict(f"attempt {handle} has not ended")
        return RunnerOutcome(found.outcome, b"o" * found.plan.stdout if found.category == "ok" else b"")

    def adopt(self) -> list[Handle]:
        self._faults.step("runner.adopt")
        left = [found for handle, found in self._disk.attempts.items() if handle not in self._known]
        for found in left:
            self._known[Handle(found.lease.job, found.lease.attempt)] = found
        return [Handle(found.lease.job, found.lease.attempt) for found in left]

    def reap(self, handle: Handle) -> None:
        self._faults.step(f"runner.reap {handle.job}")
        found = self._disk.attempts.pop(handle, None)
        self._known.pop(handle, None)
        if found is not None:
            found.reaped = True
            self.end(found)

    def close(self) -> None:
        self._faults.step("runner.close")
        self.died()

    def died(self) -> None:
        """The agent is gone, and its programs with it: those that had not ended will have failed by the platform."""
        for found in self._known.values():
            self.end(found)

    def end(self, found: Execution) -> None:
        """Stop a program whatever it does."""
        if not self._ended(found):
            found.texts = found.written(self._scheduler.now_us)
            found.end_us, found.category = self._scheduler.now_us, "platform"
            found.outcome = Outcome(category=Category.PLATFORM, detail="its agent died", runtime_version=found.name)

    def _ended(self, found: Execution) -> bool:
        if found.outcome is None and found.end_us <= self._scheduler.now_us:
            found.texts = found.written(self._scheduler.now_us)
            category = Category(found.category)
            found.outcome = Outcome(
                category=category,
                exit_code=0 if category is Category.OK else 3 if category is Category.EXIT else None,
                detail="" if category is Category.OK else f"it ended by {category}",
                timed_out=category is Category.TIMEOUT,
                runtime_version=found.name,
            )
        return found.outcome is not None

    def _find(self, handle: Handle) -> Execution:
        found = self._known.get(handle)
        if found is None:
            raise NotFound(f"this runner knows no attempt {handle}")
        return found
