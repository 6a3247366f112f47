"""The machine's clock, and ids from its random numbers."""

from __future__ import annotations

import secrets
import time

from hanzo_compute.adapters.ids import RANDOM_BITS, TOKEN_BYTES, ulid


class SystemClock:
    """Time as the operating system tells it."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class SystemIds:
    """Ids and tokens that nobody can guess."""

    def new(self, prefix: str, now_ms: int) -> str:
        """A new id ``<prefix>-<26 characters>`` that sorts by time."""
        return f"{prefix}-{ulid(now_ms, secrets.randbits(RANDOM_BITS))}"

    def token(self) -> str:
        """256 random bits as text, safe in URLs."""
        return secrets.token_urlsafe(TOKEN_BYTES)
