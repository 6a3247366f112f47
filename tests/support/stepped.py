"""The services on memory twins, stepped by hand: for tests of one service at a time."""

from __future__ import annotations

from random import Random
from typing import Any

from hanzo_compute.adapters.logs import RecordLogs
from hanzo_compute.adapters.memory import (
    ManualClock,
    MemoryBlobs,
    MemoryCommits,
    MemoryQueue,
    MemoryStore,
    MemoryVault,
    SeededIds,
)
from hanzo_compute.config import Policy
from hanzo_compute.errors import ComputeError
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category, Outcome
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.spec import JobSpec
from hanzo_compute.ports import Lease, LogEntry
from hanzo_compute.services import complete, lease, outbox, place, pricing, records, submit
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim
from tests.support import statements

LESSEE = "platform"


def spec(**fields: Any) -> JobSpec:
    """A small valid spec."""
    return parse_spec({"source": {"code": "print(1)", "language": "python"}} | fields)


def entries(*texts: str) -> list[LogEntry]:
    """Log entries with these texts."""
    return [LogEntry(1_700_000_000_000, "stdout", text) for text in texts]


class Platform:
    """A platform in one object."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.clock = ManualClock()
        self.commits = MemoryCommits()
        self.store = MemoryStore(self.commits)
        self.blobs = MemoryBlobs(self.clock)
        self.queue = MemoryQueue(self.clock, {outbox.DISPATCH: 2, outbox.COMPLETION: 2}, self.commits)
        self.ctx = Context(
            store=self.store,
            queue=self.queue,
            blobs=self.blobs,
            logs=RecordLogs(self.store, self.blobs),
            clock=self.clock,
            ids=SeededIds(Random(1)),
            vault=MemoryVault(Random(1)),
            policy=policy or Policy(),
        )
        for _ in range(2):  # as at a start, and as who comes after it finds it
            pricing.publish(self.ctx)

    def job(self, job_id: str) -> Job:
        """The job as it is now."""
        return records.find(self.ctx, job_id)

    def submitted(self, tenant: str = "acme", **fields: Any) -> str:
        """A new job's id."""
        return submit.submit(self.ctx, tenant, spec(**fields)).job.id

    def placed(self, tenant: str = "acme", **fields: Any) -> str:
        """A new job that waits for an agent."""
        job_id = self.submitted(tenant, **fields)
        self.dispatch()
        return job_id

    def running(self, tenant: str = "acme", **fields: Any) -> Claim:
        """A new job that an agent has leased."""
        self.placed(tenant, **fields)
        return self.claim(self.lease())

    def lease(self, agent: str = "agent-0") -> Lease:
        """Lease one attempt."""
        (found,) = lease.acquire(self.ctx, statements.want(agent), LESSEE)
        return found

    @staticmethod
    def claim(found: Lease) -> Claim:
        """The claim of a lease."""
        return Claim(found.job, found.attempt, LESSEE)

    def end(self, claim: Claim, category: Category = Category.OK, **fields: Any) -> Job:
        """Hand in an outcome."""
        return complete.complete(self.ctx, statements.ended(self.ctx, claim, Outcome(category=category, **fields)))

    def dispatch(self) -> int:
        """Handle the dispatch messages that are visible; returns how many."""
        found = self.queue.receive(outbox.DISPATCH)
        for message in found:
            self.place(message.body["job"])
        self.queue.ack(found)
        return len(found)

    def place(self, job_id: str) -> Job | None:
        """Handle one dispatch message."""
        found = place.place(self.ctx, [job_id])[job_id]
        if isinstance(found, ComputeError):
            raise found
        return found

    def close(self, job_id: str) -> tuple[Job, bool] | None:
        """Handle one completion message."""
        found = complete.close(self.ctx, [job_id])[job_id]
        if isinstance(found, ComputeError):
            raise found
        return found

    def again(self, job_id: str) -> Claim:
        """Let the time to the next attempt pass, and lease it."""
        due = self.job(job_id).not_before_ms
        assert due is not None
        self.clock.advance(due - self.clock.now_ms() + 1000)
        self.dispatch()
        return self.claim(self.lease())

    def events(self, job_id: str) -> list[str]:
        """The types of a job's events."""
        return [record.body["type"] for record in self.store.query(keys.job_partition(job_id), prefix="EVENT#")]
