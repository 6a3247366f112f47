"""Evidence of NVIDIA's devices in their formats, under an authority of our own: reports, chains, reference values."""

from __future__ import annotations

import base64
import datetime
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from lxml import etree

from tests.support.pki import NOT_AFTER, NOT_BEFORE, NOW_MS, Issued, issue, name

NONCE = bytes(range(32))
FWID = hashlib.sha384(b"firmware").digest()
DRIVER, VBIOS = "550.90.07", "96.00.9F.00.01"
NOW = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
ORIGIN = "http://www.w3.org/2000/09/xmldsig#"
SHA384_OID = bytes.fromhex("0609608648016503040202")


def value(index: int, of: str = "measured") -> bytes:
    return hashlib.sha384(f"{of} {index}".encode()).digest()


MEASURED = {index: value(index) for index in range(1, 65)}


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x81, size]) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def device_id(fwid: bytes, key: bytes = b"\x30\x00") -> bytes:
    """Hopper's and NVSwitch's extension."""
    return der(0x30, b"\x02\x01\x01", key, der(0x30, SHA384_OID, der(0x04, fwid)))


def tcb_info(fwid: bytes, flags: int = 0x80000001) -> bytes:
    """Blackwell's extension; the flags that NVIDIA ships are: not configured, and of fixed width."""
    fwids = der(0x30, SHA384_OID, der(0x04, fwid)) + der(0x30, SHA384_OID, der(0x04, bytes(48)))
    bits = b"\0" + flags.to_bytes(4, "big")
    return der(0x30, der(0x80, b"NVIDIA"), der(0x81, b"GB100 A01 GSP"), der(0xA6, fwids), der(0x87, bits))


@cache
def device_root() -> Issued:
    return issue(name("Test Device Identity CA"), ca=True)


@cache
def rim_root() -> Issued:
    return issue(name("Test CoRIM signing Root CA"), ca=True)


ANCHORS = (device_root().pem, rim_root().pem)


@dataclass(frozen=True)
class Device:
    """A device with its chain, leaf first."""

    chip: str
    chain: tuple[Issued, ...]
    fwid: bytes = FWID
    fields: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def pem(self) -> bytes:
        return b"".join(each.pem for each in self.chain)

    def report(
        self,
        nonce: bytes = NONCE,
        measured: Mapping[int, bytes] | Sequence[tuple[int, bytes]] = MEASURED,
        fields: Mapping[int, bytes] | None = None,
        slot: int = 0,
    ) -> bytes:
        blocks = list(measured.items() if isinstance(measured, Mapping) else measured)
        record = b"".join(struct.pack("<BBHBH", i, 1, len(v) + 3, 1, len(v)) + v for i, v in blocks)
        opaque = tlv({**self.fields, **(fields or {})})
        request = b"\x11\xe0\x01\xff" + nonce + bytes([slot])
        response = bytes([0x11, 0x60, 0, slot, len(blocks)]) + len(record).to_bytes(3, "little") + record
        return self.sign(request + response + bytes(32) + len(opaque).to_bytes(2, "little") + opaque)

    def sign(self, body: bytes) -> bytes:
        return body + raw(self.chain[0].key, body)

    def files(self, **changes: bytes) -> dict[str, bytes]:
        return {"report": self.report(), "chain": self.pem, **changes}


def tlv(fields: Mapping[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in fields.items() if data)


def raw(key: object, message: bytes) -> bytes:
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def device(
    chip: str = "GH100",
    *,
    fwid: bytes = FWID,
    extension: bytes | None = None,
    critical: bool = False,
    root: Issued | None = None,
    fields: Mapping[int, bytes] | None = None,
) -> Device:
    """A new one, of any chip: ``GH100``, ``GB100`` or ``LS_10``."""
    blackwell = chip.startswith("GB")
    oid = "2.23.133.5.4.1.1" if blackwell else "2.23.133.5.4.1"
    dice = extension if extension is not None else (tcb_info if blackwell else device_id)(fwid)
    root = root or device_root()
    product = issue(name(f"NVIDIA {chip} Identity"), root, ca=True)
    provisioner = issue(name(f"NVIDIA {chip} Provisioner ICA 1"), product, ca=True)
    rom = issue(name(f"{chip} A01 GSP BROM"), provisioner, ca=True)
    said = [(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), dice), critical)]
    leaf = issue(name(f"{chip} A01 GSP FMC LF"), rom, extensions=said)
    return Device(chip, (leaf, rom, provisioner, product, root), fwid, fields or opaque(chip, fwid))


def opaque(chip: str, fwid: bytes = FWID) -> dict[int, bytes]:
    if chip.startswith("LS"):
        return {6: b"96.10.55.00.01"}
    common = {
        6: bytes.fromhex("009f009601000000"),
        15: b"882\0",
        17: b"1010\0",
        18: b"0200\0",
        3: DRIVER.encode() + b"\0",
    }
    later = {35: f"{chip}\0".encode(), 34: b"\1\0", 36: b"\1\0"} if chip.startswith("GB") else {}
    return {**common, 11: b"\xaa", 20: fwid, **later}


@cache
def signer(not_after: datetime.datetime = NOT_AFTER, root: Issued | None = None) -> tuple[Issued, ...]:
    """Who signs reference values, leaf first."""
    top = root or rim_root()
    middle = issue(name("Reference Value CA"), top, ca=True)
    leaf = issue(name("RIM Signer"), middle, not_after=not_after)
    return (leaf, middle, top)


def payload(golden: Mapping[int, Sequence[bytes]], count: int = 64) -> str:
    lines = []
    for index in range(count):
        values = golden.get(index, [bytes(48)])
        hashed = " ".join(f'ns2:Hash{i}="{each.hex()}"' for i, each in enumerate(values))
        lines.append(
            f'<ns0:Resource type="Measurement" index="{index}" active="{index in golden}" '
            f'alternatives="{len(values)}" {hashed} name="Measurement_{index}" size="48"/>'
        )
    return "\n        ".join(lines)


def tag(golden: Mapping[int, Sequence[bytes]], *, version: str = DRIVER, product: str = "GH100") -> str:
    """A SWID tag, with a place for its signature."""
    swid = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
    return f"""<SoftwareIdentity xmlns="{swid}" xmlns:ns0="{swid}" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" \
name="{product}" tagId="1" version="1.0" tagVersion="0">
    <ns0:Entity name="Test" role="softwareCreator tagCreator"/>
    <ns0:Meta colloquialVersion="{version}" edition="GPU" product="{product}"/>
    <ns0:Payload>
        {payload(golden)}
    </ns0:Payload>
<SIGNATURE/></SoftwareIdentity>"""


def reference(uri: str, digest: bytes, second: str = "http://www.w3.org/2006/12/xml-c14n11") -> str:
    return (
        f'<ds:Reference URI="{uri}"><ds:Transforms><ds:Transform Algorithm="{ORIGIN}enveloped-signature"/>'
        f'<ds:Transform Algorithm="{second}"/></ds:Transforms>'
        '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/>'
        f"<ds:DigestValue>{base64.b64encode(digest).decode()}</ds:DigestValue></ds:Reference>"
    )


def digest(text: str) -> bytes:
    return hashlib.sha384(etree.tostring(etree.fromstring(text.encode()), method="c14n")).digest()


def signed(
    text: str,
    chain: Sequence[Issued] | None = None,
    *,
    references: str | None = None,
    method: str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
) -> bytes:
    """A tag with its signature in its place."""
    chain = chain or signer()
    plain = text.replace("<SIGNATURE/>", "")
    info = (
        '<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2006/12/xml-c14n11"/>'
        f'<ds:SignatureMethod Algorithm="{method}"/>{references or reference("", digest(plain))}</ds:SignedInfo>'
    )
    certificates = "".join(
        f"<ds:X509Certificate>{base64.b64encode(each.der).decode()}</ds:X509Certificate>" for each in chain
    )
    whole = text.replace(
        "<SIGNATURE/>",
        f'<ds:Signature xmlns:ds="{ORIGIN}">{info}<ds:SignatureValue>VALUE</ds:SignatureValue>'
        f"<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>",
    )
    found = etree.fromstring(whole.encode()).find(f".//{{{ORIGIN}}}SignedInfo")
    assert found is not None
    message = etree.tostring(found, method="c14n")
    return whole.replace("VALUE", base64.b64encode(raw(chain[0].key, message)).decode()).encode()


DRIVER_GOLDEN = {index: [value(index + 1)] for index in (7, 20, 34)}
VBIOS_GOLDEN = {index: [value(0, "old"), value(index + 1)] for index in (1, 2, 35)}


@cache
def driver_rim() -> bytes:
    return signed(tag(DRIVER_GOLDEN))


@cache
def vbios_rim() -> bytes:
    return signed(tag(VBIOS_GOLDEN, version=VBIOS))


def rims() -> dict[str, bytes]:
    return {"driver_rim": driver_rim(), "vbios_rim": vbios_rim()}


@dataclass(frozen=True)
class Answer:
    """An OCSP response that is to be made."""

    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    reason: x509.ReasonFlags | None = None
    this_update: datetime.datetime = NOW - datetime.timedelta(hours=1)
    next_update: datetime.datetime = NOW + datetime.timedelta(hours=1)
    nonce: bytes | None = None
    responder: Issued | None = None

    def of(self, certificate: Issued, issuer: Issued) -> bytes:
        responder = self.responder or appointed(issuer)
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                certificate.certificate,
                issuer.certificate,
                hashes.SHA384(),
                self.status,
                self.this_update,
                self.next_update,
                NOT_BEFORE if revoked else None,
                self.reason,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
            .certificates([responder.certificate])
        )
        if self.nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(self.nonce), critical=False)
        assert isinstance(responder.key, ec.EllipticCurvePrivateKey)
        return builder.sign(responder.key, hashes.SHA384()).public_bytes(serialization.Encoding.DER)


@cache
def appointed(issuer: Issued) -> Issued:
    """A responder that an authority lets answer for it."""
    usage = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), True)]
    return issue(name("Responder"), issuer, extensions=usage)


def answers(chain: Sequence[Issued], given: Answer | None = None, *, only: int | None = None) -> dict[str, bytes]:
    """A good response about each certificate of a chain but its root; about ``only`` one, the given."""
    made = {}
    for number, (certificate, issuer) in enumerate(pairwise(chain)):
        answer = given if given is not None and only in (None, number) else Answer(nonce=given.nonce if given else None)
        made[f"ocsp-{certificate.certificate.serial_number:x}"] = answer.of(certificate, issuer)
    return made


def on_hold() -> Answer:
    return Answer(ocsp.OCSPCertStatus.REVOKED, x509.ReasonFlags.certificate_hold)


def revoked() -> Answer:
    return replace(on_hold(), reason=x509.ReasonFlags.key_compromise)
