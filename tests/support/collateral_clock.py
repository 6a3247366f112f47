"""A clock that stands still until somebody sleeps."""

from __future__ import annotations

import threading

from tests.support.pki import NOW_MS


class StillClock:
    """Time passes only by sleeping; what was slept is written down."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.slept: list[float] = []
        self._start_ms = now_ms
        self._passed = 0.0
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        return self._start_ms + round(self._passed * 1000)

    def monotonic(self) -> float:
        return self._passed

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self._passed += seconds

    def go(self, seconds: float) -> None:
        """Let time pass, without anybody having slept."""
        with self._lock:
            self._passed += seconds
