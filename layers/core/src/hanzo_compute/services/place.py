"""Dispatch: a waiting job is placed in a pool. It only places; agents lease and run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from hanzo_compute.config import Pool
from hanzo_compute.errors import ComputeError, NoCapacity, NotFound
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State
from hanzo_compute.services import records
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

LOAD_COUNTED = 100
"""Pools with more jobs waiting than this count as equally loaded."""
EARLY_MS = 1_000
"""A retry whose message comes this much early (clocks differ) is placed all the same."""


def place(ctx: Context, job_ids: Iterable[str]) -> dict[str, Job | ComputeError | None]:
    """Handle a batch of dispatch messages: repeated, late and early ones change nothing.

    Returns by id the job, None when there is no such job, or the error of this one alone: NoCapacity when no pool
    runs such jobs (any more): the message is tried again, then the job is dead.
    """

    def decide(job: Job) -> records.Change | None:
        now = ctx.clock.now_ms()
        if job.state not in (State.QUEUED, State.RETRYING):
            return None
        if job.deadline_ms is not None and now >= job.deadline_ms:
            reason = "the deadline passed before it could run"
            return records.finish(ctx, job, State.EXPIRED, reason=reason, category=Category.DEADLINE)
        if job.state is State.RETRYING and job.not_before_ms is not None and now + EARLY_MS < job.not_before_ms:
            return None  # another message is on its way, and the reconciler stands behind it
        pool = choose(ctx, job.runtime, job.tier)
        placed = replace(
            job,
            state=State.PLACED,
            pool=pool.name,
            placed_ms=now,
            not_before_ms=None,
            due_ms=records.due(ctx, job, None),
        )
        return records.Change(placed, "placed", {"pool": pool.name})

    done = records.change_all(ctx, dict.fromkeys(job_ids, decide))
    unknown = [job_id for job_id, found in done.items() if isinstance(found, NotFound)]
    for job_id in unknown:
        log.warning("dispatch message for unknown job %s", job_id)
    return {**done, **dict.fromkeys(unknown)}


def choose(ctx: Context, runtime: str, tier: int = 0) -> Pool:
    """The least loaded pool that runs ``runtime`` and whose agents prove ``tier``, by jobs placed and not yet leased;
    the first one on a tie.

    Raises:
        NoCapacity: there is none.
    """
    able = [pool for pool in ctx.policy.pools if runtime in pool.runtimes and tier <= pool.tier]
    if not able:
        raise NoCapacity(f"no pool here runs {runtime} jobs", hint="ask the operator for an agent", runtime=runtime)
    if len(able) == 1:
        return able[0]
    return min(able, key=lambda pool: _load(ctx, pool))


def _load(ctx: Context, pool: Pool) -> int:
    return len(ctx.store.query_index(keys.BY_POOL, keys.pool_partition(pool.name), limit=LOAD_COUNTED))
