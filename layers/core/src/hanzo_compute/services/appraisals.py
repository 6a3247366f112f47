"""Challenges and appraisals: a runner asks for a nonce, answers it with evidence, and gets a signed result.

A challenge is good once, for two minutes, and bound to a job's attempt and to the two keys of its runner. All that an
appraisal was made of is stored, so that it can be made again: evidence, collateral and policy.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute.attestation import AttestationResult, Binding, Verdict, appraise
from hanzo_compute.errors import FieldProblem, InvalidRequest, Rejected
from hanzo_compute.model import keys
from hanzo_compute.model.evidence import Evidence, Platform, gpu_digest
from hanzo_compute.model.job import Job
from hanzo_compute.model.spec import format_time
from hanzo_compute.model.statement import key_id
from hanzo_compute.ports import ABSENT, Body, Delete, FetchedCollateral, Put, Record, WriteConflict
from hanzo_compute.security import hpke, tokens
from hanzo_compute.services import lease, policies, records
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim

if TYPE_CHECKING:
    from hanzo_compute.attestation.tpm.public import PublicArea

CHALLENGE_MS: Final = 120_000
PURPOSE: Final = "key_release"
SHOWN: Final = 20
"""Appraisals of a job that are looked at."""
SPKI_MAX: Final = 256
"""Bytes of a P-256 public key as SubjectPublicKeyInfo, and more."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a runner: it signs with one, and what is sealed to the other only it can open."""

    signing: bytes
    """P-256, SubjectPublicKeyInfo in DER."""
    sealing: bytes
    """X25519, 32 bytes."""


def challenge(ctx: Context, claim: Claim, given: Keys) -> dict[str, Any]:
    """A nonce for the attempt that a runner holds.

    Raises:
        StaleFence: it does not hold it.
        InvalidRequest: the keys are none, or the attempt was leased with another signing key.
    """
    job = lease.held(ctx, claim)
    if len(given.sealing) != hpke.PUBLIC_BYTES:
        raise _invalid("sealing_key", f"is an X25519 public key of {hpke.PUBLIC_BYTES} bytes")
    if len(given.signing) > SPKI_MAX or job.agent_key not in (None, key_id(given.signing)):
        raise _invalid("signing_key", "is not the one with which the attempt was leased")
    now = ctx.clock.now_ms()
    nonce = base64.urlsafe_b64decode(ctx.ids.token() + "=")
    challenge_id, expires = ctx.ids.new("ac", now), now + CHALLENGE_MS
    body: Body = {
        "job": job.id,
        "attempt": job.attempt,
        "lessee": claim.lessee,
        "purpose": PURPOSE,
        "nonce": nonce.hex(),
        "signing_key": base64.b64encode(given.signing).decode(),
        "sealing_key": given.sealing.hex(),
        "expires_ms": expires,
    }
    at = keys.challenge(challenge_id)
    ctx.store.transact([Put(at, body, expect=ABSENT, index={keys.BY_DUE: keys.expiry_entry(expires, at)})])
    return {"id": challenge_id, "nonce": nonce.hex(), "purpose": PURPOSE, "expires_at": format_time(expires)}


def activation(ctx: Context, lessee: str, challenge_id: str, ek: bytes, ak: bytes) -> dict[str, Any]:
    """A credential for the TPM of a runner that was challenged: only who has both keys in one TPM opens it.

    Args:
        ek: the endorsement key's public area (TPM2B_PUBLIC).
        ak: the attestation key's.

    Raises:
        Rejected: the challenge is not known, or has a credential already.
        InvalidRequest: they are no such keys.
    """
    from hanzo_compute.attestation.tpm.credential import make_credential

    record = _open(ctx, lessee, challenge_id)
    if "activation" in record.body:
        raise _spent()
    endorsement, attestation = _area(ek, "ek_tpm2b"), _area(ak, "ak_tpm2b")
    secret = base64.urlsafe_b64decode(ctx.ids.token() + "=")
    made = make_credential(endorsement, attestation.name, secret)
    # The names of the keys that it was made for, and not the secret: who reads the store learns nothing of use.
    names = {"ek": endorsement.name.hex(), "ak": attestation.name.hex()}
    kept = {**names, "secret": hashlib.sha256(secret).hexdigest()}
    body = record.body | {"activation": kept}
    expiry = keys.expiry_entry(record.body["expires_ms"], record.key)
    try:
        ctx.store.transact([Put(record.key, body, expect=record.rev, index={keys.BY_DUE: expiry})])
    except WriteConflict:
        raise _spent() from None
    return {"credential": base64.b64encode(made.blob + made.secret).decode()}


def present(
    ctx: Context, lessee: str, challenge_id: str, evidence: Sequence[Evidence], activated: bytes | None = None
) -> dict[str, Any]:
    """Appraise what answers a challenge, whose nonce is used up with that; the signed result and its verdict tree.

    ``activated`` is the secret of the challenge's credential.

    Raises:
        Rejected: the challenge is not known, has expired, was used, or is of another runner.
        StaleFence: the attempt lost its job meanwhile.
        InvalidRequest: it is no evidence.
    """
    record, now = _open(ctx, lessee, challenge_id), ctx.clock.now_ms()
    at, asked = record.key, record.body
    job = lease.held(ctx, Claim(asked["job"], asked["attempt"], lessee))
    binding = Binding(
        nonce=bytes.fromhex(asked["nonce"]),
        signing_key=base64.b64decode(asked["signing_key"]),
        sealing_key=bytes.fromhex(asked["sealing_key"]),
        gpu_digest=gpu_digest(evidence),
    )
    policy = policies.current(ctx, job.tenant)
    fetched = FetchedCollateral({}) if ctx.collateral is None else ctx.collateral.fetch(evidence, now)
    collateral = fetched.files
    opened = _activated(asked, activated)
    result = appraise(evidence, policy, collateral, now, binding=binding, activated=opened)
    appraisal_id = ctx.ids.new("ar", now)
    stored = _stored(evidence, collateral, policy.model_dump(mode="json"), binding, opened, now)
    claims = _claims(ctx, appraisal_id, job, asked, result)
    body: Body = {
        "id": appraisal_id,
        "job": job.id,
        "attempt": job.attempt,
        "at_ms": now,
        "verdict": result.verdict.value,
        "tier": int(result.tier),
        "reasons": list(result.reasons),
        "policy": result.policy,
        "policy_digest": result.policy_digest,
        "evidence": claims["evidence"],
        "sealing_key": asked["sealing_key"],
        "bundle": ctx.blobs.put(job.tenant, stored),
    }
    try:
        ctx.store.transact(
            [Delete(at, expect=record.rev), Put(keys.appraisal(job.id, appraisal_id), body, expect=ABSENT)]
        )
    except WriteConflict:
        raise _spent() from None
    missing = [{"platform": each.platform.value, "name": each.name, "reason": each.reason} for each in fetched.missing]
    token = tokens.issue(ctx.vault, claims)
    return {"id": appraisal_id, "token": token, "result": result.as_json(), "missing_collateral": missing}


def _open(ctx: Context, lessee: str, challenge_id: str) -> Record:
    """The record of a challenge that still waits for its evidence. Raises Rejected."""
    record = ctx.store.get(keys.challenge(challenge_id), fresh=True)
    if record is None or record.body["lessee"] != lessee or record.body["expires_ms"] <= ctx.clock.now_ms():
        raise _spent()
    return record


def _activated(asked: Body, secret: bytes | None) -> list[tuple[bytes, bytes]]:
    """The names of the endorsement and the attestation key whose credential was opened."""
    kept = asked.get("activation")
    if kept is None or secret is None or hashlib.sha256(secret).hexdigest() != kept["secret"]:
        return []
    return [(bytes.fromhex(kept["ek"]), bytes.fromhex(kept["ak"]))]


def _area(data: bytes, name: str) -> PublicArea:
    from hanzo_compute.attestation.checks import Unreadable
    from hanzo_compute.attestation.tpm import public

    try:
        area = public.load(data, name)[1]
    except Unreadable as error:
        raise _invalid(name, f"is no public area of a TPM's key: {error}") from None
    if area is None:
        raise _invalid(name, "is no public area of a TPM's key")
    return area


def shown(ctx: Context, tenant: str, job_id: str) -> list[dict[str, Any]]:
    """The appraisals of a job's runners, the newest first, each with the blob that it can be made again from.

    Raises:
        NotFound: no such job.
    """
    job = records.find(ctx, job_id, tenant=tenant)
    return [
        {name: value for name, value in body.items() if name != "at_ms"} | {"at": format_time(body["at_ms"])}
        for body in of_job(ctx, job.id)
    ]


def of_job(ctx: Context, job_id: str) -> list[Body]:
    """The records of a job's last appraisals, the newest first."""
    partition = keys.attestation_partition(job_id)
    rows = ctx.store.query(partition, after=keys.appraisal(job_id, "~").sk, limit=SHOWN, reverse=True)
    return [row.body for row in rows if row.key.sk.startswith(keys.appraisal(job_id, "").sk)]


def _claims(ctx: Context, appraisal_id: str, job: Job, asked: Body, result: AttestationResult) -> dict[str, Any]:
    now_s = ctx.clock.now_ms() // 1000
    accepted = result.verdict is Verdict.ACCEPT
    evidence = [bytes.fromhex(each) for each in sorted(result.evidence)]
    return {
        "eat_profile": tokens.PROFILE,
        "jti": appraisal_id,
        "iat": now_s,
        "exp": now_s + tokens.LIFE_S,
        "purpose": asked["purpose"],
        "job": job.id,
        "attempt": job.attempt,
        "lessee": asked["lessee"],
        "cnf": {"jkt": key_id(base64.b64decode(asked["signing_key"]))},
        "sealing_key": asked["sealing_key"],
        "verdict": result.verdict.value,
        "ear_status": "affirming" if accepted else "contraindicated",
        "tier": int(result.tier),
        "reasons": list(result.reasons),
        "policy": result.policy,
        "policy_digest": result.policy_digest,
        "evidence": _digest(evidence),
    }


def _digest(evidence: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(evidence)).hexdigest()


def _stored(
    evidence: Sequence[Evidence],
    collateral: Mapping[Platform, Mapping[str, bytes]],
    policy: dict[str, Any],
    binding: Binding,
    activated: Sequence[tuple[bytes, bytes]],
    now_ms: int,
) -> bytes:
    """All that the appraisal was made of, as JSON."""
    document = {
        "evidence": [{"platform": each.platform.value, "files": _files(each.files)} for each in evidence],
        "collateral": {platform.value: _files(files) for platform, files in collateral.items()},
        "policy": policy,
        "binding": {
            "nonce": binding.nonce.hex(),
            "signing_key": base64.b64encode(binding.signing_key).decode(),
            "sealing_key": binding.sealing_key.hex(),
            "gpu_digest": binding.gpu_digest.hex(),
        },
        "activated": [[name.hex() for name in pair] for pair in activated],
        "now_ms": now_ms,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _files(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(data).decode() for name, data in files.items()}


def _spent() -> Rejected:
    return Rejected(
        "the challenge is not known: it was used, has expired, or is of another runner",
        hint="ask for a new one: POST /v1/attestation/challenges",
        name="challenge",
    )


def _invalid(field: str, message: str) -> InvalidRequest:
    problem = FieldProblem(field, message)
    return InvalidRequest(f"{field} {message}", fields=[problem])
