"""The certificate of a platform's provisioning certification key (PCK), and what its extension says.

Intel SGX PCK Certificate and Certificate Revocation List Profile Specification, revision 1.5, section 1.3.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hanzo_compute.attestation import x509 as chains

CHAIN_SIZE: Final = 3
"""PCK, its authority (platform or processor), root."""
PCK_NAME: Final = "Intel SGX PCK Certificate"
AUTHORITIES: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
TCB_SIGNER: Final = "Intel SGX TCB Signing"
_CACHED: Final = 1024
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
# 1.2.840.113741.1.13.1, and in DER the part that the OIDs under it start with.
_EXTENSION: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_PREFIX: Final = bytes.fromhex("2a864886f84d010d01")
_SEQUENCE, _INTEGER, _OCTETS, _OID = 0x30, 0x02, 0x04, 0x06


@dataclass(frozen=True, slots=True)
class Pck:
    """What a PCK certificate says of its platform."""

    key: ec.EllipticCurvePublicKey
    serial: int
    authority: str
    """Common name of its issuer."""
    fmspc: bytes
    """Family, model, stepping, platform and custom SKU: 6 bytes."""
    pceid: bytes
    """2 bytes."""
    components: tuple[int, ...]
    """Security versions of the 16 components of the SGX TCB."""
    pcesvn: int


@lru_cache(maxsize=_CACHED)
def read_chain(pem: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM text, with nothing between them but white space, and perhaps a zero at its end.

    Raises:
        ValueError: it is not of that form.
    """
    found: list[x509.Certificate] = []
    rest = pem.rstrip(b"\0").strip()
    while rest:
        start, begin, rest = rest.partition(_BEGIN)
        body, end, rest = rest.partition(_END)
        if start.strip() or not begin or not end or len(found) == chains.CHAIN_MAX:
            raise ValueError("it is no PEM text of certificates alone")
        try:
            der = base64.b64decode(b"".join(body.split()), validate=True)
        except binascii.Error as error:
            raise ValueError(f"a certificate is no base64 ({error})") from None
        found.append(chains.load_one(der))
    return tuple(found)


@lru_cache(maxsize=_CACHED)
def read(certificate: x509.Certificate) -> Pck:
    """What a PCK certificate says.

    Raises:
        ValueError: its name, key or extension is none of a PCK certificate.
    """
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("its key is not of curve P-256")
    authority = _common_name(certificate.issuer)
    if subject(certificate) != PCK_NAME or authority not in AUTHORITIES:
        raise ValueError(f"it names {certificate.subject.rfc4514_string()}, issued by {authority}")
    try:
        raw = certificate.extensions.get_extension_for_oid(_EXTENSION).value
    except x509.ExtensionNotFound:
        raise ValueError("it has no SGX extension") from None
    fields = dict(_fields(raw.public_bytes()))
    tcb = dict(_fields(_whole(fields.get(b"\x02"), _SEQUENCE)))
    components = tuple(_small(tcb.get(b"\x02" + bytes([number])), 0xFF) for number in range(1, 17))
    return Pck(
        key,
        certificate.serial_number,
        authority,
        _octets(fields.get(b"\x04"), 6),
        _octets(fields.get(b"\x03"), 2),
        components,
        _small(tcb.get(b"\x02\x11"), 0xFFFF),
    )


@lru_cache(maxsize=_CACHED)
def subject(certificate: x509.Certificate) -> str:
    """The common name of a certificate's subject, if it has one."""
    return _common_name(certificate.subject)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _fields(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Of a SEQUENCE of SEQUENCEs of an OID and a value: what follows the prefix of the OID, and the value's DER."""
    body, rest = _value(data, _SEQUENCE)
    if rest:
        raise ValueError("bytes follow the SGX extension")
    seen: set[bytes] = set()
    while body:
        pair, body = _value(body, _SEQUENCE)
        oid, value = _value(pair, _OID)
        if not oid.startswith(_PREFIX) or oid in seen:
            raise ValueError("the SGX extension has an OID that is not of it, or one twice")
        seen.add(oid)
        yield oid[len(_PREFIX) :], value


def _value(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first DER value, which has this tag, and what follows it."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError(f"the SGX extension has no value of tag 0x{tag:02x} where one belongs")
    size, at = data[1], 2
    if size >= 0x80:
        count = size & 0x7F
        size, at = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
        if not 1 <= count <= 2 or size < 0x80 or (count == 2 and size < 0x100):
            raise ValueError("the SGX extension has a length that is no DER")
    if len(data) < at + size:
        raise ValueError("the SGX extension is cut off")
    return data[at : at + size], data[at + size :]


def _whole(data: bytes | None, tag: int) -> bytes:
    """A DER value of this tag that nothing follows."""
    if data is None:
        raise ValueError("the SGX extension lacks a field")
    _, rest = _value(data, tag)
    if rest:
        raise ValueError("a field of the SGX extension is too long")
    return data


def _octets(data: bytes | None, size: int) -> bytes:
    content, _ = _value(_whole(data, _OCTETS), _OCTETS)
    if len(content) != size:
        raise ValueError(f"a field of the SGX extension has {len(content)} bytes, not {size}")
    return content


def _small(data: bytes | None, limit: int) -> int:
    content, _ = _value(_whole(data, _INTEGER), _INTEGER)
    number = int.from_bytes(content, "big", signed=True)
    if not content or not 0 <= number <= limit:
        raise ValueError("a security version of the SGX extension is out of range")
    return number
