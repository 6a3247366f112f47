"""Schedules as their tenant keeps them: put, look at, delete. What makes them fire is in ``firing``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_core import to_json

from hanzo_compute.errors import (
    Conflict,
    FieldProblem,
    InvalidRequest,
    InvalidSpec,
    NotFound,
    NotSupported,
    Unavailable,
)
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.cron import Cron, zone_of
from hanzo_compute.model.schedule import NAME, Run, Schedule, ScheduleSpec
from hanzo_compute.model.spec import JobSpec, digest, format_time
from hanzo_compute.ports import ABSENT, RECORD_MAX, Delete, Entries, Operation, Put, Record, WriteConflict
from hanzo_compute.services import pricing, submit
from hanzo_compute.services.context import Context
from hanzo_compute.services.expand import expand
from hanzo_compute.services.read import Page, invalid
from hanzo_compute.services.records import TRIES

JOBS_MAX: Final = RECORD_MAX - 1000
"""All jobs of a schedule as JSON, bytes: they are stored as one record."""
SHOWN: Final = 5
"""Times that are shown of those to come."""


@dataclass(frozen=True)
class Stored:
    """A schedule after a put; ``created`` when there was none before."""

    schedule: Schedule
    created: bool = False


def index(schedule: Schedule) -> Entries:
    """The index entries of a schedule's record."""
    entries = {keys.BY_TENANT: (keys.schedules_partition(schedule.tenant), schedule.name)}
    if schedule.due_ms is not None:
        record_id = keys.schedule_partition(schedule.tenant, schedule.name)
        entries[keys.BY_DUE] = keys.due_entry(schedule.due_ms, record_id)
    return entries


def run_put(schedule: Schedule, run: Run) -> Put:
    """The write that keeps a run, in place of the oldest one; it goes with the record that counts it."""
    slot = run.number % bounds.SCHEDULE_RUNS_KEPT
    return Put(keys.schedule_run(schedule.tenant, schedule.name, slot), run.record())


def put(ctx: Context, tenant: str, name: str, spec: ScheduleSpec, *, expect: int | None = None) -> Stored:
    """Create or replace a schedule; the same again changes nothing.

    ``expect`` is the revision that it must have, 0: there must be none. Times that pass while it is paused, and times
    of an expression that is replaced, are not missed: it has none then. A run that is being submitted is cut short.

    Raises:
        InvalidRequest: the name; InvalidSpec, NotSupported, NoCapacity: a job is not acceptable.
        Conflict: it has another revision, or the tenant has too many schedules.
    """
    if not re.fullmatch(NAME, name):
        message = "must be of a-z 0-9 . _ -, at most 63 characters, and begin and end with a letter or digit"
        raise invalid("name", message)
    _check(ctx, tenant, spec)
    jobs = [_kept(job) for job in spec.jobs]
    for attempt in range(TRIES):
        fresh = attempt > 0
        record = ctx.store.get(keys.schedule(tenant, name), fresh=fresh)
        before = None if record is None else Schedule.from_record(record.body)
        conflict = _unexpected(name, before, expect)
        after = _after(ctx, tenant, name, spec, digest({"jobs": jobs}), before)
        if not fresh and (conflict is not None or after == before):
            continue  # what it refuses, or leaves, may be an old schedule
        if conflict is not None:
            raise conflict
        if after == before:
            return Stored(after)
        if (
            before is None
            and ctx.store.count_index(keys.BY_TENANT, keys.schedules_partition(tenant), bounds.SCHEDULES_MAX)
            >= bounds.SCHEDULES_MAX
        ):
            raise Conflict(
                f"you have {bounds.SCHEDULES_MAX} schedules, which is the most", hint="delete some: hzc schedule rm"
            )
        operations: list[Operation] = [
            Put(
                keys.schedule(tenant, name), after.record(), expect=record.rev if record else ABSENT, index=index(after)
            )
        ]
        if before is None or before.spec != after.spec:
            operations.append(Put(keys.schedule_spec(tenant, name, after.spec), {"jobs": jobs}))
        if before is not None and before.spec != after.spec:
            operations.append(Delete(keys.schedule_spec(tenant, name, before.spec)))
        if before is not None and before.firing is not None:
            operations.append(run_put(before, cut_short(ctx, before, "the schedule was changed")))
        try:
            ctx.store.transact(operations)
        except WriteConflict:
            continue
        return Stored(after, created=before is None)
    raise _too_fast(name)


def cut_short(ctx: Context, schedule: Schedule, why: str) -> Run:
    """The run on record of a firing that does not go on."""
    firing = schedule.firing
    assert firing is not None
    left = {"code": "not_submitted", "message": f"{why}: {schedule.count - firing.done} jobs were not submitted"}
    return Run(
        number=schedule.runs,
        at_ms=firing.at_ms,
        status="partial" if firing.jobs else "failed",
        ended_ms=ctx.clock.now_ms(),
        jobs=firing.jobs,
        errors=(*firing.errors, left),
    )


def get(ctx: Context, tenant: str, name: str) -> dict[str, Any]:
    """A schedule with its jobs and the times to come.

    Raises:
        NotFound: the tenant has none of this name.
    """
    for fresh in (False, True):
        record = find(ctx, tenant, name, fresh=fresh)
        found = Schedule.from_record(record.body)
        stored = ctx.store.get(keys.schedule_spec(tenant, name, found.spec), fresh=fresh)
        if stored is not None:
            break
    else:
        raise _too_fast(name)
    spec = {"cron": found.cron, "timezone": found.timezone, "missed": found.missed, "overlap": found.overlap}
    shown = found.summary() | {"spec": spec | {"paused": found.paused, "jobs": stored.body["jobs"]}}
    if found.firing is not None:
        shown["submitting"] = {"at": format_time(found.firing.at_ms), "jobs": list(found.firing.jobs)}
    return shown | {"upcoming": _upcoming(found)}


def schedules(ctx: Context, tenant: str, *, cursor: str, limit: int) -> Page:
    """A tenant's schedules by name."""
    if cursor and not re.fullmatch(NAME, cursor):
        raise invalid("cursor", "is not one that this list gave", hint="start again without a cursor")
    partition = keys.schedules_partition(tenant)
    rows = ctx.store.query_index(keys.BY_TENANT, partition, after=cursor, limit=limit + 1)
    items = [Schedule.from_record(record.body).summary() for _, record in rows[:limit]]
    return Page(items, rows[limit - 1][0] if len(rows) > limit else None)


def runs(ctx: Context, tenant: str, name: str) -> Page:
    """The last runs of a schedule, newest first.

    Raises:
        NotFound: the tenant has none of this name.
    """
    find(ctx, tenant, name)
    partition = keys.schedule_partition(tenant, name)
    rows = ctx.store.query(partition, prefix="RUN#", limit=bounds.SCHEDULE_RUNS_KEPT)
    newest = sorted((record.body for record in rows), key=lambda body: int(body["number"]), reverse=True)
    return Page([Run.view(body) for body in newest], None)


def delete(ctx: Context, tenant: str, name: str, *, expect: int | None = None) -> None:
    """Delete a schedule and what is remembered of its runs; its jobs stay.

    Raises:
        NotFound: the tenant has none of this name.
        Conflict: it has another revision.
    """
    for attempt in range(TRIES):
        record = find(ctx, tenant, name, fresh=attempt > 0)
        schedule = Schedule.from_record(record.body)
        conflict = _unexpected(name, schedule, expect)
        if conflict is not None and not attempt:
            continue
        if conflict is not None:
            raise conflict
        slots = range(min(schedule.runs, bounds.SCHEDULE_RUNS_KEPT))
        operations: list[Operation] = [
            Delete(record.key, expect=record.rev),
            Delete(keys.schedule_spec(tenant, name, schedule.spec)),
            *(Delete(keys.schedule_run(tenant, name, slot)) for slot in slots),
        ]
        try:
            ctx.store.transact(operations)
        except WriteConflict:
            continue
        return
    raise _too_fast(name)


def find(ctx: Context, tenant: str, name: str, *, fresh: bool = False) -> Record:
    """The record of a schedule.

    Raises:
        NotFound: the tenant has none of this name; the answer is the same for another tenant's.
    """
    key = keys.schedule(tenant, name)
    # It may be so new that only the writer knows it.
    record = ctx.store.get(key, fresh=fresh) or (None if fresh else ctx.store.get(key, fresh=True))
    if record is None:
        raise NotFound(f"there is no schedule {name}", hint="`hzc schedule ls` lists your schedules", schedule=name)
    return record


def _check(ctx: Context, tenant: str, spec: ScheduleSpec) -> None:
    """Each job as if it were submitted now, and all of them together."""
    problems: list[FieldProblem] = []
    kind: type[InvalidRequest] = InvalidSpec
    for number, job in enumerate(spec.jobs):
        if job.data_key is not None:  # nobody would be there to give it
            kind = NotSupported
            message = "is not supported in a schedule: the key of each job is given when it was submitted"
            problems.append(FieldProblem(f"jobs.{number}.data_key", message, "not_supported"))
            continue
        try:
            whole = expand(ctx, tenant, job)
            pricing.quote_most(ctx, whole, submit.check(ctx, tenant, whole))
        except InvalidRequest as error:
            kind = NotSupported if isinstance(error, NotSupported) else kind
            problems += _within(f"jobs.{number}", error)
    if not problems and len(to_json([job.as_json() for job in spec.jobs])) > JOBS_MAX:
        message = f"are over {JOBS_MAX} bytes as JSON together: give code or input as blobs, or make several schedules"
        problems.append(FieldProblem("jobs", message, "too_large"))
    if problems:
        problems = problems[: bounds.PROBLEMS_MAX]
        raise kind(f"{problems[0].field}: {problems[0].message}", fields=problems, hint=problems[0].hint)


def _kept(job: JobSpec) -> dict[str, Any]:
    """A job as it is stored; without defaults if it is made of a function: what it does not give, a version will."""
    if job.source.function is None:
        return job.as_json()
    return job.model_dump(exclude_none=True, exclude_unset=True)


def _within(place: str, error: InvalidRequest) -> Sequence[FieldProblem]:
    if not error.fields:
        return [FieldProblem(place, error.message, error.code, error.hint)]
    return [
        replace(problem, field=place if problem.field == "(body)" else f"{place}.{problem.field}")
        for problem in error.fields
    ]


def _unexpected(name: str, schedule: Schedule | None, expect: int | None) -> Conflict | None:
    revision = 0 if schedule is None else schedule.revision
    if expect is None or expect == revision:
        return None
    found = f"schedule {name} has revision {revision}" if revision else f"there is no schedule {name}"
    wanted = f"not {expect}" if expect else "and it was to be created"
    return Conflict(f"{found}, {wanted}", hint=f"look at it again: hzc schedule show {name}", revision=revision)


def _after(ctx: Context, tenant: str, name: str, spec: ScheduleSpec, jobs: str, before: Schedule | None) -> Schedule:
    """The schedule that a put makes of the one before."""
    now = ctx.clock.now_ms()
    asked: dict[str, Any] = {
        "cron": spec.cron,
        "timezone": spec.timezone,
        "missed": spec.missed,
        "overlap": spec.overlap,
        "paused": spec.paused,
        "count": len(spec.jobs),
        "spec": jobs,
    }
    if before is not None and all(getattr(before, field) == value for field, value in asked.items()):
        return before
    next_ms = None if spec.paused else Cron.parse(spec.cron).after(now, zone_of(spec.timezone))
    if before is None:
        return Schedule(
            tenant=tenant,
            name=name,
            created_ms=now,
            updated_ms=now,
            next_ms=next_ms,
            due_ms=next_ms,
            acted_ms=now,
            **asked,
        )
    if (spec.cron, spec.timezone, spec.paused) == (before.cron, before.timezone, before.paused):
        next_ms = before.next_ms  # it may be due, or missed, already
    return replace(
        before,
        updated_ms=max(now, before.updated_ms),
        revision=before.revision + 1,
        runs=before.runs + (before.firing is not None),
        firing=None,
        next_ms=next_ms,
        due_ms=next_ms,
        acted_ms=now,
        **asked,
    )


def _upcoming(schedule: Schedule) -> list[str]:
    found: list[str] = []
    cron, at = Cron.parse(schedule.cron), schedule.next_ms
    while at is not None and len(found) < SHOWN:
        found.append(format_time(at))
        at = cron.after(at, zone_of(schedule.timezone))
    return found


def _too_fast(name: str) -> Unavailable:
    return Unavailable(f"schedule {name} is changing too fast", hint="try again", retry_after_s=1)
