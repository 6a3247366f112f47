"""What became of placements, written down for who learns from it: one row for each attempt, in the transaction that
ends the attempt, so that it is there once if the end is there, and never else."""

from __future__ import annotations

from collections.abc import Sequence

from hanzo_compute.config import HLLM
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.ports import ABSENT, Operation, Put
from hanzo_compute.services.context import Context

LAPSED = "lapsed"
"""Instead of a category: the lease ended, and nothing was heard of the attempt."""


def ended(ctx: Context, job: Job, category: str) -> Sequence[Operation]:
    """The row of the attempt that holds ``job``, which ends now; none when nobody learns here.

    Nor is there one of a sealed attempt that its agent gives up: its tenant's policy may have kept its key back, or
    its input not be what the key opens. Such attempts cost nothing, so anybody could make any pool look bad by them.
    """
    if ctx.policy.routing != HLLM or job.pool is None:
        return ()
    if job.data_key is not None and category == Category.PLATFORM.value:
        return ()
    now = ctx.clock.now_ms()
    placed, started = job.placed_ms, job.started_ms
    row = {
        "at_ms": now,
        "pool": job.pool,
        "runtime": job.runtime,
        "category": category,
        "wait_ms": None if placed is None or started is None else max(0, started - placed),
        "run_ms": None if started is None else max(0, now - started),
        "ahead": job.ahead,
        "tier": job.delivered,
    }
    return [Put(keys.observed(now, job.id, job.attempt), row, expect=ABSENT)]
