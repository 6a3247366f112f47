"""The KeyVault port in memory: its keys follow from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from hanzo_compute.adapters import sealing
from hanzo_compute.errors import Conflict
from hanzo_compute.model.statement import P256_ORDER
from hanzo_compute.ports import DataKey, KeyKind

if TYPE_CHECKING:
    from hanzo_compute.adapters.sealing import PrivateKey


class MemoryVault:
    """For the same ``random`` the same keys: signing keys by name, whatever the order of their first use, data keys
    in the order in which they are made."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._keys: dict[str, tuple[KeyKind, PrivateKey, bytes]] = {}
        self._master = random.randbytes(sealing.KEY_BYTES)
        self._seed = random.randbytes(sealing.KEY_BYTES)

    def public_key(self, name: str, kind: KeyKind) -> bytes:
        """Public key as SubjectPublicKeyInfo (DER)."""
        return self._key(name, kind)[1]

    def sign(self, name: str, kind: KeyKind, message: bytes) -> bytes:
        """64 bytes; the same for the same message."""
        return sealing.sign(self._key(name, kind)[0], message, repeatable=True)

    def data_key(self, context: Mapping[str, str]) -> DataKey:
        """A new data key, wrapped under the master key with this encryption context."""
        plaintext = self._random.randbytes(sealing.KEY_BYTES)
        return DataKey(plaintext, sealing.wrap(self._master, plaintext, context, self._random.randbytes))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key."""
        return sealing.unwrap(self._master, wrapped, context)

    def _key(self, name: str, kind: KeyKind) -> tuple[PrivateKey, bytes]:
        sealing.check_name(name)
        if name not in self._keys:
            key = self._derived(name, kind)
            self._keys[name] = kind, key, sealing.public_bytes(key)
        found, key, public = self._keys[name]
        if found is not kind:
            raise Conflict(f"the key {name} is of kind {found}, not {kind}", hint="use another name")
        return key, public

    def _derived(self, name: str, kind: KeyKind) -> PrivateKey:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        secret = hashlib.sha512(self._seed + name.encode()).digest()
        if kind is KeyKind.ED25519:
            return ed25519.Ed25519PrivateKey.from_private_bytes(secret[:32])
        return ec.derive_private_key(1 + int.from_bytes(secret) % (P256_ORDER - 1), ec.SECP256R1())
