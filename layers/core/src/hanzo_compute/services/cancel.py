"""A tenant cancels a job, in whatever state it is."""

from __future__ import annotations

from dataclasses import replace

from hanzo_compute.errors import Conflict
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State
from hanzo_compute.services import records
from hanzo_compute.services.context import Context


def cancel(ctx: Context, tenant: str, job_id: str) -> Job:
    """Cancel a job that has not ended: at once if it does not run, else its agent is asked to stop it.

    Cancelling again changes nothing. A run that ends by itself before its agent hears of it keeps its outcome.

    Raises:
        NotFound: the tenant has no such job.
        Conflict: it has ended otherwise.
    """
    records.find(ctx, job_id, tenant=tenant)

    def decide(job: Job) -> records.Change | None:
        if job.state is State.CANCELLED:
            return None
        if job.state.terminal:
            raise Conflict(f"job {job_id} has ended: {job.state}", hint=f"hzc show {job_id}", state=job.state.value)
        if job.state is State.RUNNING:
            if job.cancel is not None:
                return None
            asked = replace(job, cancel="cancelled", due_ms=job.lease_until_ms)
            return records.Change(asked, "cancel_requested")
        reason = "cancelled before it ran"
        return records.finish(ctx, job, State.CANCELLED, reason=reason, category=Category.CANCELLED)

    return records.change(ctx, job_id, decide)
