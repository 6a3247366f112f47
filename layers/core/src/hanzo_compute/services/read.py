"""What a tenant reads of its jobs."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, replace
from typing import Any

from hanzo_compute.errors import Conflict, FieldProblem, InvalidRequest, NotFound
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.spec import BLOB_ID, JOB_ID, LABEL_NAME, LABEL_VALUE, format_time
from hanzo_compute.model.states import State
from hanzo_compute.ports import LogPage, Record
from hanzo_compute.services import records
from hanzo_compute.services.context import Context
from hanzo_compute.services.submit import stored_spec


@dataclass(frozen=True)
class Page:
    """Items and the cursor of the next page, None at the end."""

    items: list[dict[str, Any]]
    next_cursor: str | None

    def as_json(self) -> dict[str, Any]:
        """The page as the API shows it."""
        return {"items": self.items, "next_cursor": self.next_cursor}


def invalid(field: str, message: str, *, hint: str | None = None) -> InvalidRequest:
    """The error for one query parameter."""
    return InvalidRequest(f"{field}: {message}", fields=[FieldProblem(field, message, hint=hint)], hint=hint)


def encode_cursor(sort_key: str) -> str:
    """The cursor after what has this sort key."""
    return base64.urlsafe_b64encode(sort_key.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, pattern: str) -> str:
    """The sort key of a cursor; empty for none. Raises InvalidRequest when it does not match ``pattern``."""
    if not cursor:
        return ""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    if not re.fullmatch(pattern, text):
        raise invalid("cursor", "is not one that this list gave", hint="start again without a cursor")
    return text


def job(ctx: Context, tenant: str, job_id: str) -> dict[str, Any]:
    """A job with its spec and the outcome of its last attempt."""
    found = records.find(ctx, job_id, tenant=tenant)
    shown = found.view() | {"spec": stored_spec(ctx, job_id)}
    last = _outcome(ctx, found)
    return shown if last is None else shown | {"outcome": last}


def jobs(ctx: Context, tenant: str, *, state: State | None, label: str | None, cursor: str, limit: int) -> Page:
    """A tenant's jobs, newest first. A page may be short although there are more: its cursor says so."""
    after = decode_cursor(cursor, JOB_ID)
    if label is not None:
        name, equals, value = label.partition("=")
        if not equals or not re.fullmatch(LABEL_NAME, name) or not re.fullmatch(LABEL_VALUE, value):
            raise invalid("label", "must look like name=value")
        partition = keys.label(tenant, name, value, "").pk
        found = [r.key.sk for r in ctx.store.query(partition, after=after, limit=limit + 1, reverse=True)]
        rows: list[tuple[str, Record | None]] = [(job_id, ctx.store.get(keys.job(job_id))) for job_id in found]
    else:
        index, partition = (
            (keys.BY_TENANT, keys.tenant_entry(tenant, "")[0])
            if state is None
            else (keys.BY_STATE, keys.state_entry(tenant, state.value, "")[0])
        )
        # Newest first is descending: the cursor is the last one shown, the page is what lies before it.
        rows = list(ctx.store.query_index(index, partition, before=after, limit=limit + 1, reverse=True))
    shown = [Job.from_record(record.body) for _, record in rows[:limit] if record is not None]
    items = [each.summary() for each in shown if state in (None, each.state)]
    return Page(items, encode_cursor(rows[limit - 1][0]) if len(rows) > limit else None)


def events(ctx: Context, tenant: str, job_id: str, *, cursor: str, limit: int) -> Page:
    """What happened to a job, oldest first."""
    records.find(ctx, job_id, tenant=tenant)
    after = decode_cursor(cursor, r"EVENT#[0-9]{8}")
    rows = ctx.store.query(keys.job_partition(job_id), prefix="EVENT#", after=after, limit=limit + 1)
    items = [_event(record) for record in rows[:limit]]
    return Page(items, encode_cursor(rows[limit - 1].key.sk) if len(rows) > limit else None)


def _event(record: Record) -> dict[str, Any]:
    body = dict(record.body)
    return {"seq": body.pop("seq"), "at": format_time(body.pop("at_ms")), **body}


def result(ctx: Context, tenant: str, job_id: str) -> dict[str, Any]:
    """The outcome of a job that has ended.

    Raises:
        Conflict: it has not.
    """
    found = ended(ctx, tenant, job_id)
    shown: dict[str, Any] = {"id": found.id, "state": found.state.value, "outcome": _outcome(ctx, found)}
    return shown | ({"reason": found.reason} if found.reason else {})


def outputs(ctx: Context, tenant: str, job_id: str) -> Page:
    """The outputs of a job that has ended; large ones behind presigned URLs."""
    found = ended(ctx, tenant, job_id)
    stored = (_outcome(ctx, found) or {}).get("outputs", [])
    return Page([_with_url(ctx, tenant, output) for output in stored], None)


def _with_url(ctx: Context, tenant: str, output: dict[str, Any]) -> dict[str, Any]:
    if "blob" not in output:
        return output
    signed = ctx.blobs.presign_get(tenant, output["blob"])
    return output | {"url": signed.url, "url_expires_at": format_time(signed.expires_ms)}


def blob(ctx: Context, tenant: str, blob_id: str) -> dict[str, Any]:
    """A blob of the tenant's, behind a presigned URL. Raises NotFound."""
    size = ctx.blobs.size(tenant, blob_id) if re.fullmatch(BLOB_ID, blob_id) else None
    if size is None:
        raise NotFound(f"no blob {blob_id}", hint="a blob's id is b1- and the SHA-256 of its bytes in hex")
    signed = ctx.blobs.presign_get(tenant, blob_id)
    return {"id": blob_id, "size": size, "url": signed.url, "url_expires_at": format_time(signed.expires_ms)}


def ended(ctx: Context, tenant: str, job_id: str) -> Job:
    """The job, if it has ended. Raises Conflict when it has not."""
    found = records.find(ctx, job_id, tenant=tenant)
    if not found.state.terminal:
        raise Conflict(
            f"job {job_id} has not ended: it is {found.state}",
            hint=f"follow it with `hzc logs -f {job_id}`",
            state=found.state.value,
        )
    return found


def _outcome(ctx: Context, job: Job) -> dict[str, Any] | None:
    if not job.attempt:
        return None
    record = ctx.store.get(keys.attempt(job.id, job.attempt))
    return None if record is None else record.body.get("outcome")


@dataclass(frozen=True)
class LogRead:
    """A page of a log; ``done`` when the job has ended and nothing is left to read."""

    page: LogPage
    job: Job
    done: bool


def logs(ctx: Context, tenant: str, job_id: str, *, cursor: str, follow: bool) -> LogRead:
    """Log entries after ``cursor``. ``follow`` makes the agent send its log every second for a while."""
    found = records.find(ctx, job_id, tenant=tenant)
    page = ctx.logs.read(tenant, job_id, cursor)
    done = found.state.terminal and not page.entries
    if follow and not found.state.terminal:
        _mark_followed(ctx, found)
    return LogRead(page, found, done)


def _mark_followed(ctx: Context, found: Job) -> None:
    now, until = ctx.clock.now_ms(), ctx.clock.now_ms() + ctx.policy.follow_ms
    if (found.followed_until_ms or 0) > now + ctx.policy.follow_ms // 2:
        return

    def decide(job: Job) -> records.Change | None:
        return None if job.state.terminal else records.Change(replace(job, followed_until_ms=until))

    records.change(ctx, found.id, decide)
