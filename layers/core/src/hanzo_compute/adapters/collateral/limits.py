"""How often a service is asked: token buckets, and back-off after failures."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Final

from hanzo_compute.adapters.collateral.wanted import Unobtainable
from hanzo_compute.ports import Clock

LINES_MAX: Final = 1024
"""Lines that are remembered; of one that is forgotten the bucket is full, as it was long ago."""
BACKOFF_S: Final = 0.5
BACKOFF_MAX_S: Final = 8.0
RETRY_AFTER_MAX_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second in the long run, and at once."""

    per_s: float
    burst: int


RATES: Final[Mapping[str, Rate]] = {
    # AMD allows about one request in 10 s; each chip is a line of its own, and so is each product's chain.
    "amd": Rate(0.1, 3),
    "intel": Rate(5.0, 10),
    "nvidia-rim": Rate(5.0, 20),
    # One for each certificate of each GPU: eight GPUs ask for some 90 at once.
    "nvidia-ocsp": Rate(10.0, 100),
}


class Buckets:
    """A token bucket for each line of each service."""

    def __init__(self, rates: Mapping[str, Rate], clock: Clock) -> None:
        self._rates = rates
        self._clock = clock
        self._lines: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def pass_(self, service: str, line: str, until: float) -> None:
        """Wait for the turn of a request, if it comes before ``until`` (monotonic).

        Raises:
            Unobtainable: it does not.
        """
        wait = self._reserve(service, line, until)
        if wait > 0:
            self._clock.sleep(wait)

    def _reserve(self, service: str, line: str, until: float) -> float:
        rate = self._rates[service]
        with self._lock:
            now = self._clock.monotonic()
            tokens, then = self._lines.pop((service, line), (float(rate.burst), now))
            tokens = min(float(rate.burst), tokens + (now - then) * rate.per_s)
            wait = max(0.0, (1.0 - tokens) / rate.per_s)
            if now + wait > until:
                self._lines[service, line] = (tokens, now)
                raise Unobtainable(
                    f"is asked no more than {rate.per_s:g} times a second; the next turn is in {wait:.1f} s",
                    passing=True,
                    retry_after_s=wait,
                )
            # Below zero it is a debt: who comes next waits for it too.
            self._lines[service, line] = (tokens - 1.0, now)
            while len(self._lines) > LINES_MAX:
                self._lines.popitem(last=False)
            return wait


def backoff_s(failures: int, retry_after_s: float | None, uniform: Callable[[float, float], float]) -> float:
    """Seconds to wait after so many failures: doubling, full jitter, and never less than was asked for."""
    jittered = uniform(0.0, min(BACKOFF_MAX_S, BACKOFF_S * 2.0 ** (failures - 1)))
    return jittered + (retry_after_s or 0.0)


def retry_after_s(value: str | None, now_ms: int) -> float | None:
    """The header Retry-After, seconds or a date (RFC 9110 section 10.2.3), as seconds from now; at most an hour."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), RETRY_AFTER_MAX_S)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = date if date.tzinfo else date.replace(tzinfo=UTC)
    seconds = (at - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S)
