"""What a policy asks of a report that is genuine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hanzo_compute.attestation.checks import Findings, Group
from hanzo_compute.attestation.policy import Policy
from hanzo_compute.attestation.snp import products
from hanzo_compute.attestation.snp.policy import SnpPolicy, Tcb, TcbByLine
from hanzo_compute.attestation.snp.products import Line
from hanzo_compute.attestation.snp.report import GUEST_POLICY, Report
from hanzo_compute.attestation.snp.vek import Vek

_ABI: Final = "AMD 56860, table 9"
_KNOWN_POLICY: Final = 0xFFFF | 1 << 17 | sum(1 << bit for bit in GUEST_POLICY.values())
_RESERVED_ONE: Final = 1 << 17


def check(findings: Findings, said: Report, key: Vek | None, policy: Policy) -> None:
    """Write down all that a policy asks of a report."""
    asked = policy.snp or SnpPolicy()
    line = said.line or (key.line if key else None)
    _guest(findings, said, asked)
    _platform(findings, said, asked)
    _level(findings, said, asked)
    _tcb(findings, said, line, asked)
    _origin(findings, key, line, asked)
    _measured(findings, said, asked, required=policy.require.measurement)


def _guest(findings: Findings, said: Report, asked: SnpPolicy) -> None:
    """The guest's own policy, which the firmware enforces and the report repeats."""
    debug = said.allows("debug")
    text = "its host may debug it, and so read it" if debug else "its host may not debug it"
    findings.check("snp.guest.debug", Group.POLICY, not debug, text, expected=False, actual=debug, source=_ABI)
    strange = said.policy & ~_KNOWN_POLICY
    ok = not strange and bool(said.policy & _RESERVED_ONE)
    text = "reserved bits are as they must be" if ok else "it has bits that are not known: they may allow what is not"
    findings.check("snp.guest.reserved", Group.POLICY, ok, text, actual=f"{said.policy:#x}", source=_ABI)
    for name, wanted in asked.guest.asked:
        _bit(findings, f"snp.guest.{name}", wanted, said.allows(name), f"policy: snp.guest.{name}")
    if asked.guest.abi_major or asked.guest.abi_minor:
        abi, least = (said.policy >> 8 & 0xFF, said.policy & 0xFF), (asked.guest.abi_major, asked.guest.abi_minor)
        text = "the least ABI version that the guest asks for"
        source = "policy: snp.guest.abi_major"
        findings.check("snp.guest.abi", Group.POLICY, abi >= least, text, expected=least, actual=abi, source=source)


def _platform(findings: Findings, said: Report, asked: SnpPolicy) -> None:
    for name, wanted in asked.platform.asked:
        _bit(findings, f"snp.platform.{name}", wanted, said.platform(name), f"policy: snp.platform.{name}")


def _bit(findings: Findings, name: str, wanted: bool, found: bool, source: str) -> None:
    text = f"the bit is {'set' if found else 'not set'}"
    findings.check(name, Group.POLICY, found is wanted, text, expected=wanted, actual=found, source=source)


def _level(findings: Findings, said: Report, asked: SnpPolicy) -> None:
    # A host that asks for a report itself gets one of level 2^32 - 1.
    ok = said.vmpl <= asked.vmpl
    text = f"the report was asked for from privilege level {said.vmpl}"
    findings.check(
        "snp.vmpl", Group.POLICY, ok, text, expected=f"<= {asked.vmpl}", actual=said.vmpl, source="policy: snp.vmpl"
    )
    if asked.guest_svn:
        ok = said.guest_svn >= asked.guest_svn
        text, source = "the guest's security version", "policy: snp.guest_svn"
        expected = f">= {asked.guest_svn}"
        findings.check("snp.guest_svn", Group.POLICY, ok, text, expected=expected, actual=said.guest_svn, source=source)


def _tcb(findings: Findings, said: Report, line: Line | None, asked: SnpPolicy) -> None:
    reported, committed, current = said.reported_tcb, said.committed_tcb, said.current_tcb
    # Launch is no part of it: what a guest was launched on may have been rolled back since, or committed.
    ok = products.at_least(committed, reported) and products.at_least(current, committed)
    text = "reported <= committed <= current" if ok else "it reports more than is committed, or commits more than runs"
    actual = f"{reported.hex()}, {committed.hex()}, {current.hex()}"
    findings.check("snp.tcb.order", Group.POLICY, ok, text, actual=actual, source="AMD 56860, 2.2")
    if not asked.provisional_firmware:
        ok, source = committed == current, "policy: snp.provisional_firmware"
        text = "the firmware is committed" if ok else "the host can take back the firmware that runs"
        findings.check("snp.tcb.provisional", Group.POLICY, ok, text, expected=committed, actual=current, source=source)
    _minimum(findings, "minimum", asked.minimum_tcb, reported, line)
    _minimum(findings, "launch_minimum", asked.minimum_launch_tcb, said.launch_tcb, line)


def _minimum(findings: Findings, name: str, asked: TcbByLine, tcb: bytes, line: Line | None) -> None:
    if asked.milan is None and asked.genoa is None and asked.turin is None:
        return
    least: Tcb | None = getattr(asked, line.name.lower()) if line else None
    source = "policy: snp.minimum_tcb" if name == "minimum" else "policy: snp.minimum_launch_tcb"
    found = products.components(tcb, line)
    if least is None:
        text = "the policy has no least versions for this line" if line else "not known without its line"
        ok = None if line is None else False
        findings.check(f"snp.tcb.{name}", Group.POLICY, ok, text, actual=found, source=source, missing=_vek(line))
        return
    low = [each for each, value in found.items() if value < getattr(least, each)]
    text = f"below the least version: {', '.join(low)}" if low else "no version is below the least"
    expected = {each: getattr(least, each) for each in found}
    findings.check(f"snp.tcb.{name}", Group.POLICY, not low, text, expected=expected, actual=found, source=source)


def _vek(line: Line | None) -> str | None:
    return None if line else "vek"


def _origin(findings: Findings, key: Vek | None, line: Line | None, asked: SnpPolicy) -> None:
    ok = None if line is None else line.name.lower() in asked.lines
    text = f"the processor is a {line}" if line else "the report alone does not tell its processor"
    findings.check(
        "snp.line",
        Group.POLICY,
        ok,
        text,
        expected=", ".join(asked.lines),
        actual=line,
        source="policy: snp.lines",
        missing="vek" if line is None and key is None else None,
    )
    if key is None or key.kind != "VLEK":
        return
    findings.check("snp.vlek", Group.POLICY, asked.vlek, f"its key is lent to {key.csp_id}", source="policy: snp.vlek")
    if asked.csp_ids is not None:
        ok, expected = key.csp_id in asked.csp_ids, ", ".join(asked.csp_ids)
        text = "the cloud provider that its key is lent to"
        source = "policy: snp.csp_ids"
        findings.check("snp.csp_id", Group.POLICY, ok, text, expected=expected, actual=key.csp_id, source=source)


def _measured(findings: Findings, said: Report, asked: SnpPolicy, *, required: bool) -> None:
    required = required or bool(asked.measurements)
    _among(findings, "measurement", said.measurement, asked.measurements, "measurements", required=required)
    for name, found, references, field in (
        ("host_data", said.host_data, asked.host_data, "host_data"),
        ("id_key", said.id_key_digest, asked.id_keys, "id_keys"),
        ("author_key", said.author_key_digest if said.flags & 1 else b"", asked.author_keys, "author_keys"),
        ("family_id", said.family_id, asked.family_ids, "family_ids"),
        ("image_id", said.image_id, asked.image_ids, "image_ids"),
    ):
        if references:
            _among(findings, name, found, references, field, required=True)


def _among(
    findings: Findings, name: str, found: bytes, references: Sequence[str], field: str, *, required: bool
) -> None:
    ok = found.hex() in references if references else None
    text = {True: "is among the policy's", False: "is not among the policy's", None: "the policy names none"}[ok]
    expected, source = ", ".join(references) or None, f"policy: snp.{field}"
    findings.check(
        f"snp.{name}", Group.MEASURED, ok, text, expected=expected, actual=found, source=source, required=required
    )
