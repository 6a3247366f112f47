"""Chains of X.509 certificates to a pinned root (RFC 5280 section 6, without name constraints and policies).

Only what does not depend on the time is remembered between calls: parsed certificates, their extensions, and whether
one is signed by another. A verdict never is.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization

from hanzo_compute.attestation.checks import Findings, Group
from hanzo_compute.attestation.pins import Pin

CHAIN_MAX: Final = 10
CERTIFICATE_MAX: Final = 16 * 1024
"""Bytes of one certificate: what is remembered is bounded by it."""
_CACHED: Final = 4096
_DER: Final = serialization.Encoding.DER
T = TypeVar("T", bound=x509.ExtensionType)
_KNOWN_CRITICAL: Final = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
    }
)


@dataclass(frozen=True, slots=True)
class Chain:
    """What holds of a chain, leaf first; each text is empty where it holds."""

    certificates: tuple[x509.Certificate, ...]
    root: str
    """Why its last certificate is no trusted root."""
    links: str
    """Which certificate is not signed and named by the next."""
    validity: str
    """Which certificate is not valid at the time."""
    rules: str
    """Which certificate is no authority though it issues, or has what is not understood."""

    @property
    def ok(self) -> bool:
        """Whether all holds."""
        return not (self.root or self.links or self.validity or self.rules)

    def record(self, findings: Findings, prefix: str, *, what: str, source: str | None = None) -> bool:
        """Write it down as four checks: ``<prefix>.root``, ``.signatures``, ``.validity`` and ``.rules``."""
        parts = (("root", self.root), ("signatures", self.links), ("validity", self.validity), ("rules", self.rules))
        for name, problem in parts:
            detail = problem or f"{what}: {name} as it should be"
            findings.check(f"{prefix}.{name}", Group.GENUINE, not problem, detail, source=source)
        return self.ok


@lru_cache(maxsize=_CACHED)
def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's DER, hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def load(data: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM text, or of one DER.

    Raises:
        ValueError: there is none, or one that cannot be read.
    """
    if data.lstrip()[:1] == b"-":
        return [load_one(each) for each in _pem(data)]
    return [load_one(data)]


def extensions(certificate: x509.Certificate) -> x509.Extensions:
    """The extensions of a certificate. Raises ValueError: one cannot be read, or is there twice."""
    try:
        return certificate.extensions
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, TypeError) as error:
        raise ValueError(str(error)) from None


@contextmanager
def odd_numbers() -> Iterator[None]:
    """Reads serial numbers that are not positive without the library's warning: no reason to refuse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_one(der: bytes) -> x509.Certificate:
    """A certificate from its DER, remembered by its content. Raises ValueError."""
    if len(der) > CERTIFICATE_MAX:
        raise ValueError(f"a certificate has at most {CERTIFICATE_MAX} bytes, and not {len(der)}")
    return _load(der)


def verify(
    certificates: Sequence[x509.Certificate],
    *,
    now_ms: int,
    pins: Iterable[Pin] = (),
    anchors: Iterable[bytes] = (),
    leaf_signs: bool = True,
    understood: frozenset[str] = frozenset(),
) -> Chain:
    """Verify a chain, leaf first and root last.

    Args:
        certificates: the whole chain, with its root.
        now_ms: the time to judge at.
        pins: roots of the product.
        anchors: roots that the operator hands in, as PEM or DER.
        leaf_signs: whether the leaf must be allowed to sign (key usage ``digitalSignature``) and be no authority.
        understood: OIDs of extensions that the caller reads and judges, and that may so be critical.
    """
    chain = tuple(certificates)
    if not 1 <= len(chain) <= CHAIN_MAX:
        text = f"the chain has {len(chain)} certificates; it has 1 to {CHAIN_MAX}"
        return Chain(chain, text, text, text, text)
    return Chain(
        chain,
        _root(chain[-1], pins, anchors),
        _links(chain),
        validity(chain, now_ms),
        _rules(chain, leaf_signs, understood),
    )


@lru_cache(maxsize=_CACHED)
def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether a certificate names ``issuer``, byte for byte, and is signed by it."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


@lru_cache(maxsize=_CACHED)
def _load(der: bytes) -> x509.Certificate:
    with odd_numbers():
        try:
            certificate = x509.load_der_x509_certificate(der)
            # Names are decoded when they are asked for first: what is wrong with them is to come out here.
            _ = certificate.subject, certificate.issuer
        except (x509.InvalidVersion, TypeError) as error:
            raise ValueError(str(error)) from None
        # Extensions are kept once they are decoded; what is wrong with them is for those who ask for them.
        with suppress(ValueError):
            extensions(certificate)
    return certificate


def _pem(data: bytes) -> list[bytes]:
    with odd_numbers():
        try:
            certificates = x509.load_pem_x509_certificates(data)
        except x509.InvalidVersion as error:
            raise ValueError(str(error)) from None
    return [each.public_bytes(_DER) for each in certificates]


def _root(root: x509.Certificate, pins: Iterable[Pin], anchors: Iterable[bytes]) -> str:
    found = fingerprint(root)
    if any(pin.sha256 == found for pin in pins):
        return ""
    for anchor in anchors:
        if any(fingerprint(each) == found for each in load(anchor)):
            return ""
    return f"the root {root.subject.rfc4514_string()} with SHA-256 {found} is not pinned"


def _links(chain: Sequence[x509.Certificate]) -> str:
    for certificate, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        if not issued(certificate, issuer):
            return f"{_name(certificate)} is not signed by {_name(issuer)}"
    return ""


def validity(chain: Sequence[x509.Certificate], now_ms: int) -> str:
    """Which certificate is not valid at the time; empty if all are."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    for certificate in chain:
        if now < certificate.not_valid_before_utc:
            return f"{_name(certificate)} is valid only from {certificate.not_valid_before_utc.isoformat()}"
        if now > certificate.not_valid_after_utc:
            return f"{_name(certificate)} expired {certificate.not_valid_after_utc.isoformat()}"
    return ""


def _rules(chain: Sequence[x509.Certificate], leaf_signs: bool, understood: frozenset[str]) -> str:
    for depth, certificate in enumerate(chain):
        try:
            problem = _rule(certificate, depth, leaf_signs, understood)
        except (ValueError, x509.DuplicateExtension) as error:
            problem = f"has an extension that cannot be read ({error})"
        if problem:
            return f"{_name(certificate)} {problem}"
    return ""


@lru_cache(maxsize=_CACHED)
def _rule(certificate: x509.Certificate, depth: int, leaf_signs: bool, understood: frozenset[str]) -> str:
    found = extensions(certificate)
    critical = [each.oid for each in found if each.critical and each.oid not in _KNOWN_CRITICAL]
    unknown = [oid.dotted_string for oid in critical if oid.dotted_string not in understood]
    if unknown:
        return f"has a critical extension that is not understood: {unknown[0]}"
    constraints = _extension(found, x509.BasicConstraints)
    usage = _extension(found, x509.KeyUsage)
    if depth == 0:
        if not leaf_signs:
            return ""
        if constraints is not None and constraints.ca:
            return "is an authority, and no leaf"
        if usage is not None and not usage.digital_signature:
            return "may not sign (key usage without digitalSignature)"
        return ""
    if constraints is None or not constraints.ca:
        return "is no authority, though it issued another"
    if usage is not None and not usage.key_cert_sign:
        return "may not issue certificates (key usage without keyCertSign)"
    # Certificates between this one and the leaf; the path is as they are ordered here.
    if constraints.path_length is not None and depth - 1 > constraints.path_length:
        return f"allows {constraints.path_length} authorities below it; here are {depth - 1}"
    return ""


def _extension(extensions: x509.Extensions, kind: type[T]) -> T | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"certificate {fingerprint(certificate)}"
