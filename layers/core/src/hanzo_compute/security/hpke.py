"""Keys sealed to a recipient: HPKE (RFC 9180), base mode, X25519, HKDF-SHA256, AES-256-GCM."""

from __future__ import annotations

from typing import Any, Final

from hanzo_compute.errors import InvalidRequest

PUBLIC_BYTES: Final = 32
_DOMAIN: Final = b"hanzo-compute/data-key/v1"


def new_pair() -> tuple[bytes, bytes]:
    """A private and a public X25519 key, 32 bytes each."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def info(job: str, attempt: int) -> bytes:
    """What a sealed data key is bound to: it opens for this job and attempt alone."""
    return b"\0".join((_DOMAIN, job.encode(), str(attempt).encode()))


def seal(recipient: bytes, plaintext: bytes, bound_to: bytes) -> bytes:
    """The encapsulated key (32 bytes) and the ciphertext, for an X25519 public key of 32 bytes.

    Raises:
        InvalidRequest: it is no such key.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        key = X25519PublicKey.from_public_bytes(recipient)
        return bytes(_suite().encrypt(plaintext, key, info=bound_to))
    except ValueError:
        raise InvalidRequest("the sealing key is no X25519 public key that can be sealed to") from None


def open_sealed(private: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """What was sealed to the owner of this private key (32 bytes).

    Raises:
        InvalidRequest: it was sealed to another, for something else, or altered.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        return bytes(_suite().decrypt(sealed, X25519PrivateKey.from_private_bytes(private), info=bound_to))
    except (ValueError, InvalidTag):
        raise InvalidRequest("the sealed key does not open: it is of another recipient, job or attempt") from None


def _suite() -> Any:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
