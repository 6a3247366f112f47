"""Checkpoints of a log: C2SP tlog-checkpoint in the form of C2SP signed-note, signed with Ed25519."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

NOTE_MAX: Final = 16 * 1024
"""Characters of a note that is looked at."""
SIZE_MAX: Final = 2**63 - 1
DASH: Final = "\u2014 "
"""Begins the line of a signature."""

_ED25519: Final = b"\x01"
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME: Final = re.compile(r"[!-*,-~]{1,255}")
"""Printable ASCII without spaces and plus signs: what a key's name, and so an origin, is made of here."""


class CheckpointError(ValueError):
    """The note is no checkpoint, or the signature does not hold."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to: the root over its first ``size`` leaves. ``extensions`` are lines that we do not know."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def body(self) -> str:
        """The text that is signed."""
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions]
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key (Ed25519, 32 bytes) and its name. As text: ``name+hash+key`` (signed-note's vkey)."""

    name: str
    public: bytes

    @property
    def hash(self) -> bytes:
        """Four bytes that find the key's signatures in a note."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key of a text.

        Raises:
            ValueError: it is none, or its parts do not fit together.
        """
        name, _, rest = text.partition("+")
        key_hash, _, encoded = rest.partition("+")
        data = _base64(encoded)
        if not _NAME.fullmatch(name) or data is None or len(data) != 33 or data[:1] != _ED25519:
            raise ValueError("is no Ed25519 key of the form name+hash+key")
        found = cls(name, data[1:])
        if found.hash.hex() != key_hash:
            raise ValueError("its hash is not that of its name and key")
        return found


def note(checkpoint: Checkpoint, key: VerifierKey, sign: Callable[[bytes], bytes]) -> str:
    """The checkpoint with one signature; ``sign`` gives 64 bytes for a message."""
    body = checkpoint.body()
    line = base64.b64encode(key.hash + sign(body.encode())).decode()
    return f"{body}\n{DASH}{key.name} {line}\n"


def open_checkpoint(text: str, key: VerifierKey) -> Checkpoint:
    """The checkpoint in a note, once its signature by ``key`` holds. Signatures by other keys are left alone.

    Raises:
        CheckpointError: the note has another form, is not signed by this key, or the signature does not hold.
    """
    if len(text) > NOTE_MAX:
        raise CheckpointError("the note is too long")
    body, separator, signatures = text.partition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise CheckpointError("the note has not the form of a signed note")
    body += "\n"
    if any(char < " " and char != "\n" for char in text):
        raise CheckpointError("the note holds a control character")
    found = [line for line in map(_signature, signatures[:-1].split("\n")) if line[:2] == (key.name, key.hash)]
    if len(found) != 1:
        raise CheckpointError(f"the note has {len(found)} signatures of {key.name}, not one")
    if not _holds(key.public, found[0][2], body.encode("utf-8", "surrogatepass")):
        raise CheckpointError(f"the signature of {key.name} does not hold")
    return _parse(body)


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    data = _base64(encoded)
    if not line.startswith(DASH) or not name or "+" in name or data is None or len(data) < 5:
        raise CheckpointError("a line of a signature has not its form")
    return name, data[:4], data[4:]


def _parse(body: str) -> Checkpoint:
    origin, *lines = body[:-1].split("\n")
    if not origin or len(lines) < 2 or not all(lines):
        raise CheckpointError("the note is no checkpoint: origin, size and root are three lines")
    size, encoded, *extensions = lines
    root = _base64(encoded)
    if not _NUMBER.fullmatch(size) or int(size) > SIZE_MAX:
        raise CheckpointError("the size is no whole number")
    if root is None or len(root) != 32:
        raise CheckpointError("the root is not 32 bytes in base64")
    return Checkpoint(origin, int(size), root, tuple(extensions))


def _base64(text: str) -> bytes | None:
    """Bytes of the one base64 text that stands for them."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if base64.b64encode(found).decode() == text else None


def _holds(public: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        _key(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@lru_cache(64)
def _key(public: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return Ed25519PublicKey.from_public_bytes(public)
