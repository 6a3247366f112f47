"""Dispatch: a waiting job is placed in a pool. It only places; agents lease and run.

Which pool it is, the router says, from a snapshot of what was learnt that is at most a few seconds old; every placement
is stored with its reasons. Without the router, or without anything learnt, it is the pool with the shortest queue.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from hanzo_compute.config import HLLM
from hanzo_compute.errors import ComputeError, NoCapacity, NotFound
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State
from hanzo_compute.ports import Put
from hanzo_compute.routing import placement, snapshot
from hanzo_compute.routing.placement import Bounds, Choice, Place
from hanzo_compute.routing.snapshot import Snapshot
from hanzo_compute.services import records
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

LOAD_COUNTED = 100
"""A pool with more jobs waiting than this counts as having this many."""
EARLY_MS = 1_000
"""A retry whose message comes this much early (clocks differ) is placed all the same."""


def place(ctx: Context, job_ids: Iterable[str]) -> dict[str, Job | ComputeError | None]:
    """Handle a batch of dispatch messages: repeated, late and early ones change nothing.

    Returns by id the job, None when there is no such job, or the error of this one alone: NoCapacity when no pool
    runs such jobs (any more): the message is tried again, then the job is dead.
    """

    queues = Queues(ctx)
    made: dict[str, Choice] = {}

    def decide(job: Job) -> records.Change | None:
        made.pop(job.id, None)
        queues.leave(job.id)
        now = ctx.clock.now_ms()
        if job.state not in (State.QUEUED, State.RETRYING):
            return None
        if job.deadline_ms is not None and now >= job.deadline_ms:
            reason = "the deadline passed before it could run"
            return records.finish(ctx, job, State.EXPIRED, reason=reason, category=Category.DEADLINE)
        if job.state is State.RETRYING and job.not_before_ms is not None and now + EARLY_MS < job.not_before_ms:
            return None  # another message is on its way, and the reconciler stands behind it
        choice = made[job.id] = choose(ctx, job, queues)
        found = choice.place
        queues.enter(found.pool, job.id)
        placed = replace(
            job,
            state=State.PLACED,
            pool=found.pool,
            runtime=found.runtime,
            most=str(found.price),
            placed_ms=now,
            ahead=found.load,
            not_before_ms=None,
            due_ms=records.due(ctx, job, None),
        )
        trace = Put(keys.trace(job.id, job.attempt + 1), choice.trace)
        return records.Change(placed, "placed", {"pool": found.pool}, operations=[trace])

    done = records.change_all(ctx, dict.fromkeys(job_ids, decide))
    for job_id, choice in made.items():
        if choice.warning is not None:
            log.warning("job %s is placed without the router: %s", job_id, choice.warning)
        ctx.learnt.placed[choice.by] = ctx.learnt.placed.get(choice.by, 0) + 1
    unknown = [job_id for job_id, found in done.items() if isinstance(found, NotFound)]
    for job_id in unknown:
        log.warning("dispatch message for unknown job %s", job_id)
    return {**done, **dict.fromkeys(unknown)}


@dataclass
class Queues:
    """How many jobs wait in each pool: counted once for a batch, its own placements included."""

    ctx: Context
    _counted: dict[str, tuple[int, int]] = field(default_factory=dict)
    _entered: dict[str, str] = field(default_factory=dict)

    def enter(self, pool: str, job_id: str) -> None:
        """A job has been placed, unless its transaction fails: then it is placed again."""
        self._entered[job_id] = pool

    def leave(self, job_id: str) -> None:
        """Forget where a job was placed."""
        self._entered.pop(job_id, None)

    def look(self, pool: str) -> tuple[int, int]:
        """Jobs that wait, and how long the first of them has, milliseconds."""
        if pool not in self._counted:
            self._counted[pool] = self._count(pool)
        count, head_ms = self._counted[pool]
        return count + sum(entered == pool for entered in self._entered.values()), head_ms

    def _count(self, pool: str) -> tuple[int, int]:
        partition = keys.pool_partition(pool)
        count = self.ctx.store.count_index(keys.BY_POOL, partition, LOAD_COUNTED)
        first = self.ctx.store.query_index(keys.BY_POOL, partition, limit=1) if count else []
        now = self.ctx.clock.now_ms()
        return count, max((max(0, now - int(entry.partition("#")[0])) for entry, _ in first), default=0)


def choose(ctx: Context, job: Job, queues: Queues) -> Choice:
    """Where the job goes, among the pools that run it and whose agents prove its tier.

    Raises:
        NoCapacity: there is none.
    """
    wanted = {runtime: int(most) for runtime, most in job.runtimes.items()} or {job.runtime: int(job.most)}
    places = [
        Place(pool.name, runtime, pool.tier, *queues.look(pool.name), price=price)
        for pool in ctx.policy.pools
        for runtime, price in wanted.items()
        if runtime in pool.runtimes and job.tier <= pool.tier
    ]
    if not places:
        message = f"no pool here runs {' or '.join(wanted)} jobs"
        raise NoCapacity(message, hint="ask the operator for an agent", runtime=job.runtime)
    now = ctx.clock.now_ms()
    if ctx.policy.routing != HLLM:
        return placement.least_loaded(places, f"HZC_ROUTING={ctx.policy.routing}: least loaded", now_ms=now)
    bounds = Bounds(ctx.policy.begin_ms, ctx.policy.attested_ms)
    return placement.choose(places, learnt(ctx), tier=job.tier, seed=_seed(job), now_ms=now, bounds=bounds)


def _seed(job: Job) -> int:
    """The same for every try to place an attempt."""
    return int.from_bytes(hashlib.sha256(f"{job.id}#{job.attempt}".encode()).digest()[:4])


def learnt(ctx: Context) -> Snapshot | None:
    """What was learnt, read again when it is as old as the policy lets it be; None when it cannot be had."""
    kept, now_s = ctx.learnt, ctx.clock.monotonic()
    if kept.at_s is not None and now_s - kept.at_s < ctx.policy.snapshot_ms / 1000:
        return kept.snapshot
    kept.snapshot, kept.at_s = None, now_s
    try:
        record = ctx.store.get(keys.routing())
        kept.snapshot = None if record is None else snapshot.parse(record.body)
    except (snapshot.Unreadable, ComputeError) as error:
        log.warning("jobs are placed by load alone: %s", error)
    return kept.snapshot
