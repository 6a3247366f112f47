"""Attestation results as tokens: JWT (RFC 7519) signed with ES256 (RFC 7518 section 3.4), claims as in EAT (RFC 9711).

Signed by the vault's key ``attestation``; nothing here takes a key from the token itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any, Final

from hanzo_compute.errors import Rejected
from hanzo_compute.ports import KeyKind, KeyVault

KEY: Final = "attestation"
PROFILE: Final = "tag:hanzo-compute,2026:attestation-result/v1"
TOKEN_MAX: Final = 8192
"""Characters of a token."""
LIFE_S: Final = 600


def key_id(vault: KeyVault) -> str:
    """What the signing key is known by: SHA-256, hex, of the public key."""
    return hashlib.sha256(vault.public_key(KEY, KeyKind.P256)).hexdigest()


def issue(vault: KeyVault, claims: dict[str, Any]) -> str:
    """A token of these claims."""
    header = {"alg": "ES256", "typ": "JWT", "kid": key_id(vault)}
    signed = f"{_part(header)}.{_part(claims)}"
    signature = vault.sign(KEY, KeyKind.P256, hashlib.sha256(signed.encode()).digest())
    return f"{signed}.{_encoded(signature)}"


def verify(vault: KeyVault, token: str, now_ms: int) -> dict[str, Any]:
    """The claims of a token that this platform signed and that is still good.

    Raises:
        Rejected: it is none, is of another key, or has expired.
    """
    try:
        if len(token) > TOKEN_MAX:
            raise ValueError
        head, body, signature = token.split(".")
        header, claims = json.loads(_decoded(head)), json.loads(_decoded(body))
        raw = _decoded(signature)
        if not isinstance(header, dict) or not isinstance(claims, dict):
            raise ValueError
    except (ValueError, binascii.Error, RecursionError):
        raise _rejected("is no attestation result") from None
    if header.get("alg") != "ES256" or header.get("kid") != key_id(vault):
        raise _rejected("is not signed by this platform")
    if not _holds(vault, f"{head}.{body}".encode(), raw):
        raise _rejected("has a signature that does not hold")
    expires = claims.get("exp")
    if claims.get("eat_profile") != PROFILE or type(expires) is not int:
        raise _rejected("is of another kind")
    if now_ms >= expires * 1000:
        raise _rejected("has expired", hint="ask for a challenge, and present evidence again")
    return claims


def jwks(vault: KeyVault) -> dict[str, Any]:
    """The public key as a JSON Web Key Set (RFC 7517)."""
    point = vault.public_key(KEY, KeyKind.P256)[-64:]  # SPKI of a P-256 key ends with x and y: RFC 5480 section 2.2
    key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key_id(vault)}
    return {"keys": [key | {"x": _encoded(point[:32]), "y": _encoded(point[32:])}]}


def _holds(vault: KeyVault, signed: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    if len(signature) != 64:
        return False
    key = load_der_public_key(vault.public_key(KEY, KeyKind.P256))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    try:
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _rejected(what: str, hint: str | None = None) -> Rejected:
    return Rejected(f"the attestation result {what}", hint=hint, name="attestation_result")


def _part(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
