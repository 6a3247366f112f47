"""Envelopes: bytes under a data key of their own, bound to what they are of."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Final

from hanzo_compute.errors import InternalError, PermissionDenied
from hanzo_compute.ports import Body, KeyVault

_NONCE: Final = bytes(12)
"""Each data key seals one thing, once: so the nonce need not differ."""


def seal(vault: KeyVault, context: Mapping[str, str], data: bytes) -> Body:
    """The fields of a record that holds ``data`` sealed; only the same ``context`` opens it."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = vault.data_key(context)
    sealed = AESGCM(key.plaintext).encrypt(_NONCE, data, _associated(context))
    return {"key": base64.b64encode(key.wrapped).decode(), "sealed": base64.b64encode(sealed).decode()}


def unseal(vault: KeyVault, context: Mapping[str, str], body: Body) -> bytes:
    """What :func:`seal` was given.

    Raises:
        InternalError: it was sealed for something else, under another master key, or altered.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        key = vault.unwrap(base64.b64decode(body["key"]), context)
        return AESGCM(key).decrypt(_NONCE, base64.b64decode(body["sealed"]), _associated(context))
    except (InvalidTag, PermissionDenied, KeyError, TypeError, ValueError):
        named = ", ".join(f"{name} {value}" for name, value in context.items())
        raise InternalError(
            f"the envelope of {named} does not open: it was altered, or the vault has another master key",
            hint="restore keys/ and the database from the same backup, or set it again",
        ) from None


def _associated(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context), sort_keys=True, separators=(",", ":")).encode()
