"""Chains of X.509 certificates to a pinned root (RFC 5280 section 6, without name constraints and policies).

Only what does not depend on the time is remembered between calls: parsed certificates, what they say, and whether
one is signed by another. A verdict never is.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from hanzo_compute.attestation import der as asn1
from hanzo_compute.attestation.checks import Findings, Group
from hanzo_compute.attestation.pins import Pin

CHAIN_MAX: Final = 10
CERTIFICATE_MAX: Final = 16 * 1024
"""Bytes of one certificate: what is remembered is bounded by it."""
_CACHED: Final = 4096
_DER: Final = serialization.Encoding.DER
_KNOWN_CRITICAL: Final = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
    }
)
_VERSION: Final = 0xA0
_ECDSA: Final = {
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: ec.ECDSA(hashes.SHA256()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: ec.ECDSA(hashes.SHA384()),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: ec.ECDSA(hashes.SHA512()),
}


class Said(NamedTuple):
    """What the extensions of a certificate say of what it is for."""

    unreadable: str | None
    """Why they cannot be read; None if they can."""
    critical: tuple[str, ...]
    """OIDs of those that are critical and not understood here."""
    constraints: x509.BasicConstraints | None
    usage: x509.KeyUsage | None


class Parts(NamedTuple):
    """The bytes of a certificate that a signature is about."""

    signed: bytes
    algorithms: tuple[bytes, bytes]
    """Of the signature: as it is signed, and as it stands beside the signature."""
    issuer: bytes
    subject: bytes


@dataclass(frozen=True, eq=False)
class Cert:
    """A certificate, with what was read from it: each once, when it is first asked for, as no certificate changes."""

    der: bytes
    loaded: x509.Certificate

    @cached_property
    def sha256(self) -> str:
        """Of its DER, hex."""
        return hashlib.sha256(self.der).hexdigest()

    @cached_property
    def begin(self) -> datetime:
        """From when it is valid."""
        return self.loaded.not_valid_before_utc

    @cached_property
    def end(self) -> datetime:
        """Until when it is valid."""
        return self.loaded.not_valid_after_utc

    @cached_property
    def subject(self) -> str:
        """Its name, for people; may be empty."""
        return self.loaded.subject.rfc4514_string()

    @cached_property
    def common_name(self) -> str:
        """The common name in that; empty if there is not just one."""
        names = self.loaded.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if len(names) == 1 else ""

    @cached_property
    def name(self) -> str:
        """What it is called in findings."""
        return self.subject or f"certificate {self.sha256}"

    @cached_property
    def said(self) -> Said:
        """What its extensions say."""
        try:
            found = extensions(self.loaded)
        except ValueError as error:
            return Said(str(error), (), None, None)
        critical, constraints, usage = [], None, None
        for each in found:
            kind = type(value := each.value)
            if kind is x509.BasicConstraints:
                constraints = value
            elif kind is x509.KeyUsage:
                usage = value
            elif each.critical and each.oid not in _KNOWN_CRITICAL:
                critical.append(each.oid.dotted_string)
        return Said(None, tuple(critical), constraints, usage)

    @cached_property
    def parts(self) -> Parts:
        """Its bytes, taken apart. Raises ValueError."""
        signed, outer, _ = asn1.read(self.der).children()
        fields = signed.children()
        _, inner, issuer, _, subject, *_ = fields[1:] if fields and fields[0].tag == _VERSION else fields
        return Parts(signed.encoded, (inner.encoded, outer.encoded), issuer.encoded, subject.encoded)


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


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate's DER, hex."""
    return of(certificate).sha256


def load(data: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM text, or of one DER.

    Raises:
        ValueError: there is none, or one that cannot be read.
    """
    return [each.loaded for each in read(data)]


def read(data: bytes) -> list[Cert]:
    """The same, with what was read from them before. Raises ValueError."""
    if data.lstrip()[:1] == b"-":
        return [read_one(each) for each in _pem(data)]
    return [read_one(data)]


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
    return read_one(der).loaded


def read_one(der: bytes) -> Cert:
    """The same, with what was read from it before. Raises ValueError."""
    if len(der) > CERTIFICATE_MAX:
        raise ValueError(f"a certificate has at most {CERTIFICATE_MAX} bytes, and not {len(der)}")
    return _read(der)


@lru_cache(maxsize=_CACHED)
def of(certificate: x509.Certificate) -> Cert:
    """A certificate that is loaded, with what was read from it before."""
    return Cert(certificate.public_bytes(_DER), certificate)


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
    chain = [of(each) for each in certificates]
    return judge(chain, now_ms=now_ms, pins=pins, anchors=anchors, leaf_signs=leaf_signs, understood=understood)


def judge(
    chain: Sequence[Cert],
    *,
    now_ms: int,
    pins: Iterable[Pin] = (),
    anchors: Iterable[bytes] = (),
    leaf_signs: bool = True,
    understood: frozenset[str] = frozenset(),
) -> Chain:
    """:func:`verify`, of certificates that were read."""
    loaded = tuple(each.loaded for each in chain)
    if not 1 <= len(chain) <= CHAIN_MAX:
        text = f"the chain has {len(chain)} certificates; it has 1 to {CHAIN_MAX}"
        return Chain(loaded, text, text, text, text)
    return Chain(
        loaded,
        _root(chain[-1], pins, anchors),
        _links(chain),
        _validity(chain, now_ms),
        _rules(chain, leaf_signs, understood),
    )


def issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether a certificate names ``issuer``, byte for byte, and is signed by it."""
    return signed_by(of(certificate), of(issuer))


@lru_cache(maxsize=_CACHED)
def signed_by(certificate: Cert, issuer: Cert) -> bool:
    """:func:`issued`, of certificates that were read."""
    try:
        key, algorithm = issuer.loaded.public_key(), _ECDSA.get(certificate.loaded.signature_algorithm_oid)
        if algorithm is None or not isinstance(key, ec.EllipticCurvePublicKey):
            certificate.loaded.verify_directly_issued_by(issuer.loaded)
            return True
        # What that does as well, but with a key that is loaded once: it loads the issuer's for each signature.
        mine = certificate.parts
        if mine.algorithms[0] != mine.algorithms[1] or mine.issuer != issuer.parts.subject:
            return False
        key.verify(certificate.loaded.signature, mine.signed, algorithm)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


@lru_cache(maxsize=_CACHED)
def _read(der: bytes) -> Cert:
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
    return Cert(der, certificate)


def _pem(data: bytes) -> list[bytes]:
    with odd_numbers():
        try:
            certificates = x509.load_pem_x509_certificates(data)
        except x509.InvalidVersion as error:
            raise ValueError(str(error)) from None
    return [each.public_bytes(_DER) for each in certificates]


def _root(root: Cert, pins: Iterable[Pin], anchors: Iterable[bytes]) -> str:
    found = root.sha256
    if any(pin.sha256 == found for pin in pins):
        return ""
    for anchor in anchors:
        if any(each.sha256 == found for each in read(anchor)):
            return ""
    return f"the root {root.subject} with SHA-256 {found} is not pinned"


def _links(chain: Sequence[Cert]) -> str:
    for certificate, issuer in zip(chain, [*chain[1:], chain[-1]], strict=True):
        if not signed_by(certificate, issuer):
            return f"{certificate.name} is not signed by {issuer.name}"
    return ""


def validity(chain: Sequence[x509.Certificate], now_ms: int) -> str:
    """Which certificate is not valid at the time; empty if all are."""
    return _validity([of(each) for each in chain], now_ms)


def _validity(chain: Sequence[Cert], now_ms: int) -> str:
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    for certificate in chain:
        if now < certificate.begin:
            return f"{certificate.name} is valid only from {certificate.begin.isoformat()}"
        if now > certificate.end:
            return f"{certificate.name} expired {certificate.end.isoformat()}"
    return ""


def _rules(chain: Sequence[Cert], leaf_signs: bool, understood: frozenset[str]) -> str:
    for depth, certificate in enumerate(chain):
        if problem := _rule(certificate.said, depth, leaf_signs, understood):
            return f"{certificate.name} {problem}"
    return ""


def _rule(said: Said, depth: int, leaf_signs: bool, understood: frozenset[str]) -> str:
    if said.unreadable is not None:
        return f"has an extension that cannot be read ({said.unreadable})"
    if unknown := [oid for oid in said.critical if oid not in understood]:
        return f"has a critical extension that is not understood: {unknown[0]}"
    constraints, usage = said.constraints, said.usage
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
