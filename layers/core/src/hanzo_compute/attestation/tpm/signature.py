"""Signatures of a TPM: TPMT_SIGNATURE (TPM 2.0 Library, part 2, section 11.3.4), and the bare forms that tools make.

A bare signature says neither its scheme nor its hash. The hash is then the one whose digest is as long as the quote's
PCR digest, because TPM2_Quote makes that with the hash of its signature (part 3, section 18.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.tpm.public import PublicKey
from hanzo_compute.attestation.tpm.wire import ECDSA, HASHES, RSAPSS, RSASSA, SIGNED_WITH, Reader

SIGNATURE_MAX: Final = 1024
"""Bytes."""
_RSA_BYTES: Final = 512
_NUMBER: Final = 66


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature; RSA's as it is, ECDSA's in DER."""

    schemes: Sequence[int]
    """The scheme; two where a bare one may be of either."""
    algorithm: int | None
    """Its hash; None where it does not say."""
    value: bytes


def parse(data: bytes, key: PublicKey) -> Signature:
    """A signature by ``key`` in any of its forms. Raises Unreadable."""
    if not data or len(data) > SIGNATURE_MAX:
        raise Unreadable(f"the signature has {len(data)} bytes; there are 1 to {SIGNATURE_MAX}")
    if isinstance(key, rsa.RSAPublicKey):
        if len(data) == key.key_size // 8:
            return Signature((RSASSA, RSAPSS), None, data)
    elif data[:1] == b"\x30":
        return Signature((ECDSA,), None, data)
    elif len(data) == 2 * _size(key):
        half = len(data) // 2
        return Signature((ECDSA,), None, _der(data[:half], data[half:]))
    return _tpmt(data)


def algorithm_of(signature: Signature, pcr_digest: bytes) -> int | None:
    """The hash of a signature of a quote; None if it cannot be told."""
    if signature.algorithm is not None:
        return signature.algorithm
    return next((each for each, hasher in HASHES.items() if hasher().digest_size == len(pcr_digest)), None)


def verify(signature: Signature, algorithm: int, key: PublicKey, message: bytes) -> bool:
    """Whether ``key`` signed the message."""
    hashed = SIGNED_WITH.get(algorithm)
    return hashed is not None and any(_good(signature.value, each, hashed, key, message) for each in signature.schemes)


def _good(value: bytes, scheme: int, hashed: hashes.HashAlgorithm, key: PublicKey, message: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey) and scheme == RSASSA:
            key.verify(value, message, padding.PKCS1v15(), hashed)
        elif isinstance(key, rsa.RSAPublicKey) and scheme == RSAPSS:
            # The salt is as long as the hash, or in older TPMs as long as it can be (part 1, annex B.7).
            key.verify(value, message, padding.PSS(padding.MGF1(hashed), padding.PSS.AUTO), hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey) and scheme == ECDSA:
            key.verify(value, message, ec.ECDSA(hashed))
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _tpmt(data: bytes) -> Signature:
    reader = Reader(data, "the signature")
    scheme, algorithm = reader.number(2), reader.number(2)
    if scheme in {RSASSA, RSAPSS}:
        value = reader.sized(_RSA_BYTES)
    elif scheme == ECDSA:
        value = _der(reader.sized(_NUMBER), reader.sized(_NUMBER))
    else:
        raise Unreadable(f"the signature is of the scheme 0x{scheme:04x}, none of RSASSA, RSAPSS and ECDSA")
    reader.end()
    return Signature((scheme,), algorithm, value)


def _der(r: bytes, s: bytes) -> bytes:
    return utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


def _size(key: ec.EllipticCurvePublicKey) -> int:
    return (key.key_size + 7) // 8
