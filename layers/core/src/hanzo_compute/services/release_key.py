"""The key broker: a job's data key, sealed to the one runner that proved itself for one attempt.

The requester deposits the key of a job of tier 0 or 1, and it is kept under the vault, bound to tenant and job. For a
higher tier the broker, which is not attested itself, never has it: the requester's client looks at the evidence, and
seals the key to the runner. Either way there is one recipient for each attempt, who asks again gets the same bytes,
and each decision becomes a leaf of the transparency log, with every reason.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from typing import Any, Final, NoReturn

from hanzo_compute.errors import Conflict, FieldProblem, InvalidRequest, NotFound, Rejected, Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.evidence import Tier
from hanzo_compute.model.job import Job
from hanzo_compute.ports import ABSENT, Body, Check, Put, WriteConflict
from hanzo_compute.security import envelope, hpke, tokens
from hanzo_compute.services import appraisals, lease, leaves, policies, records
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim

KEY_BYTES: Final = 32
BROKER_TIER: Final = Tier.AT_REST
"""The highest tier whose keys this broker holds: it is not attested itself."""
SEALED_BYTES: Final = 80
"""Encapsulated key (32), ciphertext (32) and tag (16)."""
BROKER: Final = "broker"
REQUESTER: Final = "requester"


def deposit(ctx: Context, tenant: str, job_id: str, key: bytes) -> dict[str, Any]:
    """Give the broker the data key of a job of tier 0 or 1. Giving the same key again is answered alike.

    Raises:
        NotFound: no such job.
        InvalidRequest: it is not the key that the job's ``data_key`` names.
        Rejected: the job's tier is above the broker's.
        Conflict: the job has ended, or takes no key.
    """
    job = _takes_key(records.find(ctx, job_id, tenant=tenant))
    if job.tier > BROKER_TIER:
        raise Rejected(
            f"keys of tier {job.tier} are not for the platform: it is not attested itself",
            hint=f"hzc key release {job.id} judges the runner's evidence here and seals the key to it",
            name="broker_not_attested",
        )
    if len(key) != KEY_BYTES or not hmac.compare_digest(hashlib.sha256(key).hexdigest(), job.data_key or ""):
        problem = FieldProblem("key", "is not the one whose SHA-256 the job's data_key is")
        raise InvalidRequest(f"key {problem.message}", fields=[problem])
    epoch = ctx.policy.key_epoch
    body = envelope.seal(ctx.vault, _context(job, epoch), key) | {"epoch": epoch}
    at = keys.data_key(job.id)
    for _ in range(records.TRIES):
        record = ctx.store.get(keys.job(job.id), fresh=True)
        if record is None:
            raise records.not_found(job.id)
        _takes_key(Job.from_record(record.body))
        try:
            # Nobody would remove the key of a job that has ended meanwhile.
            ctx.store.transact([Check(record.key, record.rev), Put(at, body, expect=ABSENT)])
        except WriteConflict as conflict:
            if at not in conflict.current:
                continue
        return {"job": job.id, "data_key": job.data_key}  # it may be there: only one key has this digest
    raise Unavailable(f"job {job.id} is changing too fast", hint="try again", retry_after_s=1)


def entrust(ctx: Context, tenant: str, job_id: str, attempt: int, recipient: bytes, sealed: bytes) -> dict[str, Any]:
    """Pass on the key that the requester has sealed to the runner of an attempt.

    Raises:
        NotFound: no such job.
        StaleFence: another attempt holds the job.
        Conflict: the key of this attempt went to another recipient.
        Rejected: no evidence of this runner was accepted.
        InvalidRequest: it is no sealed key.
    """
    job = _takes_key(records.find(ctx, job_id, tenant=tenant, fresh=True))
    if len(sealed) != SEALED_BYTES:
        problem = FieldProblem("sealed", f"has {SEALED_BYTES} bytes: encapsulated key and ciphertext")
        raise InvalidRequest(f"sealed {problem.message}", fields=[problem])
    held = Claim(job_id, attempt, job.lessee or "")
    if not held.holds(job):
        raise held.stale(job)
    appraised = _appraised(ctx, job, recipient)
    if appraised is None:
        _refuse(ctx, job, {"sealing_key": recipient.hex()}, ["not_attested"], by=REQUESTER)
    return _release(ctx, held, recipient, sealed, appraised, by=REQUESTER)


def release(ctx: Context, claim: Claim, token: str) -> dict[str, Any]:
    """The data key for the attempt that a runner holds, sealed to the key that its evidence commits to.

    Raises:
        StaleFence: it does not hold it.
        Rejected: the result is none, is of another attempt, or does not suffice; every reason is in ``reasons``.
        NotFound: the requester has not given the key yet (``key_pending``).
        Conflict: the key of this attempt went to another recipient.
    """
    job = _takes_key(lease.held(ctx, claim))
    try:
        claims = tokens.verify(ctx.vault, token, ctx.clock.now_ms())
    except Rejected as error:
        _refuse(ctx, job, {}, ["attestation_result"], why=error.message)
    reasons = _refusals(ctx, job, claim, claims)
    if reasons:
        _refuse(ctx, job, claims, reasons)
    recipient = bytes.fromhex(claims["sealing_key"])
    earlier = _released(ctx, job, recipient)
    if earlier is not None:
        return earlier
    if job.tier > BROKER_TIER:
        raise _pending(job, "its requester has not sealed it to this runner yet")
    record = ctx.store.get(keys.data_key(job.id), fresh=True)
    if record is None:
        raise _pending(job, "its requester has not deposited it yet")
    key = envelope.unseal(ctx.vault, _context(job, record.body["epoch"]), record.body)
    sealed = hpke.seal(recipient, key, hpke.info(job.id, job.attempt))
    return _release(ctx, claim, recipient, sealed, claims, by=BROKER)


def _refusals(ctx: Context, job: Job, claim: Claim, claims: Body) -> list[str]:
    """Every reason for which a result does not open a job's key."""
    policy = policies.current(ctx, job.tenant)
    wrong = {
        "other_purpose": claims["purpose"] != appraisals.PURPOSE,
        "other_job": claims["job"] != job.id,
        "other_attempt": claims["attempt"] != claim.attempt,
        "other_runner": claims["lessee"] != claim.lessee or job.agent_key not in (None, claims["cnf"]["jkt"]),
        "policy_changed": claims["policy_digest"] != policy.digest(),
        "policy_releases_no_keys": not policy.release_keys,
        "not_accepted": claims["verdict"] != "accept",
        "tier_too_low": claims["tier"] < job.tier,
    }
    found = [name for name, holds in wrong.items() if holds]
    return found + (list(claims["reasons"]) if "not_accepted" in found else [])


def _refuse(ctx: Context, job: Job, proof: Body, reasons: list[str], *, by: str = BROKER, why: str = "") -> NoReturn:
    """Write a refusal down, with every reason, and raise it."""
    ctx.store.transact([_row(ctx, job, proof, reasons, by)])
    raise Rejected(
        f"the key of job {job.id} is not released: {why or ', '.join(reasons)}",
        hint="GET /v1/jobs/{id}/attestations shows the requester what was presented, and why it was refused",
        name=reasons[0],
        reasons=reasons,
    )


def _release(ctx: Context, claim: Claim, recipient: bytes, sealed: bytes, proof: Body, *, by: str) -> dict[str, Any]:
    """Write down the one sealed key of an attempt, with the decision, and with what the job's statement says of it."""
    body: Body = {
        "job": claim.job,
        "attempt": claim.attempt,
        "recipient": recipient.hex(),
        "sealed": base64.b64encode(sealed).decode(),
        "tier": proof["tier"],
        "evidence": proof["evidence"],
    }

    def decide(job: Job) -> records.Change | None:
        if not claim.holds(job):
            raise claim.stale(job)
        return records.Change(
            replace(job, delivered=proof["tier"], evidence=proof["evidence"]),
            "key_released",
            {"tier": proof["tier"], "by": by},
            operations=[
                Put(keys.key_release(job.id, job.attempt), body, expect=ABSENT),
                _row(ctx, job, proof, [], by),
            ],
        )

    try:
        job = records.change(ctx, claim.job, decide)
    except WriteConflict:
        job = records.find(ctx, claim.job, fresh=True)
        earlier = _released(ctx, job, recipient)
        if earlier is None:
            raise Unavailable(f"job {job.id} is changing too fast", hint="try again", retry_after_s=1) from None
        return earlier
    return body | {"data_key": job.data_key}


def _released(ctx: Context, job: Job, recipient: bytes) -> dict[str, Any] | None:
    """What was released for this attempt before: the same bytes for the same recipient.

    Raises:
        Conflict: it went to another.
    """
    record = ctx.store.get(keys.key_release(job.id, job.attempt), fresh=True)
    if record is None:
        return None
    if record.body["recipient"] != recipient.hex():
        ctx.store.transact([_row(ctx, job, {"sealing_key": recipient.hex()}, ["other_recipient"], BROKER)])
        raise Conflict(
            f"the key for attempt {job.attempt} of job {job.id} went to another recipient",
            hint="give the attempt back: the next one may have another key",
            name="other_recipient",
        )
    return record.body | {"data_key": job.data_key}


def _appraised(ctx: Context, job: Job, recipient: bytes) -> Body | None:
    """The newest accepted appraisal of this attempt for a recipient."""
    for body in appraisals.of_job(ctx, job.id):
        mine = body["attempt"] == job.attempt and body["sealing_key"] == recipient.hex()
        if mine and body["verdict"] == "accept" and body["tier"] >= job.tier:
            return body
    return None


def _row(ctx: Context, job: Job, proof: Body, reasons: list[str], by: str) -> Put:
    """The audit row of a decision: a leaf of the transparency log."""
    decided = {
        "job": job.id,
        "attempt": job.attempt,
        "decision": "refused" if reasons else "released",
        "by": by,
        "reasons": reasons,
        "agent": job.agent,
        "recipient": proof.get("sealing_key"),
        "tier": {"requested": job.tier, "proved": proof.get("tier")},
        "policy": proof.get("policy"),
        "policy_digest": proof.get("policy_digest"),
        "evidence": proof.get("evidence"),
    }
    leaf = leaves.of_decision(ctx, job.tenant, decided)
    return leaf.put_at(keys.decision(job.id, ctx.ids.new("ad", ctx.clock.now_ms())), **leaf.as_json())


def _takes_key(job: Job) -> Job:
    if job.data_key is None:
        raise Conflict(f"job {job.id} has no data_key: nothing of it is sealed", name="no_data_key")
    if job.state.terminal:
        raise Conflict(f"job {job.id} has ended: it is {job.state}", name="ended")
    return job


def _pending(job: Job, why: str) -> NotFound:
    return NotFound(f"the key of job {job.id} is not there: {why}", hint="ask again", name="key_pending")


def _context(job: Job, epoch: int) -> dict[str, str]:
    return {"tenant": job.tenant, "job": job.id, "purpose": "data_key", "epoch": str(epoch)}
