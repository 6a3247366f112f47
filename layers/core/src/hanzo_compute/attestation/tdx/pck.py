"""The certificate of a platform's provisioning certification key (PCK), and what its extension says.

Intel SGX PCK Certificate and Certificate Revocation List Profile Specification, revision 1.5, section 1.3.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hanzo_compute.attestation import der
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.pins import INTEL
from hanzo_compute.attestation.remembered import remembered
from hanzo_compute.attestation.tdx.ecdsa import key_of

CHAIN_SIZE: Final = 3
"""PCK, its authority (platform or processor), root."""
PCK_NAME: Final = "Intel SGX PCK Certificate"
AUTHORITIES: Final = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
TCB_SIGNER: Final = "Intel SGX TCB Signing"
_CACHED: Final = 1024
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_EXTENSION: Final = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_UNDER: Final = "1.2.840.113741.1.13.1."


@dataclass(frozen=True, slots=True, eq=False)
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


@dataclass(frozen=True, slots=True)
class Known:
    """What of a chain depends on neither the time nor an anchor; each text is empty where it holds."""

    chain: chains.Chain
    """Its root is compared with the product's pins alone, and its validity is not looked at."""
    pck: Pck | None
    problem: str
    """Why its leaf is no PCK certificate."""
    validity: tuple[str, str]
    """Of its leaf, for people."""
    authority: bytes
    """DER of its second certificate."""
    root: bytes
    """DER of its last certificate."""


@remembered(_CACHED)
def know(pem: bytes) -> Known:
    """What there is to know of a PCK chain, remembered by its content.

    Raises:
        ValueError: it is no PEM text of three certificates.
    """
    certificates = read_chain(pem)
    if len(certificates) != CHAIN_SIZE:
        raise ValueError(f"a PCK chain has {CHAIN_SIZE} certificates; this has {len(certificates)}")
    leaf, authority, root = certificates
    pck, problem = None, ""
    try:
        pck = read(leaf)
    except ValueError as error:
        problem = str(error)
    return Known(
        chains.verify(certificates, now_ms=0, pins=INTEL),
        pck,
        problem,
        (str(leaf.not_valid_before_utc), str(leaf.not_valid_after_utc)),
        authority.public_bytes(Encoding.DER),
        root.public_bytes(Encoding.DER),
    )


@remembered(_CACHED)
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
            found.append(chains.load_one(base64.b64decode(b"".join(body.split()), validate=True)))
        except binascii.Error as error:
            raise ValueError(f"a certificate is no base64 ({error})") from None
    return tuple(found)


def read(certificate: x509.Certificate) -> Pck:
    """What a PCK certificate says.

    Raises:
        ValueError: its name, key or extension is none of a PCK certificate.
    """
    key = key_of(certificate)
    if key is None:
        raise ValueError("its key is not of curve P-256")
    authority = common_name(certificate.issuer)
    if common_name(certificate.subject) != PCK_NAME or authority not in AUTHORITIES:
        raise ValueError(f"it names {certificate.subject.rfc4514_string()}, issued by {authority}")
    try:
        raw = chains.extensions(certificate).get_extension_for_oid(_EXTENSION).value.public_bytes()
    except x509.ExtensionNotFound:
        raise ValueError("it has no SGX extension") from None
    fields = _fields(der.read(raw))
    tcb = _fields(_field(fields, "2"))
    components = tuple(_number(tcb, f"2.{number}", 0xFF) for number in range(1, 17))
    with chains.odd_numbers():
        serial = certificate.serial_number
    return Pck(
        key,
        serial,
        authority,
        _octets(fields, "4", 6),
        _octets(fields, "3", 2),
        components,
        _number(tcb, "2.17", 0xFFFF),
    )


def common_name(name: x509.Name) -> str:
    """The one common name of a subject or issuer, or an empty text."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _fields(sequence: der.Value) -> dict[str, der.Value]:
    """Of a SEQUENCE of pairs of an OID and a value: the values by what follows :data:`_EXTENSION` in the OID."""
    fields: dict[str, der.Value] = {}
    for pair in sequence.children():
        match pair.children():
            case [oid, value] if (name := oid.oid()).startswith(_UNDER):
                if name in fields:
                    raise ValueError("the SGX extension has a field twice")
                fields[name.removeprefix(_UNDER)] = value
            case _:
                raise ValueError("the SGX extension has a field that is not of it")
    return fields


def _octets(fields: Mapping[str, der.Value], name: str, size: int) -> bytes:
    content = _field(fields, name).octets()
    if len(content) != size:
        raise ValueError(f"field {name} of the SGX extension has {len(content)} bytes, not {size}")
    return content


def _number(fields: Mapping[str, der.Value], name: str, limit: int) -> int:
    number = _field(fields, name).integer()
    if number > limit:
        raise ValueError(f"field {name} of the SGX extension is {number}, above {limit}")
    return number


def _field(fields: Mapping[str, der.Value], name: str) -> der.Value:
    if name not in fields:
        raise ValueError(f"the SGX extension lacks field {name}")
    return fields[name]
