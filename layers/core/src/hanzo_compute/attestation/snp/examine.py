"""Checks of evidence of SEV-SNP.

Files: ``report`` (1184 bytes), ``vek`` (certificate of the VCEK or VLEK, DER or PEM), ``chain`` (ASK or ASVK, and ARK),
``cert_table`` (what configfs-tsm has as auxblob: all of those) and ``crl`` (of the ARK). Only the report is always
needed; a certificate of its key that is nowhere is fetched by others, as are lists of revoked certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.snp import chain, conditions, endorsements, report, revocation, vek
from hanzo_compute.attestation.snp.chain import Path
from hanzo_compute.attestation.snp.report import Report
from hanzo_compute.attestation.snp.vek import Vek
from hanzo_compute.model.evidence import Tier

_ABI: Final = "AMD 56860, table 23"
_SIGNATURE: Final = "AMD 56860, chapter 10"
_KDS: Final = "AMD 57230, chapter 3"
_CHAIN: Final = "AMD 57230, 2.2"
_OF_KEY: Final = (
    "snp.vek.format",
    "snp.vek.validity",
    "snp.chain.signatures",
    "snp.chain.root",
    "snp.chain.validity",
    "snp.chain.rules",
    "snp.key_kind",
    "snp.product",
    "snp.tcb.endorsed",
    "snp.chip_id",
    "snp.signature",
)
"""What cannot be said without the certificate of the key."""
_ECDSA: Final = ec.ECDSA(hashes.SHA384())


def examine(files: Mapping[str, bytes], context: Context) -> Findings:
    """Examine a report and what came with it.

    Raises:
        Unreadable: a file is not of its format, or there is no report.
        InvalidRequest: an anchor is no certificate.
    """
    if "report" not in files:
        raise Unreadable("there is no report")
    said = report.parse(files["report"])
    given = endorsements.take(files)
    findings = Findings(
        tier=Tier.CPU_TEE,
        tier_why="a GPU is no part of it: tier 3 needs evidence of one that is bound to this",
        identity=None if said.masked else said.chip_id.hex(),
        commitment=said.report_data,
    )
    signature = _form(findings, said)
    key, path = _key(findings, given, context)
    if key is not None and path is not None:
        _endorsed(findings, said, key, path)
        _signature(findings, said, key, signature)
    conditions.check(findings, said, key, context.policy)
    revocation.check(findings, files.get("crl"), path, context)
    line = said.line or (key.line if key else None)
    findings.claims = said.claims(line)
    if key is not None and path is not None:
        findings.claims |= {**key.claims, "vek_issuer": path.issuer}
    return findings


def _form(findings: Findings, said: Report) -> tuple[int, int] | None:
    """The two numbers of the signature, if it is of its format."""
    ok = said.version in report.VERSIONS
    text = f"version {said.version} of reports is {'known' if ok else 'not known'}"
    findings.check("snp.version", Group.GENUINE, ok, text, expected="2 to 5", actual=said.version, source=_ABI)
    ok = said.signature_algo == report.ECDSA_P384_SHA384
    text = "is signed with ECDSA, P-384 and SHA-384" if ok else "is not signed with the one algorithm that there is"
    findings.check(
        "snp.signature_algorithm", Group.GENUINE, ok, text, expected=1, actual=said.signature_algo, source=_SIGNATURE
    )
    signature, text = None, "is of its format"
    try:
        signature = said.signature()
    except ValueError as error:
        text = str(error)
    findings.check("snp.signature_format", Group.GENUINE, signature is not None, text, source=_SIGNATURE)
    return signature


def _key(
    findings: Findings, given: endorsements.Endorsements, context: Context
) -> tuple[Vek, Path] | tuple[None, None]:
    """The certificate of the key, and its chain, as far as they can be read."""
    if given.key is None:
        text = "not known without the certificate of the key that signed the report"
        for name in _OF_KEY:
            findings.check(name, Group.GENUINE, None, text, source=_KDS, missing="vek")
        return None, None
    try:
        key = vek.parse(given.key)
    except ValueError as error:
        for name in _OF_KEY:
            text = f"the certificate of the key cannot be read: {error}"
            findings.check(name, Group.GENUINE, False if name == "snp.vek.format" else None, text, source=_KDS)
        return None, None
    findings.check("snp.vek.format", Group.GENUINE, True, f"is the certificate of a {key.kind}", source=_KDS)
    path = chain.of(given.key, given.authorities, context.anchors)
    now = datetime.fromtimestamp(context.now_ms / 1000, UTC)
    _valid(findings, "snp.vek.validity", key.window, key.shown_window, now)
    _chain(findings, key, path, now)
    return key, path


def _chain(findings: Findings, key: Vek, path: Path, now: datetime) -> None:
    ok = bool(path.issuers)
    text = f"{path.issuer} signed the key's certificate" if ok else f"no {key.issuer_name} that is known signed it"
    findings.check("snp.chain.signatures", Group.GENUINE, ok, text, source=_CHAIN)
    text = "its chain ends in a root that is trusted" if path.rooted else "its chain does not end in a pinned root"
    findings.check("snp.chain.root", Group.GENUINE, path.rooted, text, actual=path.root, source=_CHAIN)
    if ok:
        _valid(findings, "snp.chain.validity", path.window, path.shown_window, now)
        text = path.rules or "all issuers are authorities"
        findings.check("snp.chain.rules", Group.GENUINE, not path.rules, text, source="RFC 5280, 6.1.4")
    else:
        for name in ("snp.chain.validity", "snp.chain.rules"):
            findings.check(name, Group.GENUINE, None, "nothing is known to have issued it", source=_CHAIN)


def _valid(findings: Findings, name: str, window: tuple[datetime, datetime], shown: str, now: datetime) -> None:
    start, end = window
    ok = start <= now <= end
    text = "valid at the time" if ok else f"not valid {'yet' if now < start else 'any more'}"
    findings.check(name, Group.GENUINE, ok, text, expected=shown, actual=str(now), source="RFC 5280, 4.1.2.5")


def _endorsed(findings: Findings, said: Report, key: Vek, path: Path) -> None:
    """Is this the key of that report: its kind, processor, TCB version and chip?"""
    issuer = path.issuer or key.issuer_name
    lent = issuer == f"SEV-VLEK-{key.line}"
    ok = said.signing_key == key.kind and lent is (key.kind == "VLEK")
    text = f"the report names a {said.signing_key}, and the certificate is of a {key.kind} by {issuer}"
    findings.check("snp.key_kind", Group.GENUINE, ok, text, expected=said.signing_key, actual=key.kind, source=_ABI)
    line = said.line or (None if said.has_cpuid else key.line)
    ok = key.line is line and issuer in (f"SEV-{line}", f"SEV-VLEK-{line}")
    text = "processor, key and issuer are of one line" if ok else "processor, key and issuer are of different lines"
    expected, actual = line or f"{said.family:#x}/{said.model:#x}", f"{key.product} by {issuer}"
    findings.check("snp.product", Group.GENUINE, ok, text, expected=expected, actual=actual, source=_KDS)
    ok = key.tcb == said.reported_tcb
    text = "the key is of the reported TCB" if ok else "the key is of another TCB than the reported one"
    findings.check("snp.tcb.endorsed", Group.GENUINE, ok, text, expected=said.reported_tcb, actual=key.tcb, source=_KDS)
    ok, text = _chip(said, key)
    findings.check("snp.chip_id", Group.GENUINE, ok, text, expected=said.chip_id, actual=key.hardware_id, source=_KDS)


def _chip(said: Report, key: Vek) -> tuple[bool, str]:
    if key.hardware_id is None:
        return True, "a VLEK is of no chip"
    if said.masked:
        # The host may hide it (MaskChipId). The key is of one chip all the same, and signed the report.
        return True, "the report does not tell its chip"
    ok = key.hardware_id.ljust(len(said.chip_id), b"\0") == said.chip_id
    return ok, "the key is of that chip" if ok else "the key is of another chip"


def _signature(findings: Findings, said: Report, key: Vek, signature: tuple[int, int] | None) -> None:
    ok, text = False, "there is no signature that could be checked"
    if signature is not None and said.signature_algo == report.ECDSA_P384_SHA384:
        ok, text = True, "the key signed the report"
        try:
            key.key.verify(encode_dss_signature(*signature), said.signed, _ECDSA)
        except InvalidSignature:
            ok, text = False, "the key did not sign this report"
    findings.check("snp.signature", Group.GENUINE, ok, text, source=_SIGNATURE)
