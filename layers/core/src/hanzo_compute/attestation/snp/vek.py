"""Certificates of the keys that sign reports: VCEK, of a chip, and VLEK, of a cloud provider (AMD 57230, chapter 3).

AMD gives them all the serial number 0, which RFC 5280 forbids and libraries refuse; so they are read here, byte by
byte, and with no more leeway than AMD has used. Two things have been encoded in two ways, and both are read: the
hardware id (its bytes themselves, or an OCTET STRING of them) and the parameters of RSASSA-PSS (with and without
the trailer field, whose value is the default).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from hanzo_compute.attestation import der
from hanzo_compute.attestation.remembered import remembered
from hanzo_compute.attestation.snp import products
from hanzo_compute.attestation.snp.products import Line

_ARC: Final = "1.3.6.1.4.1.3704.1."
_SPL: Final = {
    _ARC + "3.1": "bl",
    _ARC + "3.2": "tee",
    _ARC + "3.3": "snp",
    _ARC + "3.4": "spl4",
    _ARC + "3.5": "spl5",
    _ARC + "3.6": "spl6",
    _ARC + "3.7": "spl7",
    _ARC + "3.8": "ucode",
    _ARC + "3.9": "fmc",
}
_STRUCTURE, _PRODUCT, _HARDWARE_ID, _CSP_ID = (_ARC + each for each in ("1", "2", "4", "5"))
_COMMON_NAME: Final = "2.5.4.3"
_KINDS: Final = {"SEV-VCEK": "VCEK", "SEV-VLEK": "VLEK"}

_SHA384: Final = bytes.fromhex("300d06096086480165030402020500")
_PSS_OID: Final = bytes.fromhex("06092a864886f70d01010a")
_PSS: Final = b"".join(
    (
        bytes.fromhex("a00f") + _SHA384,
        bytes.fromhex("a11c301a06092a864886f70d010108") + _SHA384,
        bytes.fromhex("a203020130"),
    )
)
_TRAILER: Final = bytes.fromhex("a303020101")
ALGORITHMS: Final = (
    bytes.fromhex("3041") + _PSS_OID + bytes.fromhex("3034") + _PSS,
    bytes.fromhex("3046") + _PSS_OID + bytes.fromhex("3039") + _PSS + _TRAILER,
)
"""RSASSA-PSS with SHA-384, MGF1 of SHA-384 and a salt of 48 bytes."""
# SubjectPublicKeyInfo of a P-384 key up to its point, which is uncompressed.
_P384: Final = bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004")
_PADDING: Final = padding.PSS(padding.MGF1(hashes.SHA384()), 48)


@dataclass(frozen=True, slots=True)
class Vek:
    """What a certificate says."""

    kind: str
    """``VCEK`` or ``VLEK``, by its subject."""
    issuer: bytes
    """Name of its issuer, DER."""
    window: tuple[datetime, datetime]
    """From when to when it is valid."""
    product: str
    line: Line
    spl: Mapping[str, int]
    """Components of the TCB version that it was made for."""
    tcb: bytes | None
    """The same as 8 bytes; None if they are not the components of its line."""
    hardware_id: bytes | None
    """Of a VCEK."""
    csp_id: str | None
    """Of a VLEK: which cloud provider it was lent to."""
    key: ec.EllipticCurvePublicKey
    tbs: bytes
    signature: bytes
    claims: Mapping[str, Any]
    """What it says, as JSON."""

    @property
    def shown_window(self) -> str:
        """From when to when it is valid, for people."""
        return " to ".join(self.claims["vek_validity"])

    @property
    def issuer_name(self) -> str:
        """Common name of its issuer, empty if it has none or cannot be read."""
        try:
            return _common_name(der.read(self.issuer))
        except ValueError:
            return ""

    def signed_by(self, issuer: object) -> bool:
        """Whether a public key has signed it: RSASSA-PSS over the certificate's own bytes."""
        if not isinstance(issuer, rsa.RSAPublicKey):
            return False
        try:
            issuer.verify(self.signature, self.tbs, _PADDING, hashes.SHA384())
        except InvalidSignature:
            return False
        return True


@remembered(1024)
def parse(data: bytes) -> Vek:
    """A VCEK's or VLEK's certificate from its DER, remembered by its content.

    Raises:
        ValueError: it is none, or not as AMD makes them.
    """
    tbs, algorithm, signature = _exactly(der.read(data).children(), 3, "certificate")
    version, serial, inner, issuer, validity, subject, key, extensions = _exactly(tbs.children(), 8, "certificate")
    if algorithm.encoded not in ALGORITHMS or inner.encoded != algorithm.encoded:
        raise ValueError("its signature is not RSASSA-PSS with SHA-384 as AMD makes it")
    if version.encoded != b"\xa0\x03\x02\x01\x02":
        raise ValueError("it is no X.509 certificate of version 3")
    serial.integer()
    kind = _KINDS.get(_common_name(subject))
    if kind is None:
        raise ValueError("its subject is neither SEV-VCEK nor SEV-VLEK")
    not_before, not_after = (each.time() for each in _exactly(validity.children(), 2, "validity"))
    found = _extensions(extensions)
    structure = der.read(_taken(found, _STRUCTURE)).integer()
    if structure not in (0, 1):
        raise ValueError(f"its structure has version {structure}; 0 and 1 are known")
    product = der.read(_taken(found, _PRODUCT)).expect(der.IA5_STRING).text()
    line = products.by_name(product)
    if line is None:
        raise ValueError(f"its product {product[:32]!r} is not one that is known")
    spl = {name: _spl(found.pop(oid)) for oid, name in _SPL.items() if oid in found}
    hardware_id = _hardware_id(_taken(found, _HARDWARE_ID), line) if kind == "VCEK" else None
    csp_id = der.read(_taken(found, _CSP_ID)).expect(der.IA5_STRING).text() if kind == "VLEK" else None
    if strange := next((oid for oid in found if oid.startswith(_ARC)), None):
        raise ValueError(f"it has an extension {strange}, which is not one of a {kind}")
    return Vek(
        kind=kind,
        issuer=issuer.encoded,
        window=(not_before, not_after),
        product=product,
        line=line,
        spl=spl,
        tcb=_tcb(spl, line),
        hardware_id=hardware_id,
        csp_id=csp_id,
        key=_key(key.encoded),
        tbs=tbs.encoded,
        signature=signature.bits(),
        claims={
            "vek": {
                "structv": structure,
                "product": product,
                **{name: spl[name] for name in products.COMPONENTS if name in spl},
                **({} if csp_id is None else {"csp": csp_id}),
            },
            "vek_validity": [str(not_before), str(not_after)],
            "vek_sha256": sha256(data).hexdigest(),
        },
    )


def _exactly(values: list[der.Value], count: int, what: str) -> list[der.Value]:
    if len(values) != count:
        raise ValueError(f"its {what} has {len(values)} parts instead of {count}")
    return values


def _common_name(name: der.Value) -> str:
    found = []
    for relative in name.children():
        for attribute in relative.children(der.SET):
            kind, value = _exactly(attribute.children(), 2, "name")
            if kind.oid() == _COMMON_NAME:
                found.append(value.text())
    return found[0] if len(found) == 1 else ""


def _extensions(value: der.Value) -> dict[str, bytes]:
    """Values of all extensions by their identifiers."""
    found: dict[str, bytes] = {}
    for each in _exactly(value.children(0xA3), 1, "extensions")[0].children():
        oid, *rest = each.children()
        name = oid.oid()
        if len(rest) == 2 and rest.pop(0).boolean():
            # None of AMD's is critical, and what is critical and not understood must be refused.
            raise ValueError(f"its extension {name} is critical, which is not understood")
        if name in found:
            raise ValueError(f"its extension {name} is there twice")
        found[name] = _exactly(rest, 1, "extension")[0].octets()
    return found


def _taken(found: dict[str, bytes], oid: str) -> bytes:
    if oid not in found:
        raise ValueError(f"it lacks the extension {oid}")
    return found.pop(oid)


def _spl(data: bytes) -> int:
    value = der.read(data).integer()
    if value > 0xFF:
        raise ValueError(f"a component of its TCB version is {value}; it has 8 bits")
    return value


def _tcb(spl: Mapping[str, int], line: Line) -> bytes | None:
    layout = line.layout
    needed = {name for name in products.COMPONENTS if name in layout}
    if not needed <= spl.keys() <= layout.keys():
        return None
    return bytes(spl.get(name, 0) for name in sorted(layout, key=layout.__getitem__))


def _hardware_id(data: bytes, line: Line) -> bytes:
    size = line.chip_id_size
    if len(data) == size + 2 and data[:2] == bytes((der.OCTET_STRING, size)):
        return data[2:]
    if len(data) == size:
        return data
    raise ValueError(f"its hardware id has not the {size} bytes of {line}")


def _key(info: bytes) -> ec.EllipticCurvePublicKey:
    if len(info) != len(_P384) + 96 or not info.startswith(_P384):
        raise ValueError("its key is not an uncompressed point of P-384")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), info[len(_P384) - 1 :])
