"""Receipts: what an attempt was and cost, with the proof that the platform has committed to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hanzo_compute.errors import Conflict, InternalError, NotFound
from hanzo_compute.model import keys, statement
from hanzo_compute.model.job import Job
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Body, Record
from hanzo_compute.services import log, pricing, records
from hanzo_compute.services.context import Context
from hanzo_compute.transparency.form import FORMAT


@dataclass(frozen=True, slots=True)
class Found:
    """A receipt, or None while its leaf waits for a checkpoint."""

    job: Job
    receipt: dict[str, Any] | None


def receipt(ctx: Context, tenant: str, job_id: str, attempt: int | None = None) -> Found:
    """The receipt of a job's end, or of an earlier attempt that was billed.

    Raises:
        NotFound: no such job, or no outcome of this attempt was accepted.
        Conflict: the job has not ended; or it ended before there were receipts.
    """
    job = records.find(ctx, job_id, tenant=tenant)
    if attempt is None and not job.state.terminal:
        raise Conflict(
            f"job {job_id} has not ended: it is {job.state}", hint=f"hzc logs -f {job_id}", state=job.state.value
        )
    leaf = _leaf(ctx, job, attempt)
    if leaf is None:
        return Found(job, None)
    newest = ctx.store.get(keys.checkpoint())
    index = leaf.body.get("index")
    if newest is None or index is None or index >= newest.body["size"]:
        return Found(job, None)
    return Found(job, _made(ctx, job, leaf, newest.body))


def _leaf(ctx: Context, job: Job, attempt: int | None) -> Record | None:
    """The record of the leaf; None when what was read is too old to show it."""
    if attempt is None:
        # The end without an outcome sorts after all attempts.
        rows = ctx.store.query(keys.job_partition(job.id), prefix=keys.LEAF, limit=1, reverse=True)
        if rows and rows[0].key in (keys.leaf(job.id, None), keys.leaf(job.id, job.attempt)):
            return rows[0]
        if job.tariff is None:
            raise Conflict(f"job {job.id} ended before this platform gave receipts", state=job.state.value)
        return None
    record = ctx.store.get(keys.leaf(job.id, attempt))
    if record is None:
        raise NotFound(f"no outcome of attempt {attempt} of job {job.id} was accepted", hint=f"hzc show {job.id}")
    return record


def _made(ctx: Context, job: Job, leaf: Record, newest: Body) -> dict[str, Any]:
    stored, attempt = leaf.body, Body()
    if "body" not in stored:  # that of an outcome lies with its attempt
        record = ctx.store.get(Key(leaf.key.pk, leaf.key.sk.replace(keys.LEAF, keys.ATTEMPT)))
        if record is None:
            raise InternalError(f"the attempt of leaf {leaf.key.sk} of job {job.id} is not there", hint="hzc doctor")
        attempt, stored = record.body, record.body["leaf"]
    made: dict[str, Any] = {
        "format": FORMAT,
        "leaf": {
            "salt": stored["salt"],
            "data": leaf.body["leaf"],
            "body": stored["body"],
            "fields": statement.field_digests(stored["body"]),
        },
        "proof": {
            "index": leaf.body["index"],
            "hashes": log.inclusion(ctx, leaf.body["index"], newest["size"]),
        },
        "checkpoint": newest["note"],
        "platform_key": str(log.verifier_key(ctx)),
    }
    if stored["body"]["statement"] is not None:
        stated = attempt["statement"]
        made |= {
            "statement": stated["body"],
            "fields": statement.field_digests(stated["body"]),
            "signature": stated["signature"],
            "agent_key": stated["key"],
            "rates": pricing.rates_of(ctx, job).as_json(),
        }
    return made
