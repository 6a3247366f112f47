"""Numbers of the TPM 2.0 wire format, and a reader that stays inside of its bytes (TPM 2.0 Library, part 2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes

from hanzo_compute.attestation.checks import Unreadable

RSA: Final = 0x0001
SHA1: Final = 0x0004
NULL: Final = 0x0010
RSASSA: Final = 0x0014
RSAES: Final = 0x0015
RSAPSS: Final = 0x0016
ECDSA: Final = 0x0018
ECDAA: Final = 0x001A
ECC: Final = 0x0023
"""TPM_ALG_ID, section 6.3."""

HASHES: Final[Mapping[int, Callable[..., Any]]] = {
    SHA1: hashlib.sha1,
    0x000B: hashlib.sha256,
    0x000C: hashlib.sha384,
    0x000D: hashlib.sha512,
}
SIGNED_WITH: Final[Mapping[int, hashes.HashAlgorithm]] = {
    SHA1: hashes.SHA1(),  # noqa: S303 to say that a signature is good, and refuse it for its hash
    0x000B: hashes.SHA256(),
    0x000C: hashes.SHA384(),
    0x000D: hashes.SHA512(),
}
HASH_NAMES: Final[Mapping[int, str]] = {SHA1: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}

DIGEST_MAX: Final = 64
NAME_MAX: Final = 2 + DIGEST_MAX
"""Bytes of a name: the algorithm and the digest."""


class Reader:
    """Reads big-endian fields one after the other; ``what`` is what error texts call the whole."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    @property
    def rest(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes. Raises Unreadable."""
        if size > self.rest:
            raise Unreadable(f"{self._what} is cut off: {size} bytes wanted at {self._at}, {self.rest} are there")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """The next ``size`` bytes as an unsigned integer. Raises Unreadable."""
        return int.from_bytes(self.take(size), "big")

    def sized(self, most: int) -> bytes:
        """A TPM2B: the size in two bytes, and so many bytes. Raises Unreadable."""
        size = self.number(2)
        if size > most:
            raise Unreadable(f"{self._what} has a field of {size} bytes at {self._at}; at most {most} are allowed")
        return self.take(size)

    def end(self) -> None:
        """Nothing may be left. Raises Unreadable."""
        if self.rest:
            raise Unreadable(f"{self._what} has {self.rest} bytes too many")


def read_json(data: bytes, what: str) -> Any:
    """The value of a JSON text whose names are given once each. Raises Unreadable."""
    try:
        return json.loads(data, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{what} cannot be read as JSON: {error}") from None


def digest(algorithm: int, data: bytes) -> bytes:
    """The digest of ``data``. Raises Unreadable: the algorithm is none that is known here."""
    hasher = HASHES.get(algorithm)
    if hasher is None:
        raise Unreadable(f"the hash algorithm 0x{algorithm:04x} is not known")
    value: bytes = hasher(data).digest()
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name is given twice")
    return dict(pairs)
