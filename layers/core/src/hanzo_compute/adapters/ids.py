"""The form of ids: ULIDs, 48 bits of time and 80 random bits in Crockford's base32 (github.com/ulid/spec)."""

from __future__ import annotations

from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_BITS: Final = 80
TOKEN_BYTES: Final = 32


def ulid(now_ms: int, random: int) -> str:
    """26 characters that sort by ``now_ms``, with ``random`` (80 bits) behind it."""
    value = now_ms << RANDOM_BITS | random
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
