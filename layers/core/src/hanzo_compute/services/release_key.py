"""The key broker: a job's data key, sealed to the one runner that proved itself for one attempt.

The requester deposits the key of a job of tier 0 or 1, and it is kept under the vault, bound to tenant and job. For a
higher tier the broker, which is not attested itself, never has it: the requester's client looks at the evidence, and
seals the key to the runner. Either way there is one recipient for each attempt, and who asks again gets the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from typing import Any, Final

from hanzo_compute.errors import Conflict, FieldProblem, InvalidRequest, NotFound, Rejected
from hanzo_compute.model import keys
from hanzo_compute.model.evidence import Tier
from hanzo_compute.model.job import Job
from hanzo_compute.ports import ABSENT, Body, Put, WriteConflict
from hanzo_compute.security import envelope, hpke, tokens
from hanzo_compute.services import lease, leaves, policies, records
from hanzo_compute.services.appraisals import PURPOSE
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim

KEY_BYTES: Final = 32
BROKER_TIER: Final = Tier.AT_REST
"""The highest tier whose keys this broker holds: it is not attested itself."""
SEALED_BYTES: Final = 80
"""Encapsulated key (32), ciphertext (32) and tag (16)."""


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
    body = envelope.seal(ctx.vault, _context(job, ctx.policy.key_epoch), key) | {"epoch": ctx.policy.key_epoch}
    try:
        ctx.store.transact([Put(keys.data_key(job.id), body, expect=ABSENT)])
    except WriteConflict:
        pass  # it is there: there is but one key with this digest
    return {"job": job.id, "data_key": job.data_key}


def entrust(ctx: Context, tenant: str, claim: Claim, recipient: bytes, sealed: bytes) -> dict[str, Any]:
    """Pass on the key that the requester has sealed to the runner of an attempt (``claim.lessee`` is not looked at).

    Raises:
        NotFound: no such job.
        Conflict: another attempt holds the job, or the key of this one went to another recipient.
        Rejected: no accepted appraisal of this runner is known.
        InvalidRequest: it is no sealed key.
    """
    job = _takes_key(records.find(ctx, claim.job, tenant=tenant, fresh=True))
    if len(sealed) != SEALED_BYTES:
        problem = FieldProblem("sealed", f"has {SEALED_BYTES} bytes: encapsulated key and ciphertext")
        raise InvalidRequest(f"sealed {problem.message}", fields=[problem])
    if job.lessee is None or not (held := replace(claim, lessee=job.lessee)).holds(job):
        raise claim.stale(job)
    appraised = _appraised(ctx, job, recipient)
    if appraised is None or appraised["tier"] < job.tier:
        raise Rejected(
            f"no evidence of this runner was accepted for tier {job.tier} of job {job.id}",
            hint="GET /v1/jobs/{id}/attestations shows what was presented, and why it was refused",
            name="not_attested",
        )
    return _release(ctx, held, recipient, sealed, appraised, by="requester")


def release(ctx: Context, claim: Claim, token: str) -> dict[str, Any]:
    """The data key for the attempt that a runner holds, sealed to the key that its evidence commits to.

    Raises:
        StaleFence: it does not hold it.
        Rejected: the result is none, is of another attempt, or does not suffice; every reason is in ``reasons``.
        Conflict: the key is not there yet (``key_pending``), or went to another recipient.
    """
    job = _takes_key(lease.held(ctx, claim))
    claims = tokens.verify(ctx.vault, token, ctx.clock.now_ms())
    reasons = _refusals(ctx, job, claim, claims)
    if reasons:
        decided = _decision(job, claims, "refused", reasons)
        leaf = leaves.of_decision(ctx, job.tenant, decided)
        at = keys.decision(job.id, ctx.ids.new("ad", ctx.clock.now_ms()))
        ctx.store.transact([leaf.put_at(at, **leaf.as_json())])
        raise Rejected(
            f"the key of job {job.id} is not released: {', '.join(reasons)}", name=reasons[0], reasons=reasons
        )
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
    return _release(ctx, claim, recipient, sealed, claims, by="broker")


def _refusals(ctx: Context, job: Job, claim: Claim, claims: Body) -> list[str]:
    """Every reason for which a result does not open a job's key."""
    policy = policies.current(ctx, job.tenant)
    wrong = {
        "other_purpose": claims["purpose"] != PURPOSE,
        "other_job": claims["job"] != job.id,
        "other_attempt": claims["attempt"] != claim.attempt,
        "other_runner": claims["lessee"] != claim.lessee
        or claims["cnf"]["jkt"] != (job.agent_key or claims["cnf"]["jkt"]),
        "policy_changed": claims["policy_digest"] != policy.digest(),
        "policy_releases_no_keys": not policy.release_keys,
        "not_accepted": claims["verdict"] != "accept",
        "tier_too_low": claims["tier"] < job.tier,
    }
    found = [name for name, holds in wrong.items() if holds]
    return found + (list(claims["reasons"]) if "not_accepted" in found else [])


def _release(ctx: Context, claim: Claim, recipient: bytes, sealed: bytes, proof: Body, *, by: str) -> dict[str, Any]:
    """Write down the one sealed key of an attempt, with the decision and what it proves for the job's statement."""
    body: Body = {
        "job": claim.job,
        "attempt": claim.attempt,
        "recipient": recipient.hex(),
        "sealed": base64.b64encode(sealed).decode(),
        "tier": proof["tier"],
        "evidence": proof["evidence"],
        "by": by,
    }

    def decide(job: Job) -> records.Change | None:
        if not claim.holds(job):
            raise claim.stale(job)
        leaf = leaves.of_decision(ctx, job.tenant, _decision(job, proof, "released", [], by=by))
        at = keys.decision(job.id, ctx.ids.new("ad", ctx.clock.now_ms()))
        return records.Change(
            replace(job, delivered=proof["tier"], evidence=proof["evidence"]),
            "key_released",
            {"tier": proof["tier"], "by": by},
            operations=[
                Put(keys.key_release(job.id, job.attempt), body, expect=ABSENT),
                leaf.put_at(at, **leaf.as_json()),
            ],
        )

    try:
        job = records.change(ctx, claim.job, decide)
    except WriteConflict:
        job = records.find(ctx, claim.job, fresh=True)
        earlier = _released(ctx, job, recipient)
        if earlier is None:
            raise
        return earlier
    return _view(body, job)


def _released(ctx: Context, job: Job, recipient: bytes) -> dict[str, Any] | None:
    """What was released for this attempt before: the same bytes for the same recipient.

    Raises:
        Conflict: it went to another.
    """
    record = ctx.store.get(keys.key_release(job.id, job.attempt), fresh=True)
    if record is None:
        return None
    if record.body["recipient"] != recipient.hex():
        raise Conflict(
            f"the key for attempt {job.attempt} of job {job.id} went to another recipient",
            hint="give the attempt back: the next one may have another key",
            name="other_recipient",
        )
    return _view(record.body, job)


def _view(body: Body, job: Job) -> dict[str, Any]:
    return {name: body[name] for name in ("job", "attempt", "recipient", "sealed", "tier", "evidence")} | {
        "data_key": job.data_key
    }


def _appraised(ctx: Context, job: Job, recipient: bytes) -> Body | None:
    """The newest accepted appraisal of this attempt for a recipient."""
    rows = ctx.store.query(keys.attestation_partition(job.id), after="APPRAISAL#~", limit=20, reverse=True)
    for row in rows:
        body = row.body
        mine = row.key.sk.startswith("APPRAISAL#") and body["attempt"] == job.attempt
        if mine and body["sealing_key"] == recipient.hex() and body["verdict"] == "accept":
            return body
    return None


def _decision(job: Job, proof: Body, decided: str, reasons: list[str], *, by: str = "broker") -> Body:
    return {
        "job": job.id,
        "attempt": job.attempt,
        "decision": decided,
        "by": by,
        "reasons": reasons,
        "agent": job.agent,
        "recipient": proof["sealing_key"],
        "tier": {"requested": job.tier, "proved": proof["tier"]},
        "policy": proof["policy"],
        "policy_digest": proof["policy_digest"],
        "evidence": proof["evidence"],
    }


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
