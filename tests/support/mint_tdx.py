"""Quotes of TDX and SGX, and Intel's collateral for them, under an authority of our own."""

from __future__ import annotations

import datetime
import hashlib
import json
import struct
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from hanzo_compute.attestation.tdx.quote import INTEL_QE
from tests.support.pki import NOW_MS, Issued, issue

NOW = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
DAY = datetime.timedelta(days=1)
FMSPC = "00606a000000"
QE_SIGNER = {"TDX": "aa" * 32, "SGX": "bb" * 32}
QE_PRODUCT = {"TDX": 2, "SGX": 1}
QE_ATTRIBUTES = "11000000000000000000000000000000"
TEE_TCB_SVN = bytes([5, 0, 3]) + bytes(13)
"""Of a module of version 0; :data:`VERSIONED` is of one of version 1."""
VERSIONED = bytes([6, 1, 3]) + bytes(13)
TD_ATTRIBUTES = (1 << 28).to_bytes(8, "little")
XFAM = (0x602E7).to_bytes(8, "little")
_OID = "1.2.840.113741.1.13.1"


@dataclass(frozen=True)
class Intel:
    """An authority with the names of Intel's, a platform and an attestation key."""

    root: Issued
    authority: Issued
    pck: Issued
    signer: Issued
    attestation_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def anchors(self) -> tuple[bytes, ...]:
        return (self.root.pem,)

    @property
    def pem(self) -> bytes:
        return self.pck.pem + self.authority.pem + self.root.pem


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def intel() -> Intel:
    """The authority that tests share."""
    return new_intel()


def new_intel(**pck: Any) -> Intel:
    """Another one; arguments are those of :func:`pck_certificate`."""
    root = issue("Intel SGX Root CA", key=p256(), ca=True, path_length=1, digest=hashes.SHA256())
    authority = authority_of(root)
    signer = issue("Intel SGX TCB Signing", root, key=p256(), digest=hashes.SHA256())
    return Intel(root, authority, pck_certificate(authority, **pck), signer)


def authority_of(root: Issued, name: str = "Intel SGX PCK Platform CA", **given: Any) -> Issued:
    return issue(name, root, key=p256(), ca=True, path_length=0, digest=hashes.SHA256(), **given)


def pck_certificate(
    authority: Issued,
    *,
    name: str = "Intel SGX PCK Certificate",
    extension: bytes | None = None,
    key: Any = None,
    **given: Any,
) -> Issued:
    value = sgx_extension() if extension is None else extension
    extensions = [(x509.UnrecognizedExtension(x509.ObjectIdentifier(_OID), value), False)] if value else []
    return issue(name, authority, key=key or p256(), digest=hashes.SHA256(), extensions=extensions, **given)


def sgx_extension(
    *, fmspc: str = FMSPC, pceid: str = "0000", components: bytes = bytes([7] * 16), pcesvn: int = 13
) -> bytes:
    """The extension of a PCK certificate, DER."""
    tcb = [_pair(f"2.{number}", _der(2, _unsigned(svn))) for number, svn in enumerate(components, start=1)]
    tcb += [_pair("2.17", _der(2, _unsigned(pcesvn))), _pair("2.18", _der(4, components))]
    parts = [
        _pair("1", _der(4, bytes(16))),
        _pair("2", _der(0x30, b"".join(tcb))),
        _pair("3", _der(4, bytes.fromhex(pceid))),
        _pair("4", _der(4, bytes.fromhex(fmspc))),
        _pair("5", _der(10, b"\x00")),
    ]
    return _der(0x30, b"".join(parts))


def sign(key: Any, data: bytes) -> bytes:
    """r ‖ s."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def enclave(**given: Any) -> bytes:
    """A report's body."""
    values: dict[str, Any] = {
        "cpusvn": bytes([7] * 16),
        "miscselect": bytes(4),
        "attributes": bytes.fromhex("0500000000000000e700000000000000"),
        "mrenclave": b"\x11" * 32,
        "mrsigner": b"\x22" * 32,
        "isvprodid": 3,
        "isvsvn": 4,
        "report_data": bytes(64),
    } | given
    return struct.pack("<16s4s28x16s32s32x32s96xHH60x64s", *values.values())


def td(*, extended: bool = False, **given: Any) -> bytes:
    """A TD report's body, of TDX 1.5 if ``extended``."""
    names = ("mrconfigid", "mrowner", "mrownerconfig", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    values: dict[str, bytes] = {
        "tee_tcb_svn": TEE_TCB_SVN,
        "mrseam": b"\x33" * 48,
        "mrsignerseam": bytes(48),
        "seam_attributes": bytes(8),
        "td_attributes": TD_ATTRIBUTES,
        "xfam": XFAM,
        "mrtd": b"\x44" * 48,
        **{name: bytes(48) for name in names},
        "report_data": bytes(64),
    }
    if extended:
        values |= {"tee_tcb_svn2": TEE_TCB_SVN, "mrservicetd": bytes(48)}
    assert not set(given) - set(values)
    return b"".join((values | given).values())


def quote(
    of: Intel,
    body: bytes,
    *,
    version: int = 4,
    tee: str = "TDX",
    vendor: bytes = INTEL_QE,
    key_type: int = 2,
    body_type: int = 3,
    qe: dict[str, Any] | None = None,
    qe_key: Any = None,
    named_key: Any = None,
    cert_type: int = 5,
    outer_type: int = 6,
    pem: bytes | None = None,
    inner: bytes = b"",
    trailing: bytes = b"",
) -> bytes:
    """A quote. ``named_key`` is the attestation key that the quoting enclave's report names, if it is another one."""
    head = struct.pack("<HHI4x16s20s", version, key_type, {"SGX": 0, "TDX": 0x81}[tee], vendor, bytes(20))
    head += struct.pack("<HI", body_type, len(body)) if version == 5 else b""
    key = _point(of.attestation_key)
    auth = bytes(range(32))
    report_data = hashlib.sha256((_point(named_key) if named_key else key) + auth).digest() + bytes(32)
    report = enclave(
        **{
            "attributes": bytes.fromhex(QE_ATTRIBUTES),
            "mrsigner": bytes.fromhex(QE_SIGNER[tee]),
            "isvprodid": QE_PRODUCT[tee],
            "isvsvn": 8,
            "report_data": report_data,
            **(qe or {}),
        }
    )
    pem = of.pem if pem is None else pem
    certified = report + sign(qe_key or of.pck.key, report) + struct.pack("<H", len(auth)) + auth
    certified += struct.pack("<HI", cert_type, len(pem)) + pem + inner
    if version != 3:
        certified = struct.pack("<HI", outer_type, len(certified)) + certified
    data = sign(of.attestation_key, head + body) + key + certified
    return head + body + struct.pack("<I", len(data)) + data + trailing


def sgx_quote(of: Intel, *, qe: dict[str, Any] | None = None, cert_type: int = 5, **body: Any) -> bytes:
    """A quote of an enclave."""
    return quote(of, enclave(**body), version=3, tee="SGX", qe=qe, cert_type=cert_type)


def tcb_info(tee: str = "TDX", **given: Any) -> dict[str, Any]:
    """TCB info with one level that is up to date and one that is not."""
    levels = [
        _level(7, 13, 5, "UpToDate", tee),
        _level(5, 11, 4, "OutOfDate", tee, advisoryIDs=["INTEL-SA-00001"]),
    ]
    info: dict[str, Any] = {
        "id": tee,
        "version": 3,
        "issueDate": _date(NOW - DAY),
        "nextUpdate": _date(NOW + 29 * DAY),
        "fmspc": FMSPC,
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": 17,
    }
    if tee == "TDX":
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        newest = [
            {"tcb": {"isvsvn": 6}, "tcbDate": _date(NOW), "tcbStatus": "UpToDate"},
            {"tcb": {"isvsvn": 4}, "tcbDate": _date(NOW), "tcbStatus": "OutOfDate", "advisoryIDs": ["INTEL-SA-00002"]},
        ]
        info |= {"tdxModule": module, "tdxModuleIdentities": [{"id": "TDX_01", **module, "tcbLevels": newest}]}
    return info | {"tcbLevels": levels} | given


def qe_identity(tee: str = "TDX", **given: Any) -> dict[str, Any]:
    """The identity of the quoting enclave that :func:`quote` has."""
    return {
        "id": "TD_QE" if tee == "TDX" else "QE",
        "version": 2,
        "issueDate": _date(NOW - DAY),
        "nextUpdate": _date(NOW + 29 * DAY),
        "tcbEvaluationDataNumber": 17,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": QE_ATTRIBUTES,
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_SIGNER[tee],
        "isvprodid": QE_PRODUCT[tee],
        "tcbLevels": [
            {"tcb": {"isvsvn": 8}, "tcbDate": _date(NOW), "tcbStatus": "UpToDate"},
            {"tcb": {"isvsvn": 6}, "tcbDate": _date(NOW), "tcbStatus": "OutOfDate"},
        ],
    } | given


def crl(
    by: Issued,
    revoked: tuple[int, ...] = (),
    *,
    start: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + 29 * DAY,
    extension: x509.ExtensionType | None = None,
    reason: x509.ReasonFlags | None = None,
) -> bytes:
    """A list of revoked certificates, DER."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject)
    builder = builder.last_update(start).next_update(end).add_extension(x509.CRLNumber(1), critical=False)
    key_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.certificate.public_key())
    builder = builder.add_extension(key_id, critical=False)
    if extension is not None:
        builder = builder.add_extension(extension, critical=True)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start)
        entry = entry.add_extension(x509.CRLReason(reason), critical=False) if reason else entry
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(by.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def collateral(
    of: Intel,
    tee: str = "TDX",
    *,
    info: dict[str, Any] | None = None,
    identity: dict[str, Any] | None = None,
    root_crl: bytes | None = None,
    pck_crl: bytes | None = None,
    signer: Issued | None = None,
    **fields: str,
) -> bytes:
    """The file of collateral; ``fields`` are put into it as they are."""
    signer = signer or of.signer
    texts = {
        "tcb_info": json.dumps(info or tcb_info(tee), separators=(",", ":")),
        "qe_identity": json.dumps(identity or qe_identity(tee), separators=(",", ":")),
    }
    chain = (signer.pem + of.root.pem).decode()
    return json.dumps(
        {
            "pck_crl_issuer_chain": (of.authority.pem + of.root.pem).decode(),
            "root_ca_crl": (root_crl or crl(of.root)).hex(),
            "pck_crl": (pck_crl or crl(of.authority)).hex(),
            "tcb_info_issuer_chain": chain,
            "qe_identity_issuer_chain": chain,
            **texts,
            **{f"{name}_signature": sign(signer.key, text.encode()).hex() for name, text in texts.items()},
            **fields,
        }
    ).encode()


def _level(svn: int, pcesvn: int, tdx: int, status: str, tee: str, **more: Any) -> dict[str, Any]:
    tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn}] * 16, "pcesvn": pcesvn}
    if tee == "TDX":
        tcb["tdxtcbcomponents"] = [{"svn": each} for each in (tdx, 0, 3, *[0] * 13)]
    return {"tcb": tcb, "tcbDate": _date(NOW), "tcbStatus": status, **more}


def _date(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def _pair(under: str, value: bytes) -> bytes:
    arcs = bytes(int(each) for each in under.split("."))
    return _der(0x30, _der(6, bytes.fromhex("2a864886f84d010d01") + arcs) + value)


def _unsigned(number: int) -> bytes:
    return number.to_bytes(number.bit_length() // 8 + 1, "big")


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
