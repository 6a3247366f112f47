"""What key vaults have in common, wherever they keep their keys: names, signatures, wrapped data keys."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute.errors import InvalidRequest, PermissionDenied
from hanzo_compute.model.statement import P256_ORDER
from hanzo_compute.ports import KeyKind

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey

NAME: Final = re.compile(r"[a-z][A-Za-z0-9._-]{0,79}")
KEY_BYTES: Final = 32
VERSION: Final = b"\x01"
"""First byte of a wrapped key: AES-256-GCM, a nonce of 12 bytes, then ciphertext and tag."""
_NONCE: Final = 12


def check_name(name: str) -> None:
    """Refuse what is no name of a key."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:80]!r} is no name of a key", hint="names are of letters, digits, . _ -, at most 80"
        )


def generate(kind: KeyKind) -> PrivateKey:
    """A new private key."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if kind is KeyKind.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def kind_of(key: Any) -> KeyKind | None:
    """What a private key is for, or None when it is of no kind that is used here."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if isinstance(key, ed25519.Ed25519PrivateKey):
        return KeyKind.ED25519
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return KeyKind.P256
    return None


def public_bytes(key: PrivateKey) -> bytes:
    """The public key as SubjectPublicKeyInfo, DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(key: PrivateKey, message: bytes, *, repeatable: bool = False) -> bytes:
    """See :meth:`~hanzo_compute.ports.KeyVault.sign`. With ``repeatable`` the nonce is RFC 6979's, which takes long."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message)
    if len(message) != hashes.SHA256.digest_size:
        raise InvalidRequest(f"what P-256 signs is a digest of 32 bytes, not of {len(message)}")
    algorithm = ec.ECDSA(utils.Prehashed(hashes.SHA256()), deterministic_signing=repeatable)
    r, s = utils.decode_dss_signature(key.sign(message, algorithm))
    return r.to_bytes(32) + min(s, P256_ORDER - s).to_bytes(32)


def wrap(master: bytes, plaintext: bytes, context: Mapping[str, str], random: Callable[[int], bytes]) -> bytes:
    """A data key under the master key, bound to its encryption context."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = random(_NONCE)
    return VERSION + nonce + AESGCM(master).encrypt(nonce, plaintext, _associated(context))


def unwrap(master: bytes, wrapped: bytes, context: Mapping[str, str]) -> bytes:
    """The data key. Raises PermissionDenied: another context or master key, or it was altered."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    version, nonce, sealed = wrapped[:1], wrapped[1 : 1 + _NONCE], wrapped[1 + _NONCE :]
    try:
        if version == VERSION and len(nonce) == _NONCE:
            return AESGCM(master).decrypt(nonce, sealed, _associated(context))
    except InvalidTag:
        pass
    raise PermissionDenied(
        "the data key does not open: it was wrapped for something else, by another vault, or altered",
        hint="give the encryption context that it was made with",
    )


def _associated(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()


def new_key() -> bytes:
    """A key of 32 bytes that nobody can guess."""
    return secrets.token_bytes(KEY_BYTES)
