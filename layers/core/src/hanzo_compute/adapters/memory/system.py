"""Time that passes when the test says so, and ids that a seed decides."""

from __future__ import annotations

import base64
from random import Random

from hanzo_compute.adapters.ids import RANDOM_BITS, TOKEN_BYTES, ulid


class ManualClock:
    """A clock that stands still: set ``now_ms_value``, call ``advance``, or let ``sleep`` advance it."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms_value = now_ms
        self._monotonic_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self.now_ms_value

    def monotonic(self) -> float:
        """Seconds of all advances; setting ``now_ms_value`` does not change it."""
        return self._monotonic_ms / 1000

    def sleep(self, seconds: float) -> None:
        """Advance, and return at once."""
        self.advance(round(seconds * 1000))

    def advance(self, ms: int) -> None:
        """Let ``ms`` milliseconds pass."""
        self.now_ms_value += ms
        self._monotonic_ms += ms


class SeededIds:
    """Ids and tokens that are the same for the same seed: never for production."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def new(self, prefix: str, now_ms: int) -> str:
        """A new id ``<prefix>-<26 characters>`` that sorts by time."""
        return f"{prefix}-{ulid(now_ms, self._random.getrandbits(RANDOM_BITS))}"

    def token(self) -> str:
        """256 bits of the seed as text, safe in URLs."""
        return base64.urlsafe_b64encode(self._random.randbytes(TOKEN_BYTES)).decode().rstrip("=")
