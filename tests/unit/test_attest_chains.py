"""Certificates with something wrong in them are refused, by the check that it belongs to, and never by an error."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hanzo_compute.attestation import x509 as chains
from tests.support import pki

ROOT = pki.issue("root", ca=True)
LEAF = pki.issue("leaf", ROOT)
NAMED = (("leaf", LEAF), ("root", ROOT))
DIGESTS = (hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
PLACES = [(at, 1 << at % 8) for at in range(len(LEAF.der))]
KEY_USAGE, BASIC_CONSTRAINTS = bytes.fromhex("551d0f"), bytes.fromhex("551d13")
ECDSA_SHA384, P384 = bytes.fromhex("2a8648ce3d040303"), bytes.fromhex("2b81040022")


def verify(*ders: bytes, anchor: bytes = ROOT.der) -> chains.Chain:
    return chains.verify([chains.load_one(each) for each in ders], now_ms=pki.NOW_MS, anchors=[anchor])


def test_a_good_chain_is_good() -> None:
    assert verify(LEAF.der, ROOT.der).ok


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        (KEY_USAGE, BASIC_CONSTRAINTS, "rules"),
        (ECDSA_SHA384, ECDSA_SHA384[:-1] + b"\x7f", "links"),
        (P384, P384[:-1] + b"\x7f", "links"),
    ],
    ids=["an extension twice", "an unknown algorithm", "an unknown curve"],
)
@pytest.mark.parametrize("whose", ["leaf", "root"])
def test_what_is_wrong_is_named(whose: str, old: bytes, new: bytes, part: str) -> None:
    assert old in LEAF.der
    leaf, root = (each.der.replace(old, new) if name == whose else each.der for name, each in NAMED)
    chain = verify(leaf, root, anchor=root)
    assert not chain.ok
    assert getattr(chain, part)


def test_a_serial_number_that_is_not_positive_is_read() -> None:
    changed = bytearray(pki.issue("zero", ROOT, serial=1).der)
    at = changed.index(bytes.fromhex("a003020102020101")) + 7
    for serial in (0, 0xFF):
        changed[at] = serial
        assert "leaf is not signed" in verify(bytes(changed).replace(b"zero", b"leaf"), ROOT.der).links


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x80",
        LEAF.der[:-1],
        LEAF.der + b"\0",
        LEAF.der.replace(b"\x0c\x04leaf", b"\x0c\x04\xff\xff\xff\xff"),
        LEAF.der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),
        LEAF.der + bytes(chains.CERTIFICATE_MAX),
    ],
    ids=["empty", "no end", "cut", "a byte more", "a name that is no text", "an unknown version", "too large"],
)
def test_what_is_no_certificate_is_a_value_error(der: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        chains.load_one(der)


def test_a_chain_names_its_issuers_and_not_only_their_keys() -> None:
    other = pki.issue("other", ca=True, key=ROOT.key)
    assert verify(LEAF.der, other.der, anchor=other.der).links
    assert not chains.issued(LEAF.certificate, other.certificate)
    assert chains.issued(LEAF.certificate, ROOT.certificate)


def test_who_signed_is_as_the_library_says() -> None:
    """Of each certificate with one byte changed that the library still reads, and of kinds of keys."""
    rsa_root = pki.issue("rsa", ca=True, key=rsa.generate_private_key(65537, 2048))
    p256 = pki.issue("p256", ca=True, key=ec.generate_private_key(ec.SECP256R1()), digest=hashes.SHA256())
    leaves = [pki.issue("leaf", issuer, digest=digest) for issuer in (ROOT, rsa_root, p256) for digest in DIGESTS]
    changed = [LEAF.der[:at] + bytes((LEAF.der[at] ^ bit,)) + LEAF.der[at + 1 :] for at, bit in PLACES]
    said = {True: 0, False: 0}
    for der in [each.der for each in leaves] + changed + [_first_version(LEAF.der, ROOT.key)]:
        try:
            read = chains.read_one(der)
        except ValueError:
            continue
        for issuer in (ROOT, rsa_root, p256):
            ok = chains.signed_by(read, chains.read_one(issuer.der))
            assert ok is _library_says(read.loaded, issuer.certificate)
            said[ok] += 1
    assert said[True] >= len(leaves) + 1  # and sometimes one whose signature has a bit that does not count
    assert said[False] > 500


def _first_version(der: bytes, key: pki.Key) -> bytes:
    """The same without version and extensions."""
    from asn1crypto import x509 as asn1

    made = asn1.Certificate.load(der)
    body = made["tbs_certificate"]
    body["version"], body["extensions"] = "v1", None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    made["signature_value"] = key.sign(body.dump(force=True), ec.ECDSA(hashes.SHA384()))
    return bytes(made.dump(force=True))


def _library_says(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def test_extensions_that_cannot_be_read_are_a_value_error() -> None:
    twice = x509.load_der_x509_certificate(LEAF.der.replace(KEY_USAGE, BASIC_CONSTRAINTS))
    with pytest.raises(ValueError, match="Duplicate"):
        chains.extensions(twice)


def test_a_serial_number_that_is_not_positive_is_read_without_a_warning() -> None:
    """Genuine certificates of AMD's chips have the number 0, and others may."""
    from asn1crypto import x509 as asn1

    made = asn1.Certificate.load(pki.issue("a leaf").der)
    made["tbs_certificate"]["serial_number"] = 0
    certificate = chains.load_one(made.dump(force=True))
    with chains.odd_numbers():
        assert certificate.serial_number == 0
