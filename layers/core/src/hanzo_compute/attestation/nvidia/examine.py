"""Evidence of NVIDIA's GPUs and NVSwitch: a signed SPDM report, the chain of its key, and reference values.

Files: ``report``; ``chain`` (PEM, leaf first); ``driver_rim`` and ``vbios_rim`` (and ``driver_rim-*``, ``vbios_rim-*``
where several devices share collateral); ``ocsp`` and ``ocsp-*`` (DER); ``ocsp_nonce``, what the OCSP responses were
asked with. A ``rim`` without a report is judged by itself, and proves nothing about a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.nvidia import device as devices
from hanzo_compute.attestation.nvidia import dice, reference, roots, spdm
from hanzo_compute.attestation.nvidia.claims import claims, rim_claims
from hanzo_compute.attestation.nvidia.device import Device
from hanzo_compute.attestation.nvidia.ecdsa import verifies
from hanzo_compute.attestation.nvidia.policy import NvidiaPolicy
from hanzo_compute.attestation.nvidia.revocation import Answers
from hanzo_compute.attestation.nvidia.spdm import Field, Report
from hanzo_compute.attestation.pins import NVIDIA_DEVICE
from hanzo_compute.attestation.x509 import Cert
from hanzo_compute.model.evidence import Tier

CHAIN_MAX: Final = 64 * 1024
"""Bytes of a chain; NVIDIA's have about 5 KiB."""
_DICE: Final = "TCG DICE Attestation Architecture 1.1 section 6.1"
_SPDM: Final = "DMTF DSP0274 1.1.1 section 10.11.2"


def examine(files: Mapping[str, bytes], context: Context) -> Findings:
    """Check a device's evidence, or reference values by themselves.

    Raises:
        Unreadable: there is neither, or the report or its chain is not of its form.
    """
    if "report" not in files and "rim" in files:
        return _rim_alone(files, context)
    if "report" not in files or "chain" not in files:
        raise Unreadable(f"there is no {'chain' if 'report' in files else 'report'}")
    report = spdm.parse(files["report"])
    chain = _chain(files["chain"], context)
    found = devices.device(report, chain)
    findings = Findings(identity=found.identity, commitment=report.nonce, claims=claims(report, found, chain))
    findings.tier, findings.tier_why = _tier(found)
    findings.tiered = not found.is_switch
    _genuine(findings, report, chain, found, context)
    _policy(findings, found, context.policy.nvidia or NvidiaPolicy())
    answers = Answers.of(findings, files, context)
    # The device's first certificate is by its own firmware: what NVIDIA could revoke begins with the chip's.
    answers.check(findings, "nvidia.ocsp", chain[1:])
    _measured(findings, files, report, found, answers, context)
    return findings


def _chain(data: bytes, context: Context) -> tuple[Cert, ...]:
    if len(data) > CHAIN_MAX:
        raise Unreadable(f"the chain has {len(data)} bytes; it has at most {CHAIN_MAX}")
    try:
        return roots.completed(roots.loaded(data), roots.DEVICE, context.anchors)
    except ValueError as error:
        raise Unreadable(f"the chain cannot be read: {error}") from None


def _tier(found: Device) -> tuple[Tier, str]:
    if found.is_switch:
        return Tier.OPEN, "a switch by itself computes nothing"
    if found.architecture is None:
        return Tier.OPEN, "its certificates name no GPU that is known to compute confidentially"
    if found.driver is None:
        return Tier.OPEN, "the report names no driver: it is of the chip's own firmware, not of a GPU at work"
    if found.architecture == "hopper":
        return Tier.GPU_CC, "a GPU of the Hopper class has no TEE-I/O"
    return Tier.GPU_TEE_IO, "there is no higher one"


def _genuine(findings: Findings, report: Report, chain: Sequence[Cert], found: Device, context: Context) -> None:
    ok = len(chain) == devices.CHAIN_LENGTH
    text = f"{len(chain)} certificates; a device's chain has {devices.CHAIN_LENGTH}"
    findings.check(
        "nvidia.chain.length",
        Group.GENUINE,
        ok,
        text,
        expected=devices.CHAIN_LENGTH,
        actual=len(chain),
        source="nvtrust",
    )
    verified = chains.judge(
        chain, now_ms=context.now_ms, pins=NVIDIA_DEVICE, anchors=context.anchors, understood=dice.UNDERSTOOD
    )
    verified.record(findings, "nvidia.chain", what="the device's chain", source="RFC 5280 section 6")
    ok = verifies(chain[0].loaded, report.signature, report.signed)
    text = "signed by the device's key" if ok else "not signed by the key of the chain that came with it"
    findings.check("nvidia.signature", Group.GENUINE, ok, text, source=_SPDM)
    stated = report.opaque.get(Field.FWID)
    if stated is not None:
        ok = stated == found.firmware.fwid
        text = "the firmware that was certified" if ok else "other firmware than was certified"
        findings.check(
            "nvidia.fwid", Group.GENUINE, ok, text, expected=found.firmware.fwid, actual=stated, source=_DICE
        )


def _policy(findings: Findings, found: Device, policy: NvidiaPolicy) -> None:
    ok = found.architecture in policy.architectures
    text = f"the device is of {found.architecture or 'no architecture that is known here'}"
    expected = ", ".join(policy.architectures)
    findings.check(
        "nvidia.architecture", Group.POLICY, ok, text, expected=expected, source="policy: nvidia.architectures"
    )
    _debug(findings, found, policy)
    if not found.is_switch:
        ok = found.mode in policy.modes
        text = f"mode {found.mode or 'that is not known here'}"
        findings.check(
            "nvidia.mode", Group.POLICY, ok, text, expected=", ".join(policy.modes), source="policy: nvidia.modes"
        )
        _listed(findings, "drivers", found.driver, policy.drivers)
    _listed(findings, "vbios", found.vbios, policy.vbios)


def _debug(findings: Findings, found: Device, policy: NvidiaPolicy) -> None:
    flags, source = found.firmware.flags, "policy: nvidia.allow_debug"
    if flags is None:
        # Hopper's certificates have no flags; what is fused for debugging has other measurements.
        text = "the certificate says nothing of debugging; the measurements do"
        findings.check("nvidia.debug", Group.POLICY, None, text, source=source, required=False)
        return
    text = f"the device says: {', '.join(sorted(flags))}" if flags else "neither debug, nor recovery, nor not secure"
    findings.check("nvidia.debug", Group.POLICY, not flags or policy.allow_debug, text, source=source)


def _listed(findings: Findings, field: str, version: str | None, allowed: Sequence[str]) -> None:
    if allowed:
        ok = version is not None and version.upper() in {each.upper() for each in allowed}
        text = "a version that the policy names" if ok else "not a version that the policy names"
        findings.check(
            f"nvidia.{field}",
            Group.MEASURED,
            ok,
            text,
            expected=", ".join(allowed),
            actual=version,
            source=f"policy: nvidia.{field}",
        )


def _measured(
    findings: Findings,
    files: Mapping[str, bytes],
    report: Report,
    found: Device,
    answers: Answers,
    context: Context,
) -> None:
    rims, missing = [], []
    for expected in reference.needed(found):
        data = reference.chosen(files, expected, found)
        if data is None:
            missing.append(expected.name)
            reference.absent(findings, expected, context)
            continue
        read = reference.genuine(findings, expected.name, data, context)
        if read is None:
            continue
        rims.append(read)
        reference.matches(findings, expected, read, found)
        answers.check(findings, f"nvidia.{expected.name}.ocsp", reference.certificates(read, context), may_hold=True)
    reference.compare(findings, report, rims, missing, context)


def _rim_alone(files: Mapping[str, bytes], context: Context) -> Findings:
    findings = Findings(tier_why="reference values prove nothing about a device", tiered=False)
    read = reference.genuine(findings, "rim", files["rim"], context)
    if read is not None:
        findings.claims = rim_claims(read)
        answers = Answers.of(findings, files, context)
        answers.check(findings, "nvidia.rim.ocsp", reference.certificates(read, context), may_hold=True)
    return findings
