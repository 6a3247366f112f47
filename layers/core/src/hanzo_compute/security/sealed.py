"""What a job's data key seals: its input and what it leaves, each in a box of its own (AES-256-GCM).

A box is ``hzc1``, a nonce of 12 random bytes, and the ciphertext with its tag; it opens under its own name alone, so
that no output can stand for another.
"""

from __future__ import annotations

import secrets
from typing import Final

from hanzo_compute.errors import InvalidRequest

KEY_BYTES: Final = 32
OVERHEAD: Final = 4 + 12 + 16
"""Bytes that a box is larger than what is in it."""
INPUT: Final = "input"
_MAGIC: Final = b"hzc1"
_DOMAIN: Final = b"hanzo-compute/sealed/v1\0"


def new_key() -> bytes:
    """A key for one job."""
    return secrets.token_bytes(KEY_BYTES)


def seal(key: bytes, name: str, data: bytes) -> bytes:
    """Bytes in a box; ``name`` is ``input`` or that of an output."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(12)
    return _MAGIC + nonce + AESGCM(key).encrypt(nonce, data, _DOMAIN + name.encode())


def unseal(key: bytes, name: str, box: bytes) -> bytes:
    """What is in a box.

    Raises:
        InvalidRequest: it is none, is of another name, under another key, or altered.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(box) < OVERHEAD or not box.startswith(_MAGIC):
        raise InvalidRequest(
            f"the {name} is not sealed", hint="seal it with the job's data key: hzc run --privacy-tier"
        )
    try:
        return AESGCM(key).decrypt(box[4:16], box[16:], _DOMAIN + name.encode())
    except InvalidTag:
        raise InvalidRequest(
            f"the {name} does not open with this key: it was sealed under another, or altered"
        ) from None
