"""The chain of a VCEK or VLEK to its root: ASK or ASVK, and ARK (AMD 57230, 2.2).

The intermediate certificates of all product lines come with the product, in ``roots/amd_*.pem``: as the AMD key
distribution service hands them out under ``/vcek/v1/{line}/cert_chain`` and ``/vlek/v1/{line}/cert_chain``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from importlib import resources
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from hanzo_compute.attestation import pins
from hanzo_compute.attestation import x509 as certificates
from hanzo_compute.attestation.remembered import remembered
from hanzo_compute.attestation.snp import vek
from hanzo_compute.errors import InternalError, InvalidRequest

DEPTH_MAX: Final = 4
_FILES: Final = tuple(f"amd_{line}{kind}.pem" for line in ("milan", "genoa", "turin") for kind in ("", "_vlek"))
_UNDERSTOOD: Final = (x509.BasicConstraints.oid, x509.KeyUsage.oid)
_UNREADABLE: Final = (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_DER: Final = serialization.Encoding.DER


@dataclass(frozen=True, slots=True, eq=False)
class Authority:
    """A certificate that may have issued others, with what it is looked up by."""

    sha256: str
    subject: bytes
    issuer: bytes
    key: object
    certificate: x509.Certificate


@dataclass(frozen=True)
class Path:
    """What issued a key, up to a root or as far as it can be followed. It says nothing of any time."""

    issuers: tuple[x509.Certificate, ...]
    """From the one that issued the key; empty if none of those at hand did."""
    rooted: bool
    """Whether the last of them is trusted."""

    @cached_property
    def issuer(self) -> str | None:
        """Common name of the one that issued the key."""
        return _common_name(self.issuers[0]) if self.issuers else None

    @cached_property
    def window(self) -> tuple[datetime, datetime]:
        """From when to when all of them are valid; there must be one."""
        starts = (each.not_valid_before_utc for each in self.issuers)
        return max(starts), min(each.not_valid_after_utc for each in self.issuers)

    @cached_property
    def shown_window(self) -> str:
        """The same for people."""
        return "{} to {}".format(*self.window)

    @cached_property
    def root(self) -> str:
        """Name and SHA-256 of the last of them."""
        if not self.issuers:
            return "none"
        return f"{_common_name(self.issuers[-1])} ({certificates.fingerprint(self.issuers[-1])})"

    @cached_property
    def rules(self) -> str:
        """Which of them may not issue what it did; empty if each may."""
        for depth, each in enumerate(self.issuers):
            if problem := _rule(each, depth):
                return f"{_common_name(each)} {problem}"
        return ""


def of(key: bytes, given: Iterable[bytes], anchors: Iterable[bytes]) -> Path:
    """The chain of a key.

    Args:
        key: certificate of a VCEK or VLEK, DER, that :func:`vek.parse` reads.
        given: certificates that came with the evidence, DER, that :func:`authority` reads: never trusted by themselves.
        anchors: certificates that the operator hands in as roots, PEM or DER.

    Raises:
        InvalidRequest: an anchor is no certificate.
    """
    return _path(key, tuple(given), _anchors(tuple(anchors)))


@lru_cache(maxsize=16)
def _anchors(anchors: tuple[bytes, ...]) -> tuple[bytes, ...]:
    try:
        found = tuple(each.public_bytes(_DER) for anchor in anchors for each in certificates.load(anchor))
        for each in found:
            authority(each)
    except (ValueError, x509.InvalidVersion) as error:
        raise InvalidRequest(f"an anchor is no certificate: {error}") from None
    return found


@remembered(512)
def _path(key: bytes, given: tuple[bytes, ...], anchors: tuple[bytes, ...]) -> Path:
    leaf = vek.parse(key)
    for each in _known(given, anchors):
        if each.subject == leaf.issuer and leaf.signed_by(each.key):
            return _above(each, given, anchors)
    return Path((), False)


@remembered(512)
def _above(first: Authority, given: tuple[bytes, ...], anchors: tuple[bytes, ...]) -> Path:
    """The chain from an authority on."""
    roots = {pin.sha256 for pin in pins.AMD} | {authority(each).sha256 for each in anchors}
    found = [first]
    while found[-1].sha256 not in roots and len(found) < DEPTH_MAX:
        parent = next((each for each in _known(given, anchors) if _issued(found[-1], each)), None)
        if parent is None or parent.sha256 == found[-1].sha256:
            break
        found.append(parent)
    return Path(tuple(each.certificate for each in found), found[-1].sha256 in roots)


def _known(given: tuple[bytes, ...], anchors: tuple[bytes, ...]) -> Iterator[Authority]:
    """Those of the product first: what came with evidence does not take their place."""
    yield from shipped()
    yield from map(authority, anchors)
    yield from map(authority, given)


def _issued(certificate: Authority, issuer: Authority) -> bool:
    return certificate.issuer == issuer.subject and certificates.issued(certificate.certificate, issuer.certificate)


@lru_cache(maxsize=1)
def shipped() -> tuple[Authority, ...]:
    """ASK, ASVK and ARK of all lines, as they come with the product.

    Raises:
        InternalError: a root among them is not the one that is pinned: the installation was tampered with.
    """
    folder = resources.files("hanzo_compute.attestation").joinpath("roots")
    found: dict[str, Authority] = {}
    for name in _FILES:
        for certificate in certificates.load(folder.joinpath(name).read_bytes()):
            each = authority(certificate.public_bytes(_DER))
            if each.subject == each.issuer and all(pin.sha256 != each.sha256 for pin in pins.AMD):
                raise InternalError(f"{name} holds a root that is not pinned: {each.sha256}")
            found[each.sha256] = each
    return tuple(found.values())


@remembered(256)
def authority(certificate: bytes) -> Authority:
    """A certificate from its DER, remembered by its content.

    Raises:
        ValueError: it is none, or one whose names or key cannot be read.
    """
    found = certificates.load_one(certificate)
    try:
        key = found.public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    digest = certificates.fingerprint(found)
    return Authority(digest, found.subject.public_bytes(), found.issuer.public_bytes(), key, found)


def _rule(certificate: x509.Certificate, depth: int) -> str:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except _UNREADABLE:
        return "does not say that it is an authority"
    if any(each.critical and each.oid not in _UNDERSTOOD for each in extensions):
        return "has a critical extension that is not understood"
    if not constraints.ca or not usage.key_cert_sign:
        return "is no authority"
    if constraints.path_length is not None and depth > constraints.path_length:
        return f"allows {constraints.path_length} authorities below it; here are {depth}"
    return ""


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()
