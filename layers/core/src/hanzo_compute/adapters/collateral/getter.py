"""One file of one service: from the cache, or from the network once for all who ask at the same time."""

from __future__ import annotations

import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from threading import Lock
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from hanzo_compute.adapters.collateral import limits
from hanzo_compute.adapters.collateral.cache import FileCache
from hanzo_compute.adapters.collateral.limits import Buckets
from hanzo_compute.adapters.collateral.wanted import Answer, Kept, Opener, Unobtainable, Wanted
from hanzo_compute.ports import Clock

log = logging.getLogger(__name__)

ATTEMPTS: Final = 4
REQUEST_S: Final = 10.0
"""For one request, from its first byte to the last of the answer."""
ABSENT_S: Final = 300.0
"""What a service says it does not have is not asked for again for so long."""
UNFIT_S: Final = 60.0
OUTAGE_S: Final = 15.0
FAILURES_MAX: Final = 1024
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
# What parsers of certificates, lists, JSON and base64 raise at what is none.
_NOT_PARSED: Final = (
    ValueError,
    OverflowError,
    RecursionError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
)


class Getter:
    """Gets files; safe to share between threads.

    Args:
        opener: sends requests.
        cache: keeps answers.
        buckets: how often a service is asked.
        clock: for waits, and for when an answer was had.
        uniform: a random number between two; for jitter.
        offline: whether the cache is all there is.
    """

    def __init__(
        self,
        opener: Opener,
        cache: FileCache,
        buckets: Buckets,
        clock: Clock,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
        offline: bool = False,
    ) -> None:
        self._opener = opener
        self._cache = cache
        self._buckets = buckets
        self._clock = clock
        self._uniform = uniform
        self._offline = offline
        self._failures: OrderedDict[str, tuple[float, Unobtainable]] = OrderedDict()
        self._flights: dict[str, Future[bytes]] = {}
        self._lock = Lock()

    def get(self, wanted: Wanted, now_ms: int, until: float) -> bytes:
        """A file that is good at ``now_ms``, had before ``until`` (monotonic).

        Near its end it is had anew; while that fails the one in the cache is used, as long as it is good.

        Raises:
            Unobtainable: it cannot be had, and why.
        """
        entry = self._cache.read(wanted.key)
        good = entry.content if entry is not None and entry.is_good(now_ms) else None
        if entry is not None and good is not None and (self._offline or not entry.is_due(now_ms)):
            return good
        try:
            if self._offline:
                state = "is not in the cache" if entry is None else "is out of date in the cache"
                raise Unobtainable(f"{wanted.what} {state}, and collateral is offline")
            self._recall(wanted.key)
            # With something good in hand one attempt will do.
            attempts = ATTEMPTS if good is None else 1
            return self._alone(wanted, until, lambda: self._had(wanted, now_ms, until, attempts))
        except Unobtainable as error:
            if good is None:
                raise
            log.warning("collateral is not renewed, the cached one is used: %s", error.reason)
            return good

    def _alone(self, wanted: Wanted, until: float, get: Callable[[], bytes]) -> bytes:
        """What ``get()`` gives, called by one of those who want the same."""
        with self._lock:
            flight = self._flights.get(wanted.key)
            leads = flight is None
            if flight is None:
                flight = self._flights[wanted.key] = Future()
        if not leads:
            try:
                return flight.result(max(0.0, until - self._clock.monotonic()))
            except FutureTimeout:
                raise Unobtainable(f"{wanted.what} did not come in time", passing=True) from None
        try:
            flight.set_result(get())
        except BaseException as error:
            # What interrupts this thread is no business of those who wait for it.
            mine = Unobtainable(f"{wanted.what}: the request was given up", passing=True)
            flight.set_exception(error if isinstance(error, Exception) else mine)
            raise
        finally:
            with self._lock:
                del self._flights[wanted.key]
        return flight.result()

    def _had(self, wanted: Wanted, now_ms: int, until: float, attempts: int) -> bytes:
        entry = self._cache.read(wanted.key)
        if entry is not None and entry.is_good(now_ms) and not entry.is_due(now_ms):
            return entry.content  # of a flight that landed just now
        self._recall(wanted.key)  # or that came to nothing
        try:
            kept = self._repeated(wanted, until, attempts)
            self._keep(wanted.key, kept)
            if kept.not_after_ms is not None and kept.not_after_ms <= now_ms:
                raise Unobtainable(f"{wanted.what} as {_host(wanted)} has it is out of date", passing=True)
        except Unobtainable as error:
            self._remember(wanted.key, error)
            raise
        return kept.content

    def _keep(self, key: str, kept: Kept) -> None:
        now_ms = self._clock.now_ms()
        if kept.not_after_ms is not None and kept.not_after_ms <= now_ms:
            return
        try:
            self._cache.write(key, kept, now_ms)
        except OSError as error:
            log.warning("collateral cannot be cached: %s", error.strerror or error)

    def _repeated(self, wanted: Wanted, until: float, attempts: int) -> Kept:
        failures = 0
        while True:
            try:
                self._buckets.pass_(wanted.service, wanted.line, until)
                return self._once(wanted, until)
            except Unobtainable as error:
                failures += 1
                said = Unobtainable(
                    f"{wanted.what}: {_host(wanted)} {error.reason}",
                    passing=error.passing,
                    retry_after_s=error.retry_after_s,
                )
                if not error.passing or failures >= attempts:
                    raise said from None
            wait = limits.backoff_s(failures, said.retry_after_s, self._uniform)
            if self._clock.monotonic() + wait >= until:
                raise said
            self._clock.sleep(wait)

    def _once(self, wanted: Wanted, until: float) -> Kept:
        left = until - self._clock.monotonic()
        if left <= 0:
            raise Unobtainable("did not answer in time", passing=True)
        answer = self._opener(wanted.request, min(REQUEST_S, left))
        if answer.status != 200:
            raise self._refused(answer)
        try:
            return wanted.admit(answer)
        except _NOT_PARSED as error:
            raise Unobtainable(f"answered with something else: {str(error)[:200] or type(error).__name__}") from None

    def _refused(self, answer: Answer) -> Unobtainable:
        status = answer.status
        if 300 <= status < 400:
            return Unobtainable(f"answered with a redirect ({status}), which is not followed")
        if status in _PASSING:
            after = limits.retry_after_s(answer.headers.get("retry-after"), self._clock.now_ms())
            return Unobtainable(f"answered {status}", passing=True, retry_after_s=after)
        if status in (404, 410):
            return Unobtainable(f"does not have it ({status})", retry_after_s=ABSENT_S)
        return Unobtainable(f"answered {status}")

    def _recall(self, key: str) -> None:
        """Raise what went wrong with this file a short while ago."""
        with self._lock:
            until, error = self._failures.get(key, (0.0, None))
            now = self._clock.monotonic()
            if error is None or now >= until:
                return
        raise Unobtainable(f"{error.reason} (asked before)", passing=error.passing, retry_after_s=until - now)

    def _remember(self, key: str, error: Unobtainable) -> None:
        seconds = error.retry_after_s or (OUTAGE_S if error.passing else UNFIT_S)
        with self._lock:
            self._failures.pop(key, None)
            self._failures[key] = (self._clock.monotonic() + seconds, error)
            while len(self._failures) > FAILURES_MAX:
                self._failures.popitem(last=False)


def _host(wanted: Wanted) -> str:
    scheme, _, rest = wanted.request.url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"
