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

NOTE_MAX: Final = 128 * 1024
"""Characters of a note that is looked at: room for 16 signatures of 5 kB, as signed-note wants."""
SIZE_MAX: Final = 2**63 - 1
DASH: Final = "\u2014 "
"""Begins the line of a signature."""

_ED25519: Final = b"\x01"
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME: Final = re.compile(r"[!-*,-~]{1,255}")
"""Printable ASCII without spaces and plus signs: what a key's name, and so an origin, is made of here."""
_FOREIGN: Final = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
"""What no note holds: control characters but newline, and what has no UTF-8."""


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
    """A public key (Ed25519, 32 bytes) and its name. As text: ``name+hash+key`` (signed-note's vkey).

    Raises ValueError: the name is not of 1 to 255 printable ASCII characters without ``+``, or the key not of 32 bytes.
    """

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.public) != 32:
            raise ValueError("is no Ed25519 key with a name of printable ASCII")

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
        if data is None or len(data) != 33 or data[:1] != _ED25519:
            raise ValueError("is no Ed25519 key of the form name+hash+key")
        found = cls(name, data[1:])
        if found.hash.hex() != key_hash:
            raise ValueError("its hash is not that of its name and key")
        return found


def note(checkpoint: Checkpoint, key: VerifierKey, sign: Callable[[bytes], bytes]) -> str:
    """The checkpoint with one signature; ``sign`` gives 64 bytes for a message. Raises as :func:`sign_line`."""
    return f"{checkpoint.body()}\n{sign_line(checkpoint, key, sign)}"


def sign_line(checkpoint: Checkpoint, key: VerifierKey, sign: Callable[[bytes], bytes]) -> str:
    """One signature, as a line to go below a note of this checkpoint.

    Raises:
        CheckpointError: what would be signed is no checkpoint, so nothing is.
        ValueError: ``sign`` did not give 64 bytes.
    """
    body = checkpoint.body()
    if _FOREIGN.search(body) or _parse(body) != checkpoint:
        raise CheckpointError("what is to be signed does not read as the same checkpoint")
    signature = sign(body.encode())
    if len(signature) != 64:
        raise ValueError(f"an Ed25519 signature has 64 bytes, not {len(signature)}")
    return f"{DASH}{key.name} {base64.b64encode(key.hash + signature).decode()}\n"


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
    if _FOREIGN.search(text):
        raise CheckpointError("the note holds a control character, or one that has no UTF-8")
    sought = key.name, key.hash
    found = [line for line in map(_signature, signatures[:-1].split("\n")) if line[:2] == sought]
    if len(found) != 1:
        raise CheckpointError(f"the note has {len(found)} signatures of {key.name}, not one")
    if not _holds(key.public, found[0][2], body.encode()):
        raise CheckpointError(f"the signature of {key.name} does not hold")
    return _parse(body)


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    data = _base64(encoded)
    named = name and not any(char == "+" or char.isspace() for char in name)
    if not line.startswith(DASH) or not named or data is None or len(data) < 5:
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
