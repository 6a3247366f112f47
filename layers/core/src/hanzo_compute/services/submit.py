"""A job comes in: checked, and stored with all that follows from it in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json

from hanzo_compute.errors import (
    Conflict,
    FieldProblem,
    IdempotencyMismatch,
    InvalidRequest,
    InvalidSpec,
    NoCapacity,
    Unavailable,
)
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.spec import JobSpec, code_digest, digest, input_digest
from hanzo_compute.model.states import State
from hanzo_compute.ports import ABSENT, RECORD_MAX, Operation, Put, WriteConflict
from hanzo_compute.services import admission, outbox, pricing, records
from hanzo_compute.services.context import Context
from hanzo_compute.services.expand import expand

SPEC_MAX: Final = RECORD_MAX - 1000
"""A spec as JSON, bytes: it is stored as one record."""


@dataclass(frozen=True)
class Submitted:
    """The job, and whether an earlier call with the same idempotency key had made it."""

    job: Job
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that is not stored yet: what stores it, and the message that belongs to it."""

    job: Job
    operations: list[Operation]
    row: outbox.Row


def check(ctx: Context, tenant: str, spec: JobSpec) -> tuple[str, ...]:
    """Check what the spec alone cannot say (function, blobs, deadline, capacity); returns the runtimes it may use.

    Raises:
        InvalidSpec: a function or blob is missing, or the deadline lies in the past or too far ahead.
        NotSupported: see :func:`~hanzo_compute.services.expand.expand`.
        NoCapacity: no pool here runs such jobs.
    """
    spec = expand(ctx, tenant, spec)
    problems = [
        FieldProblem(field, "you have no blob of this id", "unknown_blob", "upload it: POST /v1/blobs")
        for field, blob in spec.blobs().items()
        if ctx.blobs.size(tenant, blob) is None
    ]
    if len(to_json(spec.as_json())) > SPEC_MAX:
        message = (
            f"the spec is over {SPEC_MAX} bytes as JSON: give code or input as a blob, or fewer control characters"
        )
        problems.append(FieldProblem("(body)", message, "too_large"))
    now = ctx.clock.now_ms()
    if spec.deadline_ms is not None and spec.deadline_ms <= now:
        problems.append(FieldProblem("deadline", "lies in the past", "past"))
    elif spec.deadline_ms is not None and spec.deadline_ms > now + bounds.DEADLINE_S_MAX * 1000:
        problems.append(FieldProblem("deadline", "lies more than 30 days ahead", "too_far"))
    if problems:
        raise InvalidSpec(f"{problems[0].field}: {problems[0].message}", fields=problems, hint=problems[0].hint)
    tier = spec.privacy_tier or 0
    able = tuple(
        runtime
        for runtime in spec.runtimes
        if any(runtime in pool.runtimes and tier <= pool.tier for pool in ctx.policy.pools)
    )
    if not able:
        wanted, tiers = " or ".join(spec.runtimes), f" of privacy tier {tier}" if tier else ""
        raise NoCapacity(
            f"no pool here runs {wanted} jobs{tiers}", hint="ask the operator for an agent", runtime=wanted
        )
    return able


def submit(
    ctx: Context,
    tenant: str,
    spec: JobSpec,
    *,
    idempotency_key: str | None = None,
    origin: dict[str, str] | None = None,
) -> Submitted:
    """Accept a job: once this returns and its writes are durable, the job ends in exactly one outcome.

    Raises:
        InvalidSpec, NoCapacity: see :func:`check`.
        InvalidSpec, NotSupported: see :func:`~hanzo_compute.services.pricing.quote`.
        RateLimited, NoCapacity: too many jobs wait already.
        IdempotencyMismatch: the key was used with another body.
    """
    # Of the request as it came: repeated, it names the same function, which may be another version by then.
    request_digest = digest({"spec": digest(spec.as_json()), "origin": origin})
    if idempotency_key is not None:
        earlier = _replay(ctx, tenant, idempotency_key, request_digest)
        if earlier is not None:
            return earlier
    draft = prepare(ctx, tenant, spec, origin=origin)
    job, operations = draft.job, draft.operations
    if idempotency_key is not None:
        operations.append(_remember(ctx, tenant, idempotency_key, request_digest, job.id))
    try:
        outbox.transact(ctx, operations, [draft.row])
    except WriteConflict as conflict:
        if idempotency_key is not None:
            earlier = _replay(ctx, tenant, idempotency_key, request_digest, fresh=True)
            if earlier is not None:
                return earlier
        # Only its idempotency key can be there already, and that has just been forgotten.
        raise Unavailable("the job could not be stored", hint="repeat the request") from conflict
    admission.accepted(ctx, tenant)
    return Submitted(job)


def prepare(
    ctx: Context,
    tenant: str,
    spec: JobSpec,
    *,
    origin: dict[str, str] | None = None,
    beside: int = 0,
) -> Draft:
    """A job that may be accepted, with all that its transaction writes; ``beside``: jobs in the same transaction.

    Once it is stored, call :func:`~hanzo_compute.services.admission.accepted`.

    Raises:
        InvalidSpec, NotSupported, RateLimited, NoCapacity: see :func:`submit`.
    """
    spec = expand(ctx, tenant, spec)
    quotes = pricing.quotes(ctx, spec, check(ctx, tenant, spec))
    stored = spec.as_json()
    runtime, quote = next(iter(quotes)), list(quotes.values())[-1]
    admission.admit(ctx, tenant, beside)
    pricing.publish(ctx)
    now = ctx.clock.now_ms()
    job = Job(
        id=ctx.ids.new("j", now),
        tenant=tenant,
        state=State.QUEUED,
        runtime=runtime,
        created_ms=now,
        updated_ms=now,
        due_ms=min(now + ctx.policy.resend_ms, spec.deadline_ms or now + ctx.policy.resend_ms),
        timeout_s=spec.resources.timeout_s,
        spec_digest=digest(stored),
        labels=spec.labels,
        events=1,
        deadline_ms=spec.deadline_ms,
        origin=origin,
        code=code_digest(stored),
        input=input_digest(stored),
        profile=spec.profile,
        tier=spec.privacy_tier or 0,
        data_key=spec.data_key,
        entries_of=_entries_of(spec),
        tariff=quote.rates.version,
        token=quote.rates.token,
        most=str(quote.attempt_most),
        runtimes={name: str(each.attempt_most) for name, each in quotes.items()} if len(quotes) > 1 else {},
    )
    operations: list[Operation] = [
        Put(keys.job(job.id), job.record(), expect=ABSENT, index=records.index(job)),
        Put(keys.spec(job.id), stored, expect=ABSENT),
        records.event_put(job, "submitted", now, {"origin": origin} if origin else {}),
        *(Put(keys.label(tenant, n, v, job.id), {}, expect=ABSENT) for n, v in spec.labels.items()),
    ]
    return Draft(job, operations, outbox.row(ctx, outbox.DISPATCH, job))


def _entries_of(spec: JobSpec) -> str | None:
    """The function whose entries the job uses, if it was granted them."""
    capabilities, named = spec.source.capabilities, spec.source.function
    return named.partition("@")[0] if named is not None and capabilities is not None and capabilities.kv else None


def resubmit(ctx: Context, tenant: str, job_id: str, *, kind: str, idempotency_key: str | None = None) -> Submitted:
    """A new job with the spec of an earlier one, linked to it. ``kind``: ``rerun`` or ``redrive``.

    Raises:
        NotFound: no such job.
        Conflict: a redrive of a job that is not dead.
    """
    earlier = records.find(ctx, job_id, tenant=tenant)
    if kind == "redrive" and earlier.state is not State.DEAD:
        raise Conflict(
            f"job {job_id} is {earlier.state}, not dead", hint=f"hzc rerun {job_id}", state=earlier.state.value
        )
    body = stored_spec(ctx, job_id)
    body.pop("deadline", None)  # it belonged to the earlier job, and has most likely passed
    origin = {"kind": kind, "job": job_id}
    return submit(ctx, tenant, parse_spec(body, stored=True), idempotency_key=idempotency_key, origin=origin)


def stored_spec(ctx: Context, job_id: str) -> dict[str, Any]:
    """The spec of a job that exists."""
    record = ctx.store.get(keys.spec(job_id)) or ctx.store.get(keys.spec(job_id), fresh=True)
    if record is None:
        raise records.not_found(job_id)
    return record.body


def check_idempotency_key(key: str | None) -> str | None:
    """The key, if it is one.

    Raises:
        InvalidRequest: it is empty, too long, or has characters other than printable ASCII.
    """
    if key is None:
        return None
    if not 0 < len(key) <= bounds.IDEMPOTENCY_KEY_MAX or not all(" " <= char <= "~" for char in key):
        problem = FieldProblem("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
        raise InvalidRequest(f"{problem.field} {problem.message}", fields=[problem])
    return key


def _remember(ctx: Context, tenant: str, key: str, request_digest: str, job_id: str) -> Put:
    expires = ctx.clock.now_ms() + ctx.policy.idempotency_ms
    at = keys.idempotency(tenant, key)
    body = {"job": job_id, "digest": request_digest, "expires_ms": expires}
    return Put(at, body, expect=ABSENT, index={keys.BY_DUE: keys.due_entry(expires, at.pk)})


def _replay(ctx: Context, tenant: str, key: str, request_digest: str, *, fresh: bool = False) -> Submitted | None:
    record = ctx.store.get(keys.idempotency(tenant, key), fresh=fresh)
    if record is None:
        return None
    if record.body["digest"] != request_digest:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used with another body",
            hint="use a new key for a new job; repeat the same body to get the same job",
            job=record.body["job"],
        )
    return Submitted(records.find(ctx, record.body["job"], tenant=tenant, fresh=fresh), replayed=True)
