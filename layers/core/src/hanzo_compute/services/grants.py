"""What an attempt that an agent holds may do besides computing: by the capabilities of its job's function.

Agents reach neither the store nor the vault: they ask for one entry or one secret at a time, with their fence, and hand
in with the outcome what the attempt leaves of its entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hanzo_compute.errors import FieldProblem, InvalidRequest, NotFound, PermissionDenied, Unavailable
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.capabilities import Capabilities, of_source
from hanzo_compute.model.job import Job
from hanzo_compute.ports import Check, Operation, Record, Seen, Touched, WriteConflict
from hanzo_compute.services import kv, records, secrets
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim
from hanzo_compute.services.submit import stored_spec


@dataclass(frozen=True, slots=True)
class Grant:
    """What a job was granted, and as a version of which function (``name@version``)."""

    reference: str
    capabilities: Capabilities

    @property
    def function(self) -> str:
        """The function's name, which its entries are kept by."""
        return self.reference.partition("@")[0]

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Grant:
        """That of a job's stored spec; without capabilities if it was made of no function that has any."""
        source = spec["source"]
        return cls(source.get("function") or "", of_source(source))


def entry(ctx: Context, claim: Claim, key: bytes, *, fresh: bool = False) -> Seen:
    """An entry of the function of a job that the claim holds.

    Raises:
        StaleFence: the attempt lost its job, or its lease has run out.
        PermissionDenied: the function was not granted ``kv``.
        InvalidRequest: the key has no or too many bytes.
    """
    job, _ = _live(ctx, claim)
    grant = Grant.of(stored_spec(ctx, job.id))
    if not grant.capabilities.kv:
        raise _denied(job, "kv")
    if not 0 < len(key) <= bounds.KV_KEY_MAX:
        problem = FieldProblem("key_base64", f"must be 1 to {bounds.KV_KEY_MAX} bytes")
        raise InvalidRequest(f"{problem.field} {problem.message}", fields=[problem])
    return kv.read(ctx, job.tenant, grant.function, key, fresh=fresh)


def secret(ctx: Context, claim: Claim, name: str) -> bytes | None:
    """A secret of the tenant of a job that the claim holds; None: there is none of this name.

    The record of it is written in one transaction with the check that the claim still holds: what is given out after
    that was on record, to an attempt that was running.

    Raises:
        StaleFence: the attempt lost its job, or its lease has run out.
        PermissionDenied: the function was not granted this secret.
    """
    for _ in range(records.TRIES):
        job, record = _live(ctx, claim)
        grant = Grant.of(stored_spec(ctx, job.id))
        if name not in grant.capabilities.secrets:
            raise _denied(job, f"the secret {name[:64]!r}")
        guard = [Check(record.key, record.rev)]
        try:
            secrets.record_read(ctx, job.tenant, grant.reference, name, job.id, began_ms=job.started_ms, guard=guard)
        except WriteConflict:
            continue  # a heartbeat, or its end
        return secrets.value(ctx, job.tenant, name)
    raise Unavailable(f"job {claim.job} is changing too fast", hint="try again", retry_after_s=1)


def operations(ctx: Context, job: Job, touched: Sequence[Touched] | None, *, kept: bool) -> list[Operation]:
    """What keeps the entries of an attempt in the transaction that accepts its outcome; ``kept``: it came to ``ok``.

    Raises:
        Conflict: an entry has changed since the attempt read it.
        InvalidRequest: the entries are missing, are not the function's to write, or out of bounds.
    """
    function = job.entries_of if kept else None
    if touched is None and function is None:
        return []
    if touched is None or function is None:
        # An agent of a release without entries would lose them, and say that all went well.
        message = "must be there: its function has entries" if function else "are kept of an end with ok and kv alone"
        raise InvalidRequest(f"kv {message}", fields=[FieldProblem("kv", message)])
    return kv.of_touched(ctx, job.tenant, function, [_fetched(ctx, job, each) for each in touched])


def _fetched(ctx: Context, job: Job, touched: Touched) -> Touched:
    if touched.blob is None:
        return touched
    size = ctx.blobs.size(job.tenant, touched.blob)
    try:
        if size is None or size > bounds.KV_VALUE_MAX:
            raise NotFound("not there, or too large")
        return replace(touched, value=ctx.blobs.get(job.tenant, touched.blob), blob=None)
    except NotFound:
        message = f"has a blob that was not uploaded, or is over {bounds.KV_VALUE_MAX} bytes"
        raise InvalidRequest(f"kv {message}", fields=[FieldProblem("kv", message)]) from None


def _live(ctx: Context, claim: Claim) -> tuple[Job, Record]:
    """The job, if the claim holds it and its lease has not run out, as the writer knows it."""
    record = ctx.store.get(keys.job(claim.job), fresh=True)
    if record is None:
        raise records.not_found(claim.job)
    job = Job.from_record(record.body)
    if not claim.holds(job) or (job.lease_until_ms or 0) <= ctx.clock.now_ms():
        raise claim.stale(job)
    return job, record


def _denied(job: Job, what: str) -> PermissionDenied:
    return PermissionDenied(f"job {job.id} was not granted {what}", hint="deploy its function with that capability")
