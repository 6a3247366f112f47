"""What is due of a schedule: the jobs of a time are submitted, once, whoever looks at it and however often.

A run is one transaction where it fits: its jobs, its place in the list of runs, and the schedule's record, which moves
to the next time by compare-and-set. What does not fit goes into several, each of which moves the count of the jobs that
are done. So a job is there if and only if the record says so, and no idempotency key is needed, which would be
forgotten one day and could be anybody's.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hanzo_compute.errors import ComputeError, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.cron import Cron, zone_of
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.schedule import Firing, Run, Schedule, Status
from hanzo_compute.model.spec import format_time
from hanzo_compute.ports import TRANSACTION_MAX, Operation, Put, Record, WriteConflict
from hanzo_compute.services import admission, outbox, records, schedules, submit
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

ON_TIME_MS: Final = 120_000
"""A time that passed up to this long ago is not missed: on AWS the reconciler looks once a minute."""
RETRY_MS: Final = 5_000
"""What is refused for now is tried again after this."""
CORRECTION_MS: Final = 3 * 3600 * 1000
"""A clock that was set back by more is taken for one that was wrong, and schedules begin anew. By up to as much they
wait for it to come to where they are: no time comes twice."""
STEPS: Final = 50
"""Transactions for one schedule in one pass."""


@dataclass
class _Step:
    """The schedule after a transaction, and what else that writes."""

    schedule: Schedule
    operations: list[Operation] = field(default_factory=list)
    rows: list[outbox.Row] = field(default_factory=list)


def fire(ctx: Context, record: Record) -> int:
    """Do what is due of a schedule; returns how many jobs were submitted. Passes may overlap and may be cut short.

    Raises:
        Unavailable: the store did not answer; what was submitted is on record.
    """
    schedule, rev, submitted = Schedule.from_record(record.body), record.rev, 0
    for _ in range(STEPS):
        step = _step(ctx, schedule)
        if step is None:
            break
        after = step.schedule
        put = Put(record.key, after.record(), expect=rev, index=schedules.index(after))
        try:
            outbox.transact(ctx, [put, *step.operations], step.rows)
        except WriteConflict:
            break  # another pass is at it, or it was changed: whoever looks next sees what is left
        for _ in step.rows:
            admission.accepted(ctx, schedule.tenant)
        schedule, rev, submitted = after, rev + 1, submitted + len(step.rows)
    return submitted


def recall(ctx: Context, record: Record) -> Put | None:
    """What brings a schedule's times forward after the clock was set back; None: nothing does."""
    schedule, now = Schedule.from_record(record.body), ctx.clock.now_ms()
    after = schedule
    if schedule.acted_ms - now > CORRECTION_MS:
        after = replace(after, next_ms=_next(after, now), acted_ms=now)
        if after.firing is None:
            after = replace(after, due_ms=after.next_ms)
    firing = after.firing
    if firing is not None:
        if firing.until_ms is not None and firing.until_ms > now + CORRECTION_MS:
            after = replace(after, firing=replace(firing, until_ms=_next(after, now)))
        after = replace(after, due_ms=min(after.due_ms or now, now + RETRY_MS))
    if after == schedule:
        return None
    return Put(record.key, after.record(), expect=record.rev, index=schedules.index(after))


def _step(ctx: Context, schedule: Schedule) -> _Step | None:
    """What is to be done next; None: nothing is due."""
    now = ctx.clock.now_ms()
    if schedule.due_ms is None or schedule.due_ms > now:
        return None
    try:
        if schedule.firing is not None:
            return _submit(ctx, schedule, schedule.firing, now)
        return _begin(ctx, schedule, now)
    except ValueError as error:  # of its expression or zone, which were good when it was put
        log.warning("schedule %s of %s stops: %s", schedule.name, schedule.tenant, error)
        stopped = {"code": "internal", "message": f"it cannot go on: {error}", "at": format_time(now)}
        return _Step(replace(schedule, next_ms=None, due_ms=None, last_error=stopped))


def _begin(ctx: Context, schedule: Schedule, now: int) -> _Step:
    at = schedule.next_ms
    wanted = None if at is None else _wanted(schedule, at, now)
    if at is None or wanted is None or wanted > now:  # nothing of what passed is made up for
        moved = replace(schedule, next_ms=wanted, due_ms=wanted, acted_ms=now)
        return _Step(moved) if at is None else _missed(schedule, moved, at, now)
    if wanted > at:
        return _missed(schedule, replace(schedule, next_ms=wanted, due_ms=wanted, acted_ms=now), at, wanted - 1)
    begun = replace(schedule, next_ms=_next(schedule, at), acted_ms=now)
    running = _running(ctx, schedule) if schedule.overlap == "skip" else None
    if running is not None:
        why = {"code": "overlap", "message": f"job {running} of the run before has not ended"}
        return _closed(begun, Run(schedule.runs, at, "overlapped", now, errors=(why,)))
    return _submit(ctx, begun, Firing(at), now)


def _wanted(schedule: Schedule, at: int, now: int) -> int | None:
    """Of the times from ``at`` to now the first that is to have a run; else the next one."""
    if at >= now - ON_TIME_MS:
        return at
    cron, zone = Cron.parse(schedule.cron), zone_of(schedule.timezone)
    if schedule.missed == "all":
        return cron.before(now, zone, at, bounds.MISSED_MAX)[0]
    in_time = cron.after(now - ON_TIME_MS - 1, zone)
    if schedule.missed == "once" and (in_time is None or in_time > now):
        return cron.before(now, zone, at, 1)[0]
    return in_time


def _missed(schedule: Schedule, moved: Schedule, at: int, until: int) -> _Step:
    """Times from ``at`` to ``until`` have no run."""
    last = Cron.parse(schedule.cron).before(until, zone_of(schedule.timezone), at, 1)[0]
    return _closed(moved, Run(schedule.runs, at, "missed", moved.acted_ms, until_ms=last))


def _submit(ctx: Context, schedule: Schedule, firing: Firing, now: int) -> _Step:
    """As many jobs of a run as one transaction takes."""
    step, refused = _Step(schedule), None
    origin = {"kind": "schedule", "schedule": schedule.name, "at": format_time(firing.at_ms)}
    jobs = _jobs(ctx, schedule)
    if jobs is None:  # lost; or the schedule is not what it was, and then this is not written
        wrong = {"code": "internal", "message": "its jobs are not in the store: put it again"}
        return _closed(schedule, Run(schedule.runs, firing.at_ms, "failed", now, firing.jobs, (wrong,)))
    while firing.done < len(jobs):
        try:
            spec = parse_spec(jobs[firing.done])
            draft = submit.prepare(ctx, schedule.tenant, spec, origin=origin, beside=len(step.rows))
        except InvalidRequest as error:
            wrong = _told(error, firing.done)
            firing = replace(firing, done=firing.done + 1, errors=(*firing.errors, wrong))
            continue
        except Unavailable:
            raise
        except ComputeError as error:
            refused = _told(error, firing.done)
            break
        # Its message may be a record, too; and the schedule's own record and the run's are to come.
        if len(step.operations) + len(step.rows) + len(draft.operations) + 3 > TRANSACTION_MAX:
            break
        step.operations += draft.operations
        step.rows.append(draft.row)
        firing = replace(firing, done=firing.done + 1, jobs=(*firing.jobs, draft.job.id), until_ms=None)
    if refused is not None:
        until = firing.until_ms or _next(schedule, now) or now
        if now < until:
            waits = replace(firing, until_ms=until)
            shown = refused | {"at": format_time(now)}
            due = min(now + RETRY_MS, until)
            step.schedule = replace(schedule, firing=waits, due_ms=due, last_error=shown)
            return step
        firing = replace(firing, errors=(*firing.errors, refused))
    elif firing.done < len(jobs):
        step.schedule = replace(schedule, firing=firing, due_ms=now)
        return step
    status: Status = "submitted" if not firing.errors else "partial" if firing.jobs else "failed"
    run = Run(schedule.runs, firing.at_ms, status, now, firing.jobs, firing.errors)
    closed = _closed(schedule, run)
    step.schedule = closed.schedule
    step.operations += closed.operations
    return step


def _jobs(ctx: Context, schedule: Schedule) -> list[dict[str, Any]] | None:
    at = keys.schedule_spec(schedule.tenant, schedule.name, schedule.spec)
    record = ctx.store.get(at) or ctx.store.get(at, fresh=True)
    return None if record is None else record.body["jobs"]


def _closed(schedule: Schedule, run: Run) -> _Step:
    """The schedule after a run, which goes on record."""
    changes: dict[str, Any] = {"runs": schedule.runs + 1, "firing": None, "due_ms": schedule.next_ms}
    if run.jobs:
        changes |= {"last_ms": run.at_ms, "last_jobs": run.jobs}
    if run.status in ("partial", "failed"):
        changes["last_error"] = run.errors[-1] | {"at": format_time(run.at_ms)}
    elif run.status == "submitted":
        changes["last_error"] = None
    return _Step(replace(schedule, **changes), [schedules.run_put(schedule, run)])


def _told(error: ComputeError, number: int) -> dict[str, Any]:
    return {"job": number, "code": error.code, "message": error.message}


def _next(schedule: Schedule, ms: int) -> int | None:
    if schedule.paused:
        return None
    return Cron.parse(schedule.cron).after(ms, zone_of(schedule.timezone))


def _running(ctx: Context, schedule: Schedule) -> str | None:
    """A job of the last run that has not ended."""
    for job_id in schedule.last_jobs:
        for fresh in (False, True):
            try:
                job = records.find(ctx, job_id, fresh=fresh)
            except NotFound:
                break
            if job.state.terminal:
                break
        else:
            return job_id
    return None
