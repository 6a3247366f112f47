"""Lists of revoked certificates, which an ARK signs and which name ASKs and ASVKs (AMD 57230, 4.3).

Certificates of chips have no serial numbers of their own, so that no list can name one of them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from hanzo_compute.attestation import x509 as certificates
from hanzo_compute.attestation.checks import Context, Findings, Group
from hanzo_compute.attestation.remembered import LIST, remembered
from hanzo_compute.attestation.snp.chain import Path

_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""How the library says that it cannot read something, which it tries only when that is asked for."""
_SOURCE: Final = "AMD 57230, 4.3"


def check(findings: Findings, crl: bytes | None, path: Path | None, context: Context) -> None:
    """Write down whether what issued the key is revoked."""
    required = context.policy.snp is not None and context.policy.snp.crl_required
    if crl is None:
        text = "no list of revoked certificates was given"
        missing = "crl" if required else None
        findings.check(
            "snp.revocation",
            Group.POLICY,
            None,
            text,
            source="policy: snp.crl_required",
            required=required,
            missing=missing,
        )
        return
    if path is None:
        text = "not known without the certificate of the key: the list is of the root above it"
        findings.check("snp.revocation", Group.POLICY, None, text, source=_SOURCE, missing="vek")
        return
    problem = _problem(crl, path, datetime.fromtimestamp(context.now_ms / 1000, UTC))
    text = problem or "nothing of the chain is revoked"
    findings.check("snp.revocation", Group.POLICY, not problem, text, source=_SOURCE)


def _problem(data: bytes, path: Path, now: datetime) -> str:
    if not path.rooted:
        return "there is no root that could have signed the list of revoked certificates"
    try:
        return _judged(_load(data), data, path, now)
    except _UNREADABLE as error:
        return f"the list of revoked certificates cannot be read: {error}"


def _judged(crl: x509.CertificateRevocationList, data: bytes, path: Path, now: datetime) -> str:
    root = path.issuers[-1]
    if crl.issuer != root.subject or not _signed(data, root.public_bytes(serialization.Encoding.DER)):
        return f"the list of revoked certificates is not signed by {root.subject.rfc4514_string()}"
    if strange := next((each.oid.dotted_string for each in crl.extensions if each.critical), None):
        # It may be of some of the certificates only, or of what changed.
        return f"the list of revoked certificates has a critical extension that is not understood: {strange}"
    if now < crl.last_update_utc:
        return f"the list of revoked certificates is of {crl.last_update_utc.isoformat()}, which is not yet"
    if crl.next_update_utc is None or now > crl.next_update_utc:
        return f"the list of revoked certificates was good until {crl.next_update_utc}"
    for each in path.issuers:
        revoked = crl.get_revoked_certificate_by_serial_number(each.serial_number)
        if revoked is not None:
            return f"{each.subject.rfc4514_string()} was revoked {revoked.revocation_date_utc.isoformat()}"
    return ""


@remembered(64, LIST)
def _load(data: bytes) -> x509.CertificateRevocationList:
    return x509.load_pem_x509_crl(data) if data.lstrip().startswith(b"-") else x509.load_der_x509_crl(data)


@remembered(64, LIST)
def _signed(data: bytes, root: bytes) -> bool:
    key = certificates.load_one(root).public_key()
    return isinstance(key, rsa.RSAPublicKey) and _load(data).is_signature_valid(key)
