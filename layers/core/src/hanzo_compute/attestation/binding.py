"""What evidence commits to, version 1: a nonce, the attester's two keys, and the evidence of its GPUs.

``SHA-512("hanzo-compute/attestation/v1" ‖ 0x00 ‖ nonce ‖ SHA-256(signing key) ‖ SHA-256(sealing key) ‖ GPUs)``
is the report data of SNP and TDX and the user data of Nitro; a TPM's qualifying data is SHA-256 of the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.evidence import NO_GPU

DOMAIN: Final = b"hanzo-compute/attestation/v1"
GPU_DOMAIN: Final = b"hanzo-compute/attestation/v1/gpu"


@dataclass(frozen=True, slots=True)
class Binding:
    """A challenge and the keys that answer it.

    Raises:
        InvalidRequest: a field has not its size.
    """

    nonce: bytes
    """32 bytes, of use once."""
    signing_key: bytes
    """P-256, SubjectPublicKeyInfo in DER."""
    sealing_key: bytes
    """X25519 (RFC 9180), 32 bytes."""
    gpu_digest: bytes = NO_GPU
    """SHA-256 that names the evidence of the GPUs (:func:`hanzo_compute.model.evidence.gpu_digest`)."""

    def __post_init__(self) -> None:
        for name, size in (("nonce", 32), ("sealing_key", 32), ("gpu_digest", 32)):
            if len(getattr(self, name)) != size:
                raise InvalidRequest(f"{name} has {size} bytes, not {len(getattr(self, name))}")

    def preimage(self) -> bytes:
        """What is hashed."""
        return b"".join((DOMAIN, b"\x00", self.nonce, self._keys(), self.gpu_digest))

    def report_data(self) -> bytes:
        """64 bytes, for SNP, TDX and Nitro."""
        return hashlib.sha512(self.preimage()).digest()

    def qualifying_data(self) -> bytes:
        """32 bytes, for a TPM."""
        return hashlib.sha256(self.preimage()).digest()

    def gpu_nonce(self) -> bytes:
        """32 bytes, the nonce that each GPU's report is asked for with."""
        return hashlib.sha256(GPU_DOMAIN + self.nonce + self._keys()).digest()

    def _keys(self) -> bytes:
        return hashlib.sha256(self.signing_key).digest() + hashlib.sha256(self.sealing_key).digest()
