"""Time, chance and secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@runtime_checkable
class Ids(Protocol):
    """Identifiers and secrets."""

    def new(self, prefix: str, now_ms: int) -> str:
        """A new id ``<prefix>-<26 characters>`` that sorts by time (Crockford base32 of ms and 80 random bits)."""
        ...

    def token(self) -> str:
        """256 random bits as text, safe in URLs."""
        ...


class KeyKind(StrEnum):
    """What a signing key is for its algorithm."""

    ED25519 = "ed25519"
    P256 = "p256"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key for one thing's data: 32 bytes to encrypt with, and the same wrapped, to be stored beside the data."""

    plaintext: bytes = field(repr=False)
    wrapped: bytes


@runtime_checkable
class KeyVault(Protocol):
    """Keys that do not leave their place: signing keys by name, envelope keys bound to what they are for.

    A name begins with a-z, then come letters, digits, ``.``, ``_``, ``-``; at most 80 characters.
    """

    def public_key(self, name: str, kind: KeyKind) -> bytes:
        """Public key as SubjectPublicKeyInfo (DER); the key is made at its first use.

        Raises:
            Conflict: the key of this name is of another kind.
        """
        ...

    def sign(self, name: str, kind: KeyKind, message: bytes) -> bytes:
        """64 bytes. Ed25519 over the message; P-256: r and s, with low s, over ``message``, a digest of 32 bytes."""
        ...

    def data_key(self, context: Mapping[str, str]) -> DataKey:
        """A new data key, wrapped under the master key with this encryption context."""
        ...

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key.

        Raises:
            PermissionDenied: it was wrapped with another context or under another master key, or altered.
        """
        ...
