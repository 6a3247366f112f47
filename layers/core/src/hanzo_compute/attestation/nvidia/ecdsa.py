"""ECDSA with P-384 and SHA-384, signatures as r ‖ s: what devices and reference values are signed with."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_ECDSA: Final = ec.ECDSA(hashes.SHA384())


def verifies(certificate: x509.Certificate, signature: bytes, message: bytes) -> bool:
    """Whether a certificate's key, of P-384, signed a message; ``signature`` has 96 bytes."""
    try:
        key = certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
            return False
        encoded = encode_dss_signature(int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big"))
        key.verify(encoded, message, _ECDSA)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True
