"""Appraisal: evidence, policy, collateral and a time make an attestation result. Nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from hanzo_compute.attestation.binding import Binding
from hanzo_compute.attestation.checks import Check, Context, Findings, Group, Unreadable
from hanzo_compute.attestation.policy import Policy
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.evidence import NO_GPU, Evidence, Platform, Tier, gpu_digest

Examine = Callable[[Mapping[str, bytes], Context], Findings]
Collateral = Mapping[Platform, Mapping[str, bytes]]
"""Endorsements and reference values by platform and the name of their file: what the evidence did not bring itself."""

NOW_MAX_MS: Final = 253_402_300_799_999
BUNDLE_MAX: Final = 32
"""Pieces of evidence of one attester: a CPU, a TPM, GPUs and switches."""
_CPU: Final = frozenset({Platform.SNP, Platform.TDX, Platform.NITRO})
_PADDED: Final = frozenset({Platform.SNP, Platform.TDX, Platform.SGX})


class Verdict(StrEnum):
    """What an appraisal comes to."""

    ACCEPT = "accept"
    REJECT = "reject"
    UNAVAILABLE = "unavailable"
    """It cannot be said: collateral is missing, with which nothing else speaks against it."""


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """The outcome of an appraisal, with every check that led to it."""

    verdict: Verdict
    authentic: bool
    """Whether signatures and chains are good, to a pinned root or an anchor that was handed in."""
    tier: Tier
    """The highest that the evidence proves; 0 unless it is accepted."""
    tier_why: str
    """Why not the next."""
    reasons: tuple[str, ...]
    """Ids of the checks for which it is not accepted."""
    checks: tuple[Check, ...]
    claims: Mapping[str, Any] = field(repr=False)
    """What each piece says, by its platform; of several of one platform, a list."""
    evidence: tuple[str, ...]
    """Digests of what was appraised."""
    policy: str
    """``name@version``."""
    policy_digest: str
    now_ms: int

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return {
            "authentic": self.authentic,
            "verdict": self.verdict.value,
            "tier": int(self.tier),
            "tier_why": self.tier_why,
            "reasons": list(self.reasons),
            "checks": [each.as_json() for each in self.checks],
            "claims": dict(self.claims),
            "evidence": list(self.evidence),
            "policy": self.policy,
            "policy_digest": self.policy_digest,
            "now_ms": self.now_ms,
        }


def appraise(
    evidence: Evidence | Sequence[Evidence],
    policy: Policy,
    collateral: Collateral,
    now_ms: int | None,
    *,
    nonce: bytes | None = None,
    binding: Binding | None = None,
    anchors: Sequence[bytes] = (),
    activated: Collection[tuple[bytes, bytes]] = (),
) -> AttestationResult:
    """Appraise the evidence of one attester.

    Args:
        evidence: one piece, or all pieces of one attester: CPU, TPM, GPUs.
        policy: what it must show.
        collateral: what it did not bring itself.
        now_ms: the time to judge at, milliseconds since the epoch.
        nonce: what it must answer, in the platform's own field.
        binding: what it must commit to; its nonce is the platform's then.
        anchors: certificates that count as roots beside the pinned ones, for looking: under a policy that keys are
            released on they do not count.
        activated: names of the TPM endorsement key and attestation key that the verifier saw activated, in pairs
            (``tpm.credential``).

    Raises:
        InvalidRequest: there is no evidence, too much of it, no time, or an anchor that is no certificate: nothing
            can be judged then.
    """
    bundle = (evidence,) if isinstance(evidence, Evidence) else tuple(evidence)
    if not 1 <= len(bundle) <= BUNDLE_MAX:
        raise InvalidRequest(f"one attester has 1 to {BUNDLE_MAX} pieces of evidence; these are {len(bundle)}")
    if now_ms is None or not 0 < now_ms <= NOW_MAX_MS:
        raise InvalidRequest("an appraisal needs the time", hint="without a clock no certificate can be judged")
    _check_anchors(anchors)
    trusted = () if policy.release_keys else tuple(anchors)
    context = Context(now_ms, policy, nonce, binding, trusted, frozenset(activated))
    found = [_examined(each, collateral, context) for each in bundle]
    if len(trusted) < len(anchors):
        text = "the anchors do not count: keys are released under this policy, and so it trusts pinned roots alone"
        found[0].check("bundle.anchors", Group.POLICY, None, text, source="policy: release_keys", required=False)
    return _result(bundle, found, context)


def _check_anchors(anchors: Sequence[bytes]) -> None:
    if not anchors:
        return
    from hanzo_compute.attestation import x509

    for anchor in anchors:
        try:
            x509.load(anchor)
        except ValueError as error:
            raise InvalidRequest(f"an anchor is no certificate, in PEM or DER: {str(error)[:200]}") from None


def refused(platform: Platform, why: str, policy: Policy, now_ms: int) -> AttestationResult:
    """The result for what was presented as evidence and is none: a file is too large, say."""
    findings = Findings().unreadable(f"{platform.value}.format", why)
    return _result((), [findings], Context(now_ms, policy))


def _result(bundle: Sequence[Evidence], found: Sequence[Findings], context: Context) -> AttestationResult:
    whole = Findings()
    tier, why = _tier(bundle, found, whole, context)
    checks = (*(check for findings in found for check in findings.checks), *whole.checks)
    verdict, reasons = _verdict(checks)
    if verdict is not Verdict.ACCEPT:
        tier, why = Tier.OPEN, "the evidence is not accepted"
    return AttestationResult(
        verdict=verdict,
        authentic=not [check for check in checks if check.group is Group.GENUINE and check.ok is not True],
        tier=tier,
        tier_why=why,
        reasons=reasons,
        checks=checks,
        claims=_claims(bundle, found),
        evidence=tuple(each.digest() for each in bundle),
        policy=f"{context.policy.name}@{context.policy.version}",
        policy_digest=context.policy.digest(),
        now_ms=context.now_ms,
    )


def _examined(evidence: Evidence, collateral: Collateral, context: Context) -> Findings:
    platform = evidence.platform
    if getattr(context.policy, platform.value) is None:
        findings = Findings()
        text = f"the policy {context.policy.name} does not accept evidence of {platform.value}"
        findings.check(f"{platform.value}.platform", Group.POLICY, False, text, source=f"policy: {platform.value}")
        # Whether it is genuine was not looked at, and what was not looked at is not genuine.
        findings.check(f"{platform.value}.examined", Group.GENUINE, None, "not examined")
        return findings
    files = {**evidence.files, **collateral.get(platform, {})}
    try:
        findings = _examine(platform)(files, context)
    except Unreadable as error:
        return Findings().unreadable(f"{platform.value}.format", str(error))
    _fresh(findings, platform, context)
    _bound(findings, platform, context)
    return findings


def _examine(platform: Platform) -> Examine:
    """The checks of a platform: each loads what it needs, when it is needed."""
    match platform:
        case Platform.SNP:
            from hanzo_compute.attestation.snp import examine as snp

            return snp.examine
        case Platform.TDX:
            from hanzo_compute.attestation.tdx import examine as tdx

            return tdx.examine_tdx
        case Platform.SGX:
            from hanzo_compute.attestation.tdx import examine as sgx

            return sgx.examine_sgx
        case Platform.NITRO:
            from hanzo_compute.attestation.nitro import examine as nitro

            return nitro.examine
        case Platform.NVIDIA:
            from hanzo_compute.attestation.nvidia import examine as nvidia

            return nvidia.examine
        case Platform.TPM:
            from hanzo_compute.attestation.tpm import examine as tpm

            return tpm.examine


def _fresh(findings: Findings, platform: Platform, context: Context) -> None:
    """Does it answer the challenge? With a binding the nonce is part of what it commits to (see _bound)."""
    name, source = f"{platform.value}.nonce", "policy: require.freshness"
    if context.nonce is not None:
        expected = context.nonce.ljust(64, b"\0") if platform in _PADDED else context.nonce
        actual = findings.nonce if platform is Platform.NITRO else findings.commitment
        ok = actual == expected
        text = "answers the nonce" if ok else "does not answer the nonce that it was asked with"
        findings.check(name, Group.FRESH, ok, text, expected=expected, actual=actual, source=source)
    elif context.binding is None:
        text = "no nonce was given: it may be of any time"
        required = context.policy.require.freshness
        actual = findings.nonce if platform is Platform.NITRO else findings.commitment
        findings.check(name, Group.FRESH, None, text, actual=actual, source=source, required=required)
    elif platform is Platform.NITRO:
        ok = findings.nonce == context.binding.nonce
        text = "answers the nonce" if ok else "does not answer the nonce that it was asked with"
        findings.check(
            name, Group.FRESH, ok, text, expected=context.binding.nonce, actual=findings.nonce, source=source
        )


def _bound(findings: Findings, platform: Platform, context: Context) -> None:
    name, source = f"{platform.value}.binding", "policy: require.binding"
    if context.binding is None:
        text = "no keys were given that it could commit to"
        findings.check(name, Group.BOUND, None, text, source=source, required=context.policy.require.binding)
        return
    match platform:
        case Platform.NVIDIA:
            expected = context.binding.gpu_nonce()
        case Platform.TPM:
            expected = context.binding.qualifying_data()
        case _:
            expected = context.binding.report_data()
    ok = findings.commitment == expected
    text = "commits to nonce, keys and GPUs" if ok else "commits to another nonce, other keys or other GPUs"
    findings.check(name, Group.BOUND, ok, text, expected=expected, actual=findings.commitment, source=source)


def _tier(bundle: Sequence[Evidence], found: Sequence[Findings], whole: Findings, context: Context) -> tuple[Tier, str]:
    """The tier of all pieces together, and why not the next; what holds only of all of them is checked here."""
    if not bundle:
        return Tier.OPEN, "there is no evidence"
    cpus = [each for item, each in zip(bundle, found, strict=True) if item.platform is not Platform.NVIDIA]
    gpus = [item for item in bundle if item.platform is Platform.NVIDIA]
    processors = [item for item in bundle if item.platform in _CPU]
    if len(processors) > 1:
        text = "evidence of several CPUs: one attester runs on one"
        whole.check("bundle.one_cpu", Group.POLICY, False, text, actual=len(processors))
    best = max(cpus, key=lambda each: each.tier, default=None)
    tier, why = (best.tier, best.tier_why) if best else (Tier.OPEN, "a GPU by itself proves nothing about its machine")
    if not gpus:
        _no_gpu_digest(whole, context)
        return tier, why
    devices = [each for item, each in zip(bundle, found, strict=True) if item.platform is Platform.NVIDIA]
    identities = [each.identity for each in devices if each.identity]
    if len(devices) > 1:
        ok = len(set(identities)) == len(devices)
        text = "each GPU is there once" if ok else "the same GPU is there twice, or one has no identity"
        whole.check("nvidia.distinct", Group.BOUND, ok, text, actual=", ".join(identities))
    if context.binding is not None and cpus:
        actual = gpu_digest(gpus)
        ok = context.binding.gpu_digest == actual
        text = "the CPU's evidence commits to that of the GPUs" if ok else "the CPU's evidence commits to other GPUs"
        whole.check("nvidia.cpu_binding", Group.BOUND, ok, text, expected=context.binding.gpu_digest, actual=actual)
    if tier < Tier.CPU_TEE:
        return tier, why
    if context.binding is None:
        return tier, "nothing binds the GPUs to the CPU's evidence: no binding was given"
    lowest = min((each for each in devices if each.tiered), key=lambda each: each.tier, default=None)
    if lowest is None:
        return tier, "there is evidence of switches, and of no GPU"
    if lowest.tier is Tier.OPEN:
        return tier, "the evidence of a GPU does not reach tier 3: " + (lowest.tier_why or "its checks")
    return max(tier, lowest.tier), lowest.tier_why


def _no_gpu_digest(whole: Findings, context: Context) -> None:
    if context.binding is not None and context.binding.gpu_digest != NO_GPU:
        text = "the binding names evidence of GPUs, and none is there"
        whole.check("nvidia.cpu_binding", Group.BOUND, False, text, expected=context.binding.gpu_digest)


def _verdict(checks: Sequence[Check]) -> tuple[Verdict, tuple[str, ...]]:
    bad = [check for check in checks if check.required and check.ok is not True]
    reasons = tuple(dict.fromkeys([check.id for check in bad]))
    if any(check.ok is False or not check.missing for check in bad) or not any(check.required for check in checks):
        return Verdict.REJECT, reasons
    return (Verdict.UNAVAILABLE if reasons else Verdict.ACCEPT), reasons


def _claims(bundle: Sequence[Evidence], found: Sequence[Findings]) -> dict[str, Any]:
    claims: dict[str, Any] = {}
    for platform in dict.fromkeys(item.platform for item in bundle):
        said = [each.claims for item, each in zip(bundle, found, strict=True) if item.platform is platform]
        claims[platform.value] = said[0] if len(said) == 1 else said
    return claims
