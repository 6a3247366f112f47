"""Certificates of a TPM's keys (TCG EK Credential Profile for TPM 2.0, 2.5), and who is trusted to issue them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from cryptography import x509 as certificates
from cryptography.x509.oid import AuthorityInformationAccessOID

from hanzo_compute.attestation import x509
from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.pins import GOOGLE_TPM
from hanzo_compute.attestation.tpm.policy import TpmPolicy

CERTIFICATE_MAX: Final = 16 * 1024
AUTHORITIES_MAX: Final = 64 * 1024
"""Bytes of a file with a key's certificate, and of one with authorities."""
_AUTHORITIES: Final = 32

_EK_PURPOSE: Final = certificates.ObjectIdentifier("2.23.133.8.1")
_AK_PURPOSE: Final = certificates.ObjectIdentifier("2.23.133.8.3")
_MANUFACTURER: Final = certificates.ObjectIdentifier("2.23.133.2.1")
_MODEL: Final = certificates.ObjectIdentifier("2.23.133.2.2")
_SOURCE: Final = "TCG EK Credential Profile"
T = TypeVar("T", bound=certificates.ExtensionType)


class Trust(StrEnum):
    """Who says that a chain's root is good."""

    NOBODY = "nobody"
    UNKNOWN = "unknown"
    """An authority is missing that can be had; with it the answer may be another."""
    PRODUCT = "product"
    OPERATOR = "operator"

    @property
    def good(self) -> bool:
        """Whether somebody does."""
        return self in {Trust.PRODUCT, Trust.OPERATOR}


@dataclass(frozen=True, slots=True)
class Authorities:
    """Certificates that a chain may be made of, and the fingerprints of those that it may end at."""

    pool: tuple[certificates.Certificate, ...]
    operator: frozenset[str]

    def trust(self, certificate: certificates.Certificate) -> Trust:
        """Who trusts it as a root."""
        found = x509.fingerprint(certificate)
        if any(pin.sha256 == found for pin in GOOGLE_TPM):
            return Trust.PRODUCT
        return Trust.OPERATOR if found in self.operator else Trust.NOBODY


def authorities(files: Mapping[str, bytes], context: Context, policy: TpmPolicy) -> Authorities:
    """Those of the files ``ca`` and ``ca_…``, of the policy, and anchors.

    Raises:
        Unreadable: one is no certificate, or there are too many.
    """
    roots = [each for anchor in context.anchors for each in _load(anchor, "an anchor", AUTHORITIES_MAX)]
    pins = {root for root in policy.roots if len(root) == 64}
    for root in policy.roots:
        roots += _load(root.encode(), "a root of the policy", AUTHORITIES_MAX) if root not in pins else []
    given = [
        each
        for name in sorted(files)
        if name == "ca" or name.startswith("ca_")
        for each in _load(files[name], name, AUTHORITIES_MAX)
    ]
    if len(given) > _AUTHORITIES:
        raise Unreadable(f"{len(given)} authorities came with the evidence; at most {_AUTHORITIES} are looked at")
    return Authorities((*roots, *given), frozenset(pins | {x509.fingerprint(root) for root in roots}))


def load_leaf(data: bytes, what: str) -> certificates.Certificate:
    """The certificate of a key, PEM or DER; an NV index may be larger than its certificate, and is filled up.

    Raises:
        Unreadable: it is none.
    """
    if data[:2] == b"\x30\x82":
        size = 4 + int.from_bytes(data[2:4], "big")
        if set(data[size:]) in ({0}, {0xFF}):
            data = data[:size]
    return _load(data, what, CERTIFICATE_MAX)[0]


def examine(
    leaf: certificates.Certificate,
    known: Authorities,
    context: Context,
    findings: Findings,
    *,
    prefix: str,
    group: Group,
    required: bool,
    signs: bool,
) -> Trust:
    """Check the chain of a key's certificate: five checks below ``prefix``; who trusts its root if they hold."""
    chain = _build(leaf, known)
    trust = known.trust(chain[-1])
    root, missing = _root(chain, trust)
    judged = x509.verify(chain, now_ms=_judge_at(chain, context), leaf_signs=signs)
    purpose = _purpose(leaf, signs)
    parts = (
        ("root", root, missing),
        ("signatures", _forged(chain, trust, known), None),
        ("validity", judged.validity, None),
        ("rules", judged.rules, None),
        ("purpose", purpose, None),
    )
    for name, problem, lacking in parts:
        findings.check(
            f"{prefix}.{name}",
            group,
            None if lacking else not problem,
            problem or f"certificate of the key: {name} as it should be",
            source=_SOURCE,
            required=required,
            missing=lacking,
        )
    if any(problem for _, problem, lacking in parts if not lacking):
        return Trust.NOBODY
    return Trust.UNKNOWN if missing else trust


def describe(leaf: certificates.Certificate) -> dict[str, str]:
    """Manufacturer and model that a certificate names, where it does (section 3.1.2 of the profile)."""
    names = _extension(leaf, certificates.SubjectAlternativeName)
    directories = names.get_values_for_type(certificates.DirectoryName) if names is not None else []
    said = {attribute.oid: str(attribute.value) for name in directories for attribute in name}
    wanted = {"manufacturer": _MANUFACTURER, "model": _MODEL}
    return {name: said[oid] for name, oid in wanted.items() if oid in said}


def _load(data: bytes, what: str, most: int) -> list[certificates.Certificate]:
    if len(data) > most:
        raise Unreadable(f"{what} has {len(data)} bytes; at most {most} are read")
    try:
        found = x509.load(data)
        for each in found:
            x509.extensions(each)  # they are read when they are asked for: so they fail here or nowhere
    except ValueError as error:
        raise Unreadable(f"{what} is no certificate: {error}") from None
    if not found:
        raise Unreadable(f"{what} has no certificate")
    return found


def _build(leaf: certificates.Certificate, known: Authorities) -> list[certificates.Certificate]:
    """From the leaf on, the certificate that signed the last one, until one is trusted, or none is found."""
    chain = [leaf]
    while len(chain) < x509.CHAIN_MAX and not known.trust(chain[-1]).good:
        issuer = next((each for each in known.pool if each not in chain and x509.issued(chain[-1], each)), None)
        if issuer is None:
            break
        chain.append(issuer)
    return chain


def _root(chain: Sequence[certificates.Certificate], trust: Trust) -> tuple[str, str | None]:
    """Why the last certificate is no trusted root, and what is missing where it says where its issuer can be had."""
    last = chain[-1]
    if trust.good:
        return "", None
    if last.issuer == last.subject:
        return f"the root {_name(last)} with SHA-256 {x509.fingerprint(last)} is not pinned", None
    text = f"the authority {last.issuer.rfc4514_string()} of {_name(last)} was not given"
    return text, "ca" if _fetchable(last) else None


def _fetchable(certificate: certificates.Certificate) -> bool:
    access = _extension(certificate, certificates.AuthorityInformationAccess)
    return access is not None and any(each.access_method == AuthorityInformationAccessOID.CA_ISSUERS for each in access)


def _forged(chain: Sequence[certificates.Certificate], trust: Trust, known: Authorities) -> str:
    last = chain[-1]
    if trust.good:
        return ""
    if last.issuer == last.subject:
        return "" if x509.issued(last, last) else f"{_name(last)} is not signed by itself"
    named = any(each.subject == last.issuer for each in known.pool)
    return f"{_name(last)} is signed by no certificate that was given of its authority" if named else ""


def _judge_at(chain: Sequence[certificates.Certificate], context: Context) -> int:
    """The time; or, where the policy does not look at their beginning, one when all of them have begun."""
    policy = context.policy.tpm
    if policy is None or policy.not_before:
        return context.now_ms
    return max(context.now_ms, *(int(each.not_valid_before_utc.timestamp() * 1000) for each in chain))


def _purpose(leaf: certificates.Certificate, signs: bool) -> str:
    """An endorsement key decrypts, and an attestation key signs; Google gives both kinds the purpose of the first."""
    usage = _extension(leaf, certificates.KeyUsage)
    purposes = _extension(leaf, certificates.ExtendedKeyUsage)
    if not signs and usage is not None and not (usage.key_encipherment or usage.key_agreement):
        return f"{_name(leaf)} is of no endorsement key: its key does not encipher"
    allowed = {_EK_PURPOSE, _AK_PURPOSE} if signs else {_EK_PURPOSE}
    if purposes is not None and not allowed & set(purposes):
        return f"{_name(leaf)} is for another purpose: {', '.join(each.dotted_string for each in purposes)}"
    return ""


def _extension(leaf: certificates.Certificate, kind: type[T]) -> T | None:
    try:
        return leaf.extensions.get_extension_for_class(kind).value
    except certificates.ExtensionNotFound:
        return None


def _name(certificate: certificates.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"certificate {certificate.serial_number:x}"
