"""What Intel's and NVIDIA's services answer, under authorities of our own."""

from __future__ import annotations

import datetime
import json
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.collateral_server import Asked, Reply
from tests.support.pki import Issued, issue, name

DER = serialization.Encoding.DER
ISSUED = datetime.datetime(2025, 12, 20, tzinfo=datetime.UTC)
NEXT = datetime.datetime(2026, 1, 19, tzinfo=datetime.UTC)
FMSPC = "00806F050000"


def crl(issuer: Issued, *serials: int, following: datetime.datetime = NEXT) -> bytes:
    """A revocation list in DER."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(ISSUED).next_update(following)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(ISSUED).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(DER)


def _p256(subject: str, issuer: Issued | None = None, *, ca: bool = False) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    return issue(subject, issuer, key=key, ca=ca, digest=hashes.SHA256())


@dataclass(frozen=True)
class Pcs:
    """Intel's authorities, and the parts of the file ``collateral`` under them."""

    fmspc: str = FMSPC
    following: datetime.datetime = NEXT

    @cached_property
    def root(self) -> Issued:
        return _p256("Intel SGX Root CA", ca=True)

    @cached_property
    def signing(self) -> Issued:
        return _p256("Intel SGX TCB Signing", self.root)

    @cached_property
    def pck(self) -> Issued:
        return _p256("Intel SGX PCK Platform CA", self.root, ca=True)

    def signed(self, said: dict[str, Any]) -> tuple[str, str]:
        """The text of a document, and its signature in hex."""
        times = {"issueDate": ISSUED.strftime("%Y-%m-%dT%H:%M:%SZ")}
        text = json.dumps({**said, **times, "nextUpdate": self.following.strftime("%Y-%m-%dT%H:%M:%SZ")})
        assert isinstance(self.signing.key, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(self.signing.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return text, f"{r:064x}{s:064x}"

    def parts(self, **changed: str) -> dict[str, str]:
        """The file, as it is to come out."""
        tcb, tcb_signature = self.signed({"id": "TDX", "version": 3, "fmspc": self.fmspc})
        qe, qe_signature = self.signed({"id": "TD_QE", "version": 2})
        chain = (self.signing.pem + self.root.pem).decode()
        return {
            "pck_crl_issuer_chain": (self.pck.pem + self.root.pem).decode(),
            "root_ca_crl": crl(self.root, following=self.following).hex(),
            "pck_crl": crl(self.pck, following=self.following).hex(),
            "tcb_info_issuer_chain": chain,
            "tcb_info": tcb,
            "tcb_info_signature": tcb_signature,
            "qe_identity_issuer_chain": chain,
            "qe_identity": qe,
            "qe_identity_signature": qe_signature,
            **changed,
        }


@dataclass
class Responder:
    """NVIDIA's OCSP responder, for certificates under one authority; what it says can be made a lie."""

    issuers: list[Issued]
    revoked: set[int] = field(default_factory=set)
    following: datetime.datetime | None = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    nonce: bytes | None = None
    """Another than it was asked with."""
    no_nonce: bool = False
    serial: int | None = None
    """Of another certificate than it was asked for."""
    signer: Issued | None = None
    """Another than the issuer appointed."""
    asked: list[ocsp.OCSPRequest] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Reply:
        """Answer a request."""
        request = ocsp.load_der_ocsp_request(asked.body)
        self.asked.append(request)
        issuer = next(each for each in self.issuers if _names(request, each))
        revoked = request.serial_number in self.revoked
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            request.issuer_name_hash,
            request.issuer_key_hash,
            self.serial or request.serial_number,
            request.hash_algorithm,
            ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
            ISSUED,
            self.following,
            ISSUED if revoked else None,
            x509.ReasonFlags.key_compromise if revoked else None,
        )
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
        signer = self.signer or issue("OCSP Responder", issuer, extensions=[(usage, False)])
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, signer.certificate)
        builder = builder.certificates([signer.certificate])
        if not self.no_nonce:
            nonce = request.extensions.get_extension_for_class(x509.OCSPNonce).value
            builder = builder.add_extension(x509.OCSPNonce(self.nonce) if self.nonce else nonce, False)
        assert isinstance(signer.key, ec.EllipticCurvePrivateKey)
        return Reply(builder.sign(signer.key, hashes.SHA384()).public_bytes(DER))


def _names(request: ocsp.OCSPRequest, issuer: Issued) -> bool:
    digest = hashes.Hash(request.hash_algorithm)
    digest.update(issuer.certificate.subject.public_bytes())
    return digest.finalize() == request.issuer_name_hash


@dataclass(frozen=True)
class Gpu:
    """A chain of a GPU, and a report that is well formed; nothing here looks at its signature."""

    driver: str = "550.90.07"

    @cached_property
    def root(self) -> Issued:
        return issue(name("NVIDIA Device Identity CA"), ca=True)

    @cached_property
    def product(self) -> Issued:
        return issue(name("NVIDIA GH100 Identity"), self.root, ca=True)

    @cached_property
    def provisioner(self) -> Issued:
        return issue(name("NVIDIA GH100 Provisioner ICA 1"), self.product, ca=True)

    @cached_property
    def chip(self) -> Issued:
        return issue(name("GH100 A01 GSP BROM"), self.provisioner, ca=True)

    @cached_property
    def leaf(self) -> Issued:
        return issue(name("GH100 A01 GSP FMC LF"), self.chip)

    def files(self) -> dict[str, bytes]:
        """The files of its evidence."""
        chain = (self.leaf, self.chip, self.provisioner, self.product, self.root)
        return {"report": self.report(), "chain": b"".join(each.pem for each in chain)}

    def report(self) -> bytes:
        """37 bytes of request, the response, and 96 bytes where the signature belongs."""
        fields = {3: self.driver.encode() + b"\0", 6: bytes.fromhex("009f009601000000"), 35: b"GH100\0"}
        fields |= {17: b"G520\0", 18: b"0280\0", 15: b"895\0"}
        opaque = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in fields.items())
        block = b"\x01\x01" + struct.pack("<H", 51) + b"\x01\x30\x00" + bytes(48)
        request = b"\x11\xe0\x01\xff" + bytes(32) + b"\x00"
        head = b"\x11\x60\x00\x00\x01" + len(block).to_bytes(3, "little")
        return request + head + block + bytes(32) + struct.pack("<H", len(opaque)) + opaque + bytes(96)
