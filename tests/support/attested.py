"""Runners with a TPM that was enrolled: a key signs quotes in the TPM's own format, and a tenant's policy names it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hanzo_compute.attestation.binding import Binding
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.ports.attesters import Challenge, Found

PCRS = {str(index): hashlib.sha256(b"pcr %d" % index).hexdigest() for index in range(8)}


def _key(seed: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(hashlib.sha256(seed.encode()).digest()), ec.SECP256R1())


@dataclass
class EnrolledTpm:
    """An attester: ``collect`` quotes what a challenge asks for."""

    name: str = "tpm"
    pcrs: dict[str, str] = field(default_factory=lambda: dict(PCRS))
    quotes: int = 0

    @property
    def spki(self) -> bytes:
        """The attestation key (SubjectPublicKeyInfo, DER)."""
        return _key(self.name).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def policy(self, *more: str) -> str:
        """A policy that releases keys to this TPM in this state."""
        reference = {"sha256": {index: [value] for index, value in PCRS.items()}}
        known = [hashlib.sha256(self.spki).hexdigest(), *more]
        tpm = {"attestation_keys": known, "pcrs": reference}
        return json.dumps({"name": "mine", "version": 1, "release_keys": True, "tpm": tpm})

    def detect(self) -> Sequence[Found]:
        return ()

    def collect(self, binding: Challenge) -> list[Evidence]:
        bound = Binding(binding.nonce, binding.signing_key, binding.sealing_key)
        return [self.quote(bound.qualifying_data())]

    def answer(self, nonce: bytes, only: Platform | None = None) -> list[Evidence]:
        return [self.quote(nonce)]

    def quote(self, qualifying: bytes) -> Evidence:
        """A quote over PCR 0 to 7 (TPMS_ATTEST, part 2 section 10.12.8), and what comes with it."""
        self.quotes += 1
        digest = hashlib.sha256(b"".join(bytes.fromhex(value) for value in self.pcrs.values())).digest()
        signer = b"\x00\x0b" + hashlib.sha256(self.spki).digest()
        message = b"".join(
            (
                struct.pack(">IH", 0xFF544347, 0x8018),
                struct.pack(">H", len(signer)) + signer,
                struct.pack(">H", len(qualifying)) + qualifying,
                struct.pack(">QIIB", 1000 + self.quotes, 1, 0, 1),
                struct.pack(">Q", 0x1),
                struct.pack(">IHB3s", 1, 0x000B, 3, b"\xff\0\0"),
                struct.pack(">H", len(digest)) + digest,
            )
        )
        signature = _key(self.name).sign(message, ec.ECDSA(hashes.SHA256()))
        pcrs = json.dumps({"sha256": self.pcrs}).encode()
        files = {"message": message, "signature": signature, "pcrs": pcrs, "ak": self.spki}
        return Evidence(Platform.TPM, files)
