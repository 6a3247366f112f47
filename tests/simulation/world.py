"""One schedule: a whole platform with its clients and agents, from a seed to rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final
from unittest import mock

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.logs import RecordLogs
from hanzo_compute.adapters.memory import MemoryBlobs, MemoryCommits, MemoryQueue, MemoryStore, SeededIds
from hanzo_compute.model import keys
from hanzo_compute.services import batches, firing, outbox, reconcile, timekeeping
from hanzo_compute.services.context import Context
from tests.simulation import final, invokers, learning
from tests.simulation.agents import AgentHost
from tests.simulation.clients import Clients
from tests.simulation.faults import Faults, Site, Step, Target
from tests.simulation.host import VAULT, Host, Life, Network, idle, pump, ticker
from tests.simulation.invariants import Watch
from tests.simulation.ports import ENDORSED, ENROLLED, PlainClock
from tests.simulation.profiles import PROFILES
from tests.simulation.scheduler import SECOND, Scheduler, Stuck
from tests.simulation.violation import Violation, require
from tests.simulation.writer import Writer

REST_S: Final = 400
"""Longest simulated time from the last fault to rest."""
LATE_S: Final = 900
"""… and as much longer if the clock is set: a message can be delayed for so long by who looked at two clocks."""


@dataclass
class Report:
    """What a schedule came to."""

    seed: int
    profile: str
    failure: str | None = None
    trace: list[Step] = field(default_factory=list)
    visits: dict[Site, int] = field(default_factory=dict)
    crashed: set[Site] = field(default_factory=set)
    jobs: int = 0
    faults: int = 0

    def describe(self, last: int = 80) -> str:
        """The failure, the last steps, and how to see it again."""
        lines = [str(step) for step in self.trace[-last:]]
        replay = f"pytest tests/simulation --sim-seed={self.seed} --sim-profile={self.profile}"
        head = f"seed {self.seed}, profile {self.profile}: {self.failure}"
        return "\n".join([head, f"… {max(len(self.trace) - last, 0)} steps before", *lines, head, f"replay: {replay}"])


class World:
    """The platform and everybody around it."""

    def __init__(self, seed: int, profile: str, targets: Sequence[Target] = ()) -> None:
        self.report = Report(seed, profile)
        self.profile = PROFILES[profile]
        self._at_rest = False
        self._aimed = len(targets)
        random = Random(f"{profile} {seed}")
        self.scheduler = Scheduler(random)
        self.faults = Faults(self.scheduler, random, self.profile, targets)
        self.watch = Watch(self.scheduler, self.profile.policy, steady=not self.profile.jumps)
        self.writer = Writer(self.faults, self.watch)
        self.watch.database = self.writer.database
        self.blobs = MemoryBlobs(PlainClock(self.scheduler))
        fronts = [self._host(f"front-{number}", idle) for number in range(2)]
        self._host("pump-dispatch", pump(outbox.DISPATCH))
        self._host("pump-completion", pump(outbox.COMPLETION))
        self._host("ticker", ticker)
        if self.profile.schedules:
            self._host("ticker-2", ticker)
        for number in range(self.profile.learners):
            self._host(f"learner-{number}", learning.learner)
        if self.profile.spoils:
            self._host("spoiler", learning.spoiler(random, random.randint(0, self.profile.spoils)))
        self.watch.invocations.left = 8 * self.profile.invokers
        for number in range(self.profile.invokers):
            name = f"invoker-{number}"
            self._host(name, invokers.work(random, self.watch.invocations, name))
        network = Network(self.faults, fronts)
        pools = [pool.name for pool in self.profile.policy.pools]
        self.agents = [
            AgentHost(self.faults, network, self.blobs, f"agent-{number}", pools[number % len(pools)], self.watch, tpm)
            for number, tpm in enumerate((ENROLLED, ENDORSED))
        ]
        hours = [-24, -1, 1, 24]
        for _ in range(random.randint(1, self.profile.jumps) if self.profile.jumps else 0):
            by_h = random.choice(hours)
            if by_h == 24:
                hours.remove(24)  # a second day forward is more than idempotency keys survive: see timekeeping
            amount = by_h * 3_600_000
            self.scheduler.after(random.randrange(25 * SECOND), lambda ms=amount: self._set_clock(ms))  # type: ignore[misc]
        self.clients = Clients(self.scheduler, random, network, self.watch, self.profile, self.blobs)

    def _host(self, name: str, work: Callable[[Life], None]) -> Host:
        return Host(self.faults, self.writer, self.blobs, name, work)

    def _set_clock(self, by_ms: int) -> None:
        """Once the reconciler has seen the last change: what is undone within a second it cannot know of."""
        if self._at_rest:
            return
        seen = self.writer.database.record(keys.clock())
        if seen is None or abs(decode_body(seen.body)["seen_ms"] - self.scheduler.now_ms) > 2 * timekeeping.NOTE_MS:
            self.scheduler.after(SECOND, lambda: self._set_clock(by_ms))
            return
        self.faults.note(f"the clock is set by {by_ms / 3_600_000:+.0f} h")
        self.scheduler.set_by_ms += by_ms

    def run(self) -> Report:
        """Run to rest and check everything; a violation is reported, not raised."""
        try:
            self.clients.start()
            self._settle()
            executions = [each for agent in self.agents for each in agent.disk.executions]
            # A crash that was aimed at a line is a fault, too.
            profile = replace(self.profile, budget=max(self.profile.budget, self._aimed))
            final.check(self.writer.database, self.blobs, self.watch, executions, profile)
            if self.profile.learners:
                learning.check(self.writer.database)
            if self.profile.invokers:
                self.watch.invocations.check(self.writer.database, self._outside())
            self._forget()
        except (Violation, AssertionError) as error:
            self.report.failure = str(error)
        finally:
            self.scheduler.end()
        report = self.report
        report.trace, report.visits, report.crashed = self.faults.trace, self.faults.visits, self.faults.crashed
        report.jobs = len(self.watch.accepted)
        report.faults = self.profile.budget - self.faults.left
        return report

    def _outside(self) -> Context:
        """Ports without steps, for who looks at what is left."""
        commits = MemoryCommits(self.writer.database)
        clock = PlainClock(self.scheduler)
        store = MemoryStore(commits)
        return Context(
            store=store,
            queue=MemoryQueue(clock, {}, commits),
            blobs=self.blobs,
            logs=RecordLogs(store, self.blobs),
            clock=clock,
            ids=SeededIds(Random(0)),
            vault=VAULT,
        )

    def _settle(self) -> None:
        seen = 0

        def finished() -> bool:
            nonlocal seen
            views = len(self.writer.views)
            if self.clients.busy or not self.watch.invocations.done or self.writer.database.dirty or views == seen:
                return False
            seen = views
            return self._left() is None

        limit_s = self.profile.until_s + REST_S + (LATE_S if self.profile.jumps else 0)
        try:
            self.scheduler.run(finished, limit_s * SECOND)
        except Stuck as error:
            left = self._left()
            raise Violation(f"it does not come to rest ({error}): {left}, {self.clients.busy} clients wait") from None

    def _left(self) -> str | None:
        """What still has to happen."""
        left = final.settled(self.writer.database)
        return learning.waiting(self.writer.database) if left is None and self.profile.learners else left

    def _forget(self) -> None:
        """Idempotency keys are gone some days later, and nothing is due any more.

        Nobody can tell days without a pass from a clock that was set forward: keys survive the first of them, and the
        second if they were written with the time of before.
        """
        self.faults.left = 0
        self._at_rest = True
        for day in ("first day", "second day", "third day"):
            self.scheduler.now_us += (self.profile.policy.idempotency_ms + 1000) * 1000 + self._ahead_us()
            done: list[bool] = []

            def work(life: Life, done: list[bool] = done) -> None:
                life.handle(reconcile.reconcile)
                done.append(True)

            self._host(day, work)
            self.scheduler.run(lambda done=done: bool(done), self.scheduler.now_us + 60 * SECOND)  # type: ignore[misc]
        left = {pk: list(rows) for (index, pk), rows in self.writer.database.entries.items() if index == keys.BY_DUE}
        require(not any(left.values()), f"still due after a day: {left}")
        asked = [pk for pk, rows in self.writer.database.partitions.items() if pk.startswith("CHALLENGE#") and rows]
        require(not asked, f"challenges are left: {asked}")

    def _ahead_us(self) -> int:
        """A clock that was set back has to catch up first."""
        return max(0, -self.scheduler.set_by_ms) * 1000


def run(seed: int, profile: str, *targets: Target) -> Report:
    """Run one schedule, with a crash at each of the targets that it comes to."""
    # One shard is as good as eight, and less to look through; and a run of a schedule takes several transactions.
    with (
        _quiet(),
        mock.patch.object(keys, "SHARDS", 1),
        mock.patch.object(firing, "TRANSACTION_MAX", 14),
        mock.patch.object(batches, "INVOCATIONS_MAX", 3),
    ):
        return World(seed, profile, targets).run()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the product's log: the trace tells more."""
    loggers = [logging.getLogger(name) for name in ("hanzo_compute", "hanzo_compute_agent")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
