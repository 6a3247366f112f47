"""What is asked of a service, what it answers, and what of that is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * MINUTE_MS


class Unobtainable(Exception):
    """A file cannot be had, and why; ``passing`` if asking again can help, after ``retry_after_s`` if it is known."""

    def __init__(self, reason: str, *, passing: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passing = passing
        self.retry_after_s = retry_after_s


class Unfit(ValueError):
    """An answer is not what was asked for; the message says in which way."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request."""

    url: str
    limit: int
    """Bytes of the answer's body, at most."""
    accept: str = "*/*"
    body: bytes | None = field(default=None, repr=False)
    """It is a POST if there is one."""
    content_type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


Opener = Callable[[Request, float], Answer]
"""Sends a request and reads the answer within so many seconds. Raises Unobtainable."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of an answer, and until when it may be used: ms since the epoch, None for ever."""

    content: bytes = field(repr=False)
    not_after_ms: int | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of a service."""

    what: str
    """In words, for reasons: ``the VCEK``."""
    service: str
    """Whose rate limit holds."""
    request: Request
    admit: Callable[[Answer], Kept]
    """What of an answer is kept. It raises Unfit, or what parsers raise, if the answer is not what was asked for."""
    line: str = ""
    """Of the lines in which requests wait for one service, which."""
    name: str = ""
    """What the answer is of, where the request says more than that (a nonce)."""

    @property
    def key(self) -> str:
        """What it is found by in the cache."""
        return self.name or self.request.url


@dataclass(frozen=True, slots=True)
class Job:
    """A file that evidence needs. ``get(now_ms, until)`` raises Unobtainable; several may run at the same time."""

    name: str
    get: Callable[[int, float], bytes]


Jobs = Callable[[Mapping[str, bytes]], list[Job]]
"""What evidence of these files needs and does not carry; raises Unreadable."""
