"""Credentials that only one TPM can activate (TPM 2.0 Library, part 1, section 24, and part 3, section 12.6).

A secret is encrypted to an endorsement key and bound to the name of an attestation key: the TPM gives it out only if it
holds both. Whoever answers with the secret, or with what was encrypted with it, has shown that the attestation key is
in the TPM of that endorsement key. A challenge's nonce can be the secret: then the quote that answers it is the proof.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from hanzo_compute.attestation.tpm.public import DECRYPT, FIXED_TPM, RESTRICTED, PublicArea
from hanzo_compute.attestation.tpm.wire import HASHES, NAME_MAX, SIGNED_WITH
from hanzo_compute.errors import InvalidRequest

_AES: Final = 0x0006
_CFB: Final = 0x0043
_AES_BITS: Final = (128, 192, 256)
_LABEL: Final = b"IDENTITY"
_TOOLS_HEADER: Final = bytes.fromhex("badcc0de00000001")

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Credential:
    """What TPM2_ActivateCredential takes."""

    blob: bytes = field(repr=False)
    """TPM2B_ID_OBJECT: the integrity and the encrypted secret."""
    secret: bytes = field(repr=False)
    """TPM2B_ENCRYPTED_SECRET: the seed for the endorsement key."""

    def tools_file(self) -> bytes:
        """Both as ``tpm2_activatecredential --credential-blob`` reads them."""
        return _TOOLS_HEADER + self.blob + self.secret


def make_credential(
    ek: PublicArea, ak_name: bytes, secret: bytes, *, entropy: Entropy = secrets.token_bytes
) -> Credential:
    """Encrypt a secret to whoever has both keys in one TPM.

    Args:
        ek: the endorsement key, a restricted storage key with AES-CFB.
        ak_name: the name of the attestation key.
        secret: at most as many bytes as the digest of the endorsement key's name algorithm.
        entropy: random bytes of a size.

    Raises:
        InvalidRequest: the key is no endorsement key, or the name or the secret are not of their size.
    """
    if not ek.has(FIXED_TPM, RESTRICTED, DECRYPT) or ek.symmetric is None:
        raise InvalidRequest("a credential is made for a restricted key that decrypts")
    algorithm, bits, mode = ek.symmetric
    if algorithm != _AES or mode != _CFB or bits not in _AES_BITS:
        raise InvalidRequest("the endorsement key protects its children with another cipher than AES in CFB")
    hashed = HASHES[ek.name_algorithm]
    size: int = hashed().digest_size
    if not 1 <= len(secret) <= size:
        raise InvalidRequest(f"the secret has {len(secret)} bytes; this endorsement key takes 1 to {size}")
    if not 2 < len(ak_name) <= NAME_MAX:
        raise InvalidRequest(f"the name of a key has 3 to {NAME_MAX} bytes, not {len(ak_name)}")
    seed, encrypted_seed = _seed(ek, size, entropy)
    key = _kdfa(hashed, seed, b"STORAGE", ak_name, bits // 8)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(_sized(secret)) + encryptor.finalize()
    integrity = _kdfa(hashed, seed, b"INTEGRITY", b"", size)
    outer = hmac.new(integrity, identity + ak_name, hashed).digest()
    return Credential(_sized(_sized(outer) + identity), _sized(encrypted_seed))


def _seed(ek: PublicArea, size: int, entropy: Entropy) -> tuple[bytes, bytes]:
    """A seed, and what tells it to the endorsement key (part 1, annexes B.10.3 and C.6.3)."""
    hashed = SIGNED_WITH[ek.name_algorithm]
    if isinstance(ek.key, rsa.RSAPublicKey):
        seed = entropy(size)
        oaep = padding.OAEP(padding.MGF1(hashed), hashed, _LABEL + b"\0")
        return seed, ek.key.encrypt(seed, oaep)
    ephemeral = ec.generate_private_key(ek.key.curve)
    shared = ephemeral.exchange(ec.ECDH(), ek.key)
    own, theirs = ephemeral.public_key().public_numbers(), ek.key.public_numbers()
    width = (ek.key.key_size + 7) // 8
    x, y = own.x.to_bytes(width, "big"), own.y.to_bytes(width, "big")
    seed = _kdfe(HASHES[ek.name_algorithm], shared, x, theirs.x.to_bytes(width, "big"), size)
    return seed, _sized(x) + _sized(y)


def _kdfa(hashed: Callable[..., Any], key: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """SP 800-108 in counter mode with HMAC (part 1, section 11.4.10.2); ``size`` is in bytes."""
    made = b""
    while len(made) < size:
        counter = len(made) // hashed().digest_size + 1
        text = counter.to_bytes(4, "big") + label + b"\0" + context + (8 * size).to_bytes(4, "big")
        made += hmac.new(key, text, hashed).digest()
    return made[:size]


def _kdfe(hashed: Callable[..., Any], shared: bytes, own_x: bytes, their_x: bytes, size: int) -> bytes:
    """SP 800-56A's concatenation (part 1, section 11.4.10.3), of one digest, which is all that a seed needs."""
    digest: bytes = hashed((1).to_bytes(4, "big") + shared + _LABEL + b"\0" + own_x + their_x).digest()
    return digest[:size]


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
