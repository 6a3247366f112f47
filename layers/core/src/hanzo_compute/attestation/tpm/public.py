"""Public areas and names of keys (TPM 2.0 Library, part 2, section 12.2; part 1, section 16)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.tpm.wire import DIGEST_MAX, ECC, ECDAA, NULL, RSA, RSAES, Reader, digest

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

KEY_MAX: Final = 4096
"""Bytes of a file with a public key."""
ENDORSEMENT: Final = 0x4000000B
HIERARCHIES: Final = {ENDORSEMENT: "endorsement", 0x40000001: "owner", 0x4000000C: "platform", 0x40000007: "null"}
"""TPM_RH handles: the name of a hierarchy is its handle."""

FIXED_TPM: Final = 1 << 1
SENSITIVE_DATA_ORIGIN: Final = 1 << 5
RESTRICTED: Final = 1 << 16
DECRYPT: Final = 1 << 17
SIGN: Final = 1 << 18
"""TPMA_OBJECT, section 8.3."""

_CURVES: Final[dict[int, type[ec.EllipticCurve]]] = {3: ec.SECP256R1, 4: ec.SECP384R1, 5: ec.SECP521R1}
_RSA_BITS: Final = (1024, 2048, 3072, 4096)
_RSA_BYTES: Final = 512
_COORDINATE: Final = 66
_HEADS: Final = (RSA.to_bytes(2, "big"), ECC.to_bytes(2, "big"))


@dataclass(frozen=True, slots=True)
class PublicArea:
    """TPMT_PUBLIC of an asymmetric key."""

    name_algorithm: int
    attributes: int
    symmetric: tuple[int, int, int] | None
    """Algorithm, bits and mode that a storage key protects its children with."""
    scheme: tuple[int, int | None] | None
    """Algorithm and hash that a key is bound to."""
    key: PublicKey
    raw: bytes = field(repr=False)

    @property
    def name(self) -> bytes:
        """The algorithm, and the digest of the public area."""
        return self.name_algorithm.to_bytes(2, "big") + digest(self.name_algorithm, self.raw)

    def has(self, *attributes: int) -> bool:
        """Whether all these attributes are set."""
        return all(self.attributes & each for each in attributes)

    def qualified_name(self, parent: bytes) -> bytes:
        """The name within a hierarchy, below ``parent``: its qualified name, or the handle of the hierarchy."""
        return self.name_algorithm.to_bytes(2, "big") + digest(self.name_algorithm, parent + self.name)


def primary(hierarchy: int) -> bytes:
    """The qualified name of a hierarchy."""
    return struct.pack(">I", hierarchy)


def load(data: bytes, what: str) -> tuple[PublicKey, PublicArea | None]:
    """A public key: SubjectPublicKeyInfo (PEM, DER), TPM2B_PUBLIC or TPMT_PUBLIC; with its area where that is there.

    Raises:
        Unreadable: it is none of these.
    """
    if len(data) > KEY_MAX:
        raise Unreadable(f"{what} has {len(data)} bytes; a public key has at most {KEY_MAX}")
    if data[:2] in _HEADS:
        area = parse(data, what)
        return area.key, area
    if data[2:4] in _HEADS and len(data) == 2 + int.from_bytes(data[:2], "big"):
        area = parse(data[2:], what)
        return area.key, area
    return _spki(data, what), None


def parse(data: bytes, what: str) -> PublicArea:
    """A TPMT_PUBLIC. Raises Unreadable."""
    reader = Reader(data, what)
    kind, name_algorithm, attributes = reader.number(2), reader.number(2), reader.number(4)
    digest(name_algorithm, b"")  # a name by an unknown algorithm is no name
    reader.sized(DIGEST_MAX)  # the policy that using it takes
    symmetric = _symmetric(reader)
    scheme = _scheme(reader)
    if kind == RSA:
        key: PublicKey = _rsa(reader, what)
    elif kind == ECC:
        key = _ecc(reader, what)
    else:
        raise Unreadable(f"{what} is of type 0x{kind:04x}, neither RSA nor ECC")
    reader.end()
    return PublicArea(name_algorithm, attributes, symmetric, scheme, key, data)


def rsa_key(modulus: int, exponent: int, what: str) -> rsa.RSAPublicKey:
    """An RSA key from its numbers. Raises Unreadable."""
    if modulus.bit_length() not in _RSA_BITS or not 3 <= exponent < 1 << 32:
        raise Unreadable(f"{what} has {modulus.bit_length()} bits and the exponent {exponent}: no key of a TPM")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise Unreadable(f"{what} is no RSA key: {error}") from None


def spki(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER: equal if and only if the keys are."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def supported(key: object, what: str) -> PublicKey:
    """The key, if a TPM can have it. Raises Unreadable."""
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return rsa_key(numbers.n, numbers.e, what)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, tuple(_CURVES.values())):
        return key
    raise Unreadable(f"{what} is neither an RSA key nor one on a NIST curve")


def _spki(data: bytes, what: str) -> PublicKey:
    try:
        if data.lstrip()[:1] == b"-":
            key = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_der_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unreadable(f"{what} is no public key: {error}") from None
    return supported(key, what)


def _symmetric(reader: Reader) -> tuple[int, int, int] | None:
    """TPMT_SYM_DEF_OBJECT, section 11.1.7."""
    algorithm = reader.number(2)
    return None if algorithm == NULL else (algorithm, reader.number(2), reader.number(2))


def _scheme(reader: Reader) -> tuple[int, int | None] | None:
    """TPMT_RSA_SCHEME or TPMT_ECC_SCHEME, sections 11.2.4.2 and 11.2.5.6."""
    algorithm = reader.number(2)
    if algorithm == NULL:
        return None
    hashed = None if algorithm == RSAES else reader.number(2)
    if algorithm == ECDAA:
        reader.number(2)
    return algorithm, hashed


def _rsa(reader: Reader, what: str) -> rsa.RSAPublicKey:
    bits, exponent = reader.number(2), reader.number(4)
    modulus = int.from_bytes(reader.sized(_RSA_BYTES), "big")
    if modulus.bit_length() != bits:
        raise Unreadable(f"{what} says {bits} bits, and has {modulus.bit_length()}")
    return rsa_key(modulus, exponent or 65537, what)  # 0 stands for the default


def _ecc(reader: Reader, what: str) -> ec.EllipticCurvePublicKey:
    number = reader.number(2)
    if reader.number(2) != NULL:  # a key derivation scheme and its hash
        reader.number(2)
    x, y = (int.from_bytes(reader.sized(_COORDINATE), "big") for _ in range(2))
    curve = _CURVES.get(number)
    if curve is None:
        raise Unreadable(f"{what} is on the curve 0x{number:04x}, not on a NIST curve of 256 bits or more")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
    except ValueError as error:
        raise Unreadable(f"{what} is no point of its curve: {error}") from None
