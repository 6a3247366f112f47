"""Evidence of SEV-SNP under an authority of our own: reports, and certificates of keys in AMD's very form."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hanzo_compute.attestation import AttestationResult, Policy, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support.pki import NOT_AFTER, NOT_BEFORE, NOW_MS, Issued, issue

PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
ORDER = int("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)
OFFSETS = {
    "version": (0x000, "<I"),
    "guest_svn": (0x004, "<I"),
    "policy": (0x008, "<Q"),
    "family_id": (0x010, "16s"),
    "image_id": (0x020, "16s"),
    "vmpl": (0x030, "<I"),
    "sig_algo": (0x034, "<I"),
    "current_tcb": (0x038, "8s"),
    "platform_info": (0x040, "<Q"),
    "flags": (0x048, "<I"),
    "report_data": (0x050, "64s"),
    "measurement": (0x090, "48s"),
    "host_data": (0x0C0, "32s"),
    "id_key_digest": (0x0E0, "48s"),
    "author_key_digest": (0x110, "48s"),
    "report_id": (0x140, "32s"),
    "reported_tcb": (0x180, "8s"),
    "cpuid": (0x188, "3s"),
    "chip_id": (0x1A0, "64s"),
    "committed_tcb": (0x1E0, "8s"),
    "launch_tcb": (0x1F0, "8s"),
}
CPUID = {"Milan": b"\x19\x01\x01", "Genoa": b"\x19\x11\x01", "Turin": b"\x1a\x02\x01"}
TCB = {
    "Milan": bytes((4, 0, 0, 0, 0, 0, 24, 219)),
    "Genoa": bytes((10, 0, 0, 0, 0, 0, 23, 84)),
    "Turin": bytes((1, 1, 1, 4, 0, 0, 0, 81)),
}
SPL = {
    "Milan": {1: 0, 2: 1, 4: 2, 5: 3, 6: 4, 7: 5, 3: 6, 8: 7},
    "Turin": {9: 0, 1: 1, 2: 2, 3: 3, 5: 4, 6: 5, 7: 6, 8: 7},
}
"""Which byte of a TCB version the extension 3.n is of."""
GENUINE_POLICY = 0x3001F
"""SMT, the bit that is always one, and ABI 0.31."""


def tlv(tag: int, *parts: bytes) -> bytes:
    """A value in DER."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | octets)) + size.to_bytes(octets, "big") + content


def oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    content = bytes((first * 40 + second,))
    for part in rest:
        groups = [part & 0x7F]
        while part := part >> 7:
            groups.append(part & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return tlv(0x06, content)


def integer(value: int) -> bytes:
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def name(common: str) -> x509.Name:
    """AMD's names: the parts in the order that AMD has them."""
    kind = x509.NameOID
    parts = [
        (kind.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (kind.COUNTRY_NAME, "US"),
        (kind.LOCALITY_NAME, "Santa Clara"),
        (kind.STATE_OR_PROVINCE_NAME, "CA"),
        (kind.ORGANIZATION_NAME, "Advanced Micro Devices"),
        (kind.COMMON_NAME, common),
    ]
    return x509.Name([x509.NameAttribute(each, text) for each, text in parts])


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    """Keys of authorities. They are small, as making them is slow: how large they are is for the root to say."""
    assert number >= 0
    return rsa.generate_private_key(65537, 2048)


@cache
def chip_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    assert number >= 0
    return ec.generate_private_key(ec.SECP384R1())


@cache
def ark(line: str, key: int = 0) -> Issued:
    return issue(name(f"ARK-{line}"), key=rsa_key(key), ca=True, serial=65536, padding=PSS)


@cache
def ask(line: str, kind: str = "VCEK", key: int = 1, root: int = 0, ca: bool = True) -> Issued:
    common = f"SEV-{line}" if kind == "VCEK" else f"SEV-VLEK-{line}"
    issuer = ark(line, root)
    path_length = 0 if ca else None
    return issue(name(common), issuer, key=rsa_key(key), ca=ca, path_length=path_length, serial=65537, padding=PSS)


def crl(root: Issued, *serials: int, last: Any = NOT_BEFORE, following: Any = NOT_AFTER, key: Any = None) -> bytes:
    """A list of revoked certificates in DER."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(root.certificate.subject)
    builder = builder.last_update(last).next_update(following)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOT_BEFORE).build()
        builder = builder.add_revoked_certificate(entry)
    signed = builder.sign(key or root.key, hashes.SHA384(), rsa_padding=PSS)
    return signed.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True)
class Vek:
    """A certificate of a key, as AMD makes them unless told otherwise."""

    line: str = "Milan"
    kind: str = "VCEK"
    product: str = ""
    tcb: bytes = b""
    hardware_id: bytes = b""
    csp_id: str = "CN=cc-us-east-2.amazonaws.com"
    wrapped: bool = False
    trailer: bool = False
    serial: int = 0
    not_before: Any = NOT_BEFORE
    not_after: Any = NOT_AFTER
    issuer: Issued | None = None
    key: int = 0
    changed: Mapping[str, bytes | None] = field(default_factory=dict)
    """Extensions by their identifiers that have other values, or are not there."""
    critical: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    public: bytes = b""

    def der(self) -> bytes:
        """The certificate, signed by its issuer over its own bytes."""
        issuer = self.issuer or ask(self.line, self.kind)
        algorithm = self.algorithm()
        tbs = tlv(
            0x30,
            tlv(0xA0, integer(2)),
            integer(self.serial),
            algorithm,
            issuer.certificate.subject.public_bytes(),
            tlv(
                0x30,
                *(tlv(0x17, each.strftime("%y%m%d%H%M%SZ").encode()) for each in (self.not_before, self.not_after)),
            ),
            name(f"SEV-{self.kind}").public_bytes(),
            self.public or self.spki(),
            tlv(0xA3, tlv(0x30, *self.extensions())),
        )
        assert isinstance(issuer.key, rsa.RSAPrivateKey)
        signature = issuer.key.sign(tbs, PSS, hashes.SHA384())
        return tlv(0x30, tbs, algorithm, tlv(0x03, b"\0", signature))

    def spki(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return chip_key(self.key).public_key().public_bytes(serialization.Encoding.DER, form)

    def algorithm(self) -> bytes:
        sha384 = tlv(0x30, oid("2.16.840.1.101.3.4.2.2"), tlv(0x05))
        parameters = [tlv(0xA0, sha384), tlv(0xA1, tlv(0x30, oid("1.2.840.113549.1.1.8"), sha384))]
        parameters += [tlv(0xA2, integer(48)), *([tlv(0xA3, integer(1))] if self.trailer else [])]
        return tlv(0x30, oid("1.2.840.113549.1.1.10"), tlv(0x30, *parameters))

    def extensions(self) -> list[bytes]:
        layout = SPL["Turin" if self.line == "Turin" else "Milan"]
        tcb = self.tcb or TCB[self.line]
        values: dict[str, bytes | None] = {
            "1": integer(1 if self.line == "Turin" else 0),
            "2": tlv(0x16, (self.product or {"Milan": "Milan-B0"}.get(self.line, self.line)).encode()),
            **{f"3.{number}": integer(tcb[at]) for number, at in layout.items()},
        }
        if self.kind == "VCEK":
            chip = self.hardware_id or hardware_id(self.line)
            values["4"] = tlv(0x04, chip) if self.wrapped else chip
        else:
            values["5"] = tlv(0x16, self.csp_id.encode())
        values |= self.changed
        return [
            tlv(0x30, oid(f"1.3.6.1.4.1.3704.1.{number}"), *self._flag(number), tlv(0x04, value))
            for number, value in values.items()
            if value is not None
            for _ in range(2 if number in self.twice else 1)
        ]

    def _flag(self, number: str) -> list[bytes]:
        return [tlv(0x01, b"\xff")] if number in self.critical else []


def hardware_id(line: str) -> bytes:
    return bytes(range(1, 9)) if line == "Turin" else bytes(range(64, 128))


def report(line: str = "Milan", *, key: int = 0, **fields: Any) -> bytes:
    """A report of 1184 bytes, signed with a chip's key; each field can be given."""
    tcb = TCB[line]
    said: dict[str, Any] = {
        "version": 5 if line == "Turin" else 3,
        "policy": GENUINE_POLICY,
        "sig_algo": 1,
        "platform_info": 0x25,
        "report_data": bytes(range(64)),
        "measurement": bytes(range(100, 148)),
        "chip_id": hardware_id(line).ljust(64, b"\0"),
        "cpuid": CPUID[line],
        **dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), tcb),
        **fields,
    }
    raw = bytearray(1184)
    for which, value in said.items():
        offset, form = OFFSETS[which]
        struct.pack_into(form, raw, offset, value)
    return sign(bytes(raw), key)


def sign(raw: bytes, key: int = 0) -> bytes:
    """A report with its signature made anew: two numbers, little-endian, in fields of 72 bytes."""
    r, s = decode_dss_signature(chip_key(key).sign(raw[:0x2A0], ec.ECDSA(hashes.SHA384())))
    return raw[:0x2A0] + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)


def cert_table(**certificates: bytes) -> bytes:
    """The table that a host hands over beside a report, by GUIDs of the GHCB specification."""
    guids = {
        "vcek": "63da758de6644564adc5f4b93be8accd",
        "vlek": "a8074bc2a25a483eaae639c045a0b8a1",
        "ask": "4ab7b379bbac4fe4a02f05aef327c782",
        "ark": "c0b406a4a803495297433fb6014cd0ae",
        "other": "00112233445566778899aabbccddeeff",
    }
    at = 24 * (len(certificates) + 1)
    entries, data = b"", b""
    for which, der in certificates.items():
        entries += bytes.fromhex(guids[which]) + struct.pack("<II", at + len(data), len(der))
        data += der
    return entries + bytes(24) + data


@dataclass(frozen=True)
class Guest:
    """Evidence of one guest, accepted as it is; what is given differs."""

    line: str = "Milan"
    kind: str = "VCEK"
    fields: Mapping[str, Any] = field(default_factory=dict)
    vek: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    anchors: tuple[bytes, ...] | None = None

    def but(self, **fields: Any) -> Guest:
        """The same with other fields of the report."""
        return replace(self, fields={**self.fields, **fields})

    def evidence(self) -> Evidence:
        flags = {"flags": 4, "chip_id": bytes(64)} if self.kind == "VLEK" else {}
        files: dict[str, bytes | None] = {
            "report": report(self.line, **{**flags, **self.fields}),
            "vek": Vek(**{"line": self.line, "kind": self.kind, **self.vek}).der(),
            "chain": ask(self.line, self.kind).pem + ark(self.line).pem,
            **self.files,
        }
        return Evidence(Platform.SNP, {which: data for which, data in files.items() if data is not None})

    def appraise(self, policy: Policy | Mapping[str, Any] | None = None, **given: Any) -> AttestationResult:
        """The result under ``baseline``, or under it with another section on SNP, with our own root as an anchor."""
        if not isinstance(policy, Policy):
            policy = with_snp(policy) if policy else builtin("baseline")
        anchors = (ark(self.line).pem,) if self.anchors is None else self.anchors
        return appraise(self.evidence(), policy, {}, given.pop("now_ms", NOW_MS), anchors=anchors, **given)


def with_snp(section: Mapping[str, Any]) -> Policy:
    """``baseline`` with a section on SNP."""
    return from_document({**builtin("baseline").model_dump(), "snp": dict(section)})
