"""How a job's record is read and moved: one compare-and-set loop that every transition goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hanzo_compute.errors import ComputeError, NotFound, Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import MOVES, State
from hanzo_compute.ports import ABSENT, TRANSACTION_MAX, Entries, Operation, Put, Record, WriteConflict
from hanzo_compute.services import leaves, outbox
from hanzo_compute.services.context import Context

TRIES: Final = 16


@dataclass(frozen=True, slots=True)
class Change:
    """A step of a job: its new record, the event that tells of it, and what belongs to the same transaction."""

    job: Job
    event: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    operations: Sequence[Operation] = ()
    send: Sequence[outbox.Row] = ()
    outcome: Callable[[Job], Sequence[Operation]] | None = None
    """Makes what an accepted outcome writes, its leaf among it, from the job after the step."""


def find(ctx: Context, job_id: str, *, tenant: str | None = None, fresh: bool = False) -> Job:
    """The job, if it exists and (unless ``tenant`` is None) belongs to the tenant.

    Raises:
        NotFound: it does not; the answer is the same for another tenant's job.
    """
    record = ctx.store.get(keys.job(job_id), fresh=fresh)
    if record is None and not fresh:  # it may be so new that only the writer knows it
        record = ctx.store.get(keys.job(job_id), fresh=True)
    if record is None or tenant not in (None, record.body["tenant"]):
        raise not_found(job_id)
    return Job.from_record(record.body)


def not_found(job_id: str) -> NotFound:
    """The error for a job that the caller cannot see."""
    return NotFound(f"there is no job {job_id}", hint="`hzc ls` lists your jobs", job=job_id)


def index(job: Job) -> Entries:
    """The index entries of a job's record."""
    entries = {
        keys.BY_TENANT: keys.tenant_entry(job.tenant, job.id),
        keys.BY_STATE: keys.state_entry(job.tenant, job.state.value, job.id),
    }
    if job.due_ms is not None:
        entries[keys.BY_DUE] = keys.due_entry(job.due_ms, job.id)
    if job.state is State.PLACED and job.pool is not None and job.placed_ms is not None:
        entries[keys.BY_POOL] = keys.pool_entry(job.pool, job.placed_ms, job.id)
    elif job.state in (State.QUEUED, State.RETRYING):
        entries[keys.BY_POOL] = keys.unplaced_entry(job.id)
    return entries


def event_put(job: Job, kind: str, at_ms: int, data: dict[str, Any]) -> Put:
    """The event number ``job.events``, to be written with the record that counts it."""
    body: dict[str, Any] = {"seq": job.events, "at_ms": at_ms, "type": kind}
    if job.attempt:
        body["attempt"] = job.attempt
    if data:
        body["data"] = data
    return Put(keys.event(job.id, job.events), body, expect=ABSENT)


Decide = Callable[[Job], Change | None]
"""Says what becomes of a job: None leaves it as it is, an error refuses.

It may be called several times, always with a newer job, and must not act on anything itself.
"""


def change(ctx: Context, job_id: str, decide: Decide, *, read: Record | None = None) -> Job:
    """Read a job, let ``decide`` say what becomes of it, and write that if nothing came in between; else again.

    ``read`` is the job's record if the caller has just read it.

    Raises:
        NotFound: no such job.
        WriteConflict: what else the change writes is not as it expects, and the job is.
        Unavailable: it kept changing, or the store did not answer; what was decided may have been applied.
    """
    for attempt in range(TRIES):
        fresh = attempt > 0
        record = read if read is not None and not fresh else ctx.store.get(keys.job(job_id), fresh=fresh)
        if record is None:
            if fresh:
                raise not_found(job_id)
            continue
        before = Job.from_record(record.body)
        try:
            step = decide(before)
        except ComputeError:
            if fresh:
                raise
            continue  # what it refused may be an old job: ask again with the newest
        if step is None:
            if fresh:
                return before
            continue
        after, operations = _write(ctx, record, before, step)
        try:
            outbox.transact(ctx, operations, step.send)
        except WriteConflict as conflict:
            if record.key not in conflict.current:
                raise
            continue
        return after
    raise Unavailable(f"job {job_id} is changing too fast", hint="try again", retry_after_s=1)


def _write(ctx: Context, record: Record, before: Job, step: Change) -> tuple[Job, list[Operation]]:
    """The job after a step, and what the step writes."""
    after = step.job
    if after.state is not before.state and after.state not in MOVES[before.state]:
        raise AssertionError(f"job {after.id} cannot move from {before.state} to {after.state}")
    operations: list[Operation] = []
    if step.event is not None:  # what is no event changes nothing that a tenant sees
        now = ctx.clock.now_ms()
        after = replace(after, updated_ms=max(now, before.updated_ms), events=before.events + 1)
        operations.append(event_put(after, step.event, after.updated_ms, step.data))
    operations.append(Put(record.key, after.record(), expect=record.rev, index=index(after)))
    operations.extend(step.operations)
    if step.outcome is not None:
        operations.extend(step.outcome(after))
    elif after.state.terminal and not before.state.terminal:  # no job ends without a leaf that says so
        leaf = leaves.of_end(ctx, after)
        operations.append(leaf.put(None, **leaf.as_json()))
    return after, operations


def change_all(ctx: Context, changes: Mapping[str, Decide]) -> dict[str, Job | ComputeError]:
    """:func:`change` for several jobs, in one transaction if nothing came in between: the job or its error, by id.

    A batch costs one transaction instead of one for each of its jobs.
    """
    done: dict[str, Job | ComputeError] = {**change_together(ctx, changes)}
    for job_id, decide in changes.items():
        if job_id not in done:
            try:
                done[job_id] = change(ctx, job_id, decide)
            except ComputeError as error:
                done[job_id] = error
    return done


def change_together(
    ctx: Context, changes: Mapping[str, Decide], *, read: Mapping[str, Record] | None = None
) -> dict[str, Job]:
    """Change several jobs in one transaction; returns those that it was, all or none of what could be decided.

    ``read`` are records that the caller has just read. What is left out is for :func:`change`, with newer records.
    """
    done: dict[str, Job] = {}
    operations: list[Operation] = []
    rows: list[outbox.Row] = []
    for job_id, decide in changes.items():
        record = (read or {}).get(job_id) or ctx.store.get(keys.job(job_id))
        if record is None:
            continue
        before = Job.from_record(record.body)
        step: Change | None = None
        with suppress(ComputeError):  # the newest record may not deserve the refusal
            step = decide(before)
        if step is None:
            continue
        after, wanted = _write(ctx, record, before, step)
        if len(operations) + len(wanted) + len(rows) + len(step.send) <= TRANSACTION_MAX:
            done[job_id] = after
            operations += wanted
            rows += step.send
    if done:
        try:
            outbox.transact(ctx, operations, rows)
        except (WriteConflict, Unavailable):
            return {}
    return done


def finish(
    ctx: Context,
    job: Job,
    state: State,
    *,
    reason: str | None,
    category: Category,
    exit_code: int | None = None,
    **changes: Any,
) -> Change:
    """The change that ends a job: terminal state, and the message that makes ``completion`` follow.

    ``category`` and ``exit_code`` are those of the end, not of an attempt before it.
    """
    now = ctx.clock.now_ms()
    ended = replace(
        job,
        state=state,
        reason=reason,
        category=category.value,
        exit_code=exit_code,
        finished_ms=now,
        lease_until_ms=None,
        not_before_ms=None,
        due_ms=now + ctx.policy.resend_ms,
        **changes,
    )
    data = {"reason": reason} if reason else {}
    return Change(ended, state.value, data, send=[outbox.row(ctx, outbox.COMPLETION, job)])


def retry(ctx: Context, job: Job, *, delay_ms: int, event: str, data: dict[str, Any], **changes: Any) -> Change:
    """The change that sends a job to its next attempt after ``delay_ms``; past its deadline it expires instead."""
    not_before = ctx.clock.now_ms() + delay_ms
    if job.deadline_ms is not None and not_before >= job.deadline_ms:
        reason = "no time is left before the deadline"
        return finish(ctx, job, State.EXPIRED, reason=reason, category=Category.DEADLINE, **changes)
    waiting = replace(
        job,
        state=State.RETRYING,
        not_before_ms=not_before,
        lease_until_ms=None,
        due_ms=due(ctx, job, not_before + ctx.policy.resend_ms),
        **changes,
    )
    return Change(waiting, event, data, send=[outbox.row(ctx, outbox.DISPATCH, job, delay_ms=delay_ms)])


def due(ctx: Context, job: Job, at_ms: int | None) -> int | None:
    """When the reconciler looks next: at ``at_ms`` or at the deadline, whichever comes first."""
    times = [time for time in (at_ms, job.deadline_ms) if time is not None]
    return min(times, default=None)
