"""The chain of a VCEK or VLEK to its root: ASK or ASVK, and ARK (AMD 57230, 2.2).

The intermediate certificates of all product lines come with the product, in ``roots/amd_*.pem``: as the AMD key
distribution service hands them out under ``/vcek/v1/{line}/cert_chain`` and ``/vlek/v1/{line}/cert_chain``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from importlib import resources
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hanzo_compute.attestation import pins
from hanzo_compute.attestation import x509 as certificates
from hanzo_compute.attestation.snp import vek
from hanzo_compute.errors import InternalError, InvalidRequest

DEPTH_MAX: Final = 4
_FILES: Final = tuple(f"amd_{line}{kind}.pem" for line in ("milan", "genoa", "turin") for kind in ("", "_vlek"))
_PINNED: Final = frozenset(pin.sha256 for pin in pins.AMD)
_DER: Final = serialization.Encoding.DER


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
        given: certificates that came with the evidence, DER: never trusted by themselves.
        anchors: certificates that the operator hands in as roots, PEM or DER.

    Raises:
        InvalidRequest: an anchor is no certificate.
        ValueError: something given is no certificate.
    """
    return _path(key, tuple(given), _anchors(tuple(anchors)))


@lru_cache(maxsize=16)
def _anchors(anchors: tuple[bytes, ...]) -> tuple[bytes, ...]:
    try:
        return tuple(each.public_bytes(_DER) for anchor in anchors for each in certificates.load(anchor))
    except ValueError as error:
        raise InvalidRequest(f"an anchor is no certificate: {error}") from None


@lru_cache(maxsize=512)
def _path(key: bytes, given: tuple[bytes, ...], anchors: tuple[bytes, ...]) -> Path:
    leaf = vek.parse(key)
    trusted = [*shipped(), *map(certificates.load_one, anchors)]
    roots = _PINNED.union(certificates.fingerprint(each) for each in trusted[len(shipped()) :])
    # Those of the product first: what came with evidence does not take their place.
    known = [*trusted, *map(certificates.load_one, given)]
    first = next((each for each in known if _names(each, leaf.issuer) and leaf.signed_by(each.public_key())), None)
    if first is None:
        return Path((), False)
    issuers = [first]
    while certificates.fingerprint(issuers[-1]) not in roots and len(issuers) < DEPTH_MAX:
        parent = _parent(issuers[-1], known)
        if parent is None or parent in issuers:
            return Path(tuple(issuers), False)
        issuers.append(parent)
    return Path(tuple(issuers), certificates.fingerprint(issuers[-1]) in roots)


@lru_cache(maxsize=1)
def shipped() -> tuple[x509.Certificate, ...]:
    """ASK, ASVK and ARK of all lines, as they come with the product.

    Raises:
        InternalError: a root among them is not the one that is pinned: the installation was tampered with.
    """
    folder = resources.files("hanzo_compute.attestation").joinpath("roots")
    found: dict[str, x509.Certificate] = {}
    for name in _FILES:
        for each in certificates.load(folder.joinpath(name).read_bytes()):
            digest = certificates.fingerprint(each)
            if each.subject == each.issuer and digest not in _PINNED:
                raise InternalError(f"{name} holds a root that is not pinned: {digest}")
            found[digest] = each
    return tuple(found.values())


def _names(certificate: x509.Certificate, name: bytes) -> bool:
    return certificate.subject.public_bytes() == name


def _parent(certificate: x509.Certificate, known: Sequence[x509.Certificate]) -> x509.Certificate | None:
    return next((each for each in known if certificates.issued(certificate, each)), None)


def _rule(certificate: x509.Certificate, depth: int) -> str:
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except (ValueError, x509.ExtensionNotFound):
        return "does not say that it is an authority"
    if not constraints.ca or not usage.key_cert_sign:
        return "is no authority"
    if constraints.path_length is not None and depth > constraints.path_length:
        return f"allows {constraints.path_length} authorities below it; here are {depth}"
    return ""


def _common_name(certificate: x509.Certificate) -> str:
    found = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else certificate.subject.rfc4514_string()
