"""The reconciler: finds what was lost between two steps, repairs it, and says what it repaired."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace

from hanzo_compute.errors import NotFound
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State
from hanzo_compute.ports import DEAD_LETTERS, Delete, Record, WriteConflict
from hanzo_compute.services import firing, lease, observe, outbox, records, timekeeping
from hanzo_compute.services import log as logbook
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

BATCH = 100


def reconcile(ctx: Context) -> dict[str, int]:
    """One pass over all that is due; returns how many of each repair. Passes may overlap and may be cut short."""
    repaired: Counter[str] = Counter()
    gap = timekeeping.watch(ctx, repaired)
    repaired["outbox_sent"] = outbox.sweep(ctx)
    for shard in range(keys.SHARDS):
        _due(ctx, shard, gap, repaired)
    _dead_letters(ctx, repaired)
    logbook.sequence(ctx)  # nothing was wrong: completions do it, and there may be none
    found = {name: count for name, count in repaired.items() if count}
    if found:
        log.info("repaired %s", found)
    return found


def _due(ctx: Context, shard: int, gap: timekeeping.Gap | None, repaired: Counter[str]) -> None:
    before = keys.due_before(ctx.clock.now_ms())
    for _, record in ctx.store.query_index(keys.BY_DUE, keys.due_partition(shard), before=before, limit=BATCH):
        if "state" in record.body:
            _repair(ctx, record.body["id"], repaired)
        elif record.key.pk.startswith(keys.SCHEDULE):
            firing.fire(ctx, record)  # nothing was wrong
        else:
            _forget(ctx, record, gap, repaired)


def _repair(ctx: Context, job_id: str, repaired: Counter[str]) -> None:
    done: list[str] = []

    def decide(job: Job) -> records.Change | None:
        done.clear()
        found = repair(ctx, job)
        if found is None:
            return None
        done.append(found[0])
        return found[1]

    try:
        records.change(ctx, job_id, decide)
    except NotFound:
        return
    repaired.update(done)


def repair(ctx: Context, job: Job) -> tuple[str, records.Change] | None:
    """What a job that is due needs now: the name of the repair and the change, or None."""
    now = ctx.clock.now_ms()
    if job.due_ms is None or job.due_ms > now:
        return None
    if job.state.terminal:
        return None if job.closed else ("completion_resent", _resend(ctx, job, outbox.COMPLETION))
    if job.state is State.RUNNING:
        return _running(ctx, job, now)
    if job.deadline_ms is not None and job.deadline_ms <= now:
        reason = "the deadline passed before it could run"
        return "expired", records.finish(ctx, job, State.EXPIRED, reason=reason, category=Category.DEADLINE)
    if job.state is State.PLACED:
        return None
    return "dispatch_resent", _resend(ctx, job, outbox.DISPATCH)


def _running(ctx: Context, job: Job, now: int) -> tuple[str, records.Change] | None:
    if (job.lease_until_ms or 0) <= now:
        lapsed = lease.lapsed(ctx, job, f"the lease of agent {job.agent} lapsed")
        return "lapsed", replace(lapsed, operations=observe.ended(ctx, job, observe.LAPSED))
    late = job.deadline_ms is not None and job.deadline_ms + ctx.policy.deadline_grace_ms <= now
    if late and job.cancel is None:
        asked = replace(job, cancel="deadline", due_ms=job.lease_until_ms)
        return "deadline_enforced", records.Change(asked, "cancel_requested", {"reason": "deadline"})
    return None


def _resend(ctx: Context, job: Job, queue: str) -> records.Change:
    later = replace(job, due_ms=records.due(ctx, job, ctx.clock.now_ms() + ctx.policy.resend_ms))
    if job.state.terminal:
        later = replace(later, due_ms=ctx.clock.now_ms() + ctx.policy.resend_ms)
    return records.Change(later, send=[outbox.row(ctx, queue, job)])


def _forget(ctx: Context, record: Record, gap: timekeeping.Gap | None, repaired: Counter[str]) -> None:
    kept = timekeeping.keep_once_more(ctx, record, gap)
    try:
        ctx.store.transact([kept or Delete(record.key, expect=record.rev)])
    except WriteConflict:
        return
    what = "idempotency" if record.key.pk.startswith("IDEMPOTENCY#") else "expired"
    repaired[f"{what}_kept" if kept else f"{what}_forgotten"] += 1


def _dead_letters(ctx: Context, repaired: Counter[str]) -> None:
    """A job whose dispatch keeps failing is dead; completions are tried again for as long as it takes."""
    for message in ctx.queue.receive(outbox.DISPATCH + DEAD_LETTERS, limit=10, visibility_s=60):
        done: list[str] = []
        attempt = message.body.get("attempt")

        def decide(job: Job, done: list[str] = done, attempt: int | None = attempt) -> records.Change | None:
            done.clear()
            if job.state not in (State.QUEUED, State.RETRYING) or job.attempt != attempt:
                return None  # it ran since this message was sent: another message is about its next attempt
            done.append("dead")
            reason = "it could not be placed: every try failed"
            return records.finish(ctx, job, State.DEAD, reason=reason, category=Category.PLATFORM)

        try:
            records.change(ctx, str(message.body.get("job")), decide)
        except NotFound:
            log.warning("dead letter %s names no job: %s", message.id, message.body)
        ctx.queue.ack([message])
        repaired.update(done)
    repaired["completion_redriven"] = ctx.queue.redrive(outbox.COMPLETION)
