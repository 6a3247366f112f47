"""What a guest's host calls reach: who answers them, and the way to other hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, runtime_checkable


class Status(IntEnum):
    """How a host call ended, as its guest sees it; what is not negative is a result."""

    OK = 0
    NOT_FOUND = -1
    DENIED = -2
    INVALID = -3
    CONFLICT = -4
    LIMIT = -5
    UNAVAILABLE = -6
    TIMED_OUT = -7


class GuestRefusal(Exception):
    """A host call does not do what was asked. The guest gets ``status``; ``why`` is for its owner's log.

    ``moved``: bytes that went to and fro all the same.
    """

    def __init__(self, status: Status, why: str, *, moved: int = 0) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.moved = moved


@runtime_checkable
class GuestService(Protocol):
    """Answers the host calls of one call that leave the sandbox."""

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """The status and the result; raises nothing, whatever the guest does."""
        ...


@dataclass(frozen=True, slots=True)
class EgressRequest:
    """An HTTP request of a guest."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = field(default=b"", repr=False)
    origins: frozenset[str] = frozenset()
    """Where it may go: origins in the form of :func:`hanzo_compute.model.origins.normalised`."""
    idempotency_key: str = ""
    """Sent as ``Idempotency-Key``, unless the guest gives one."""
    timeout_s: float = 10.0
    """For all of it: names, connections, redirects, the body."""
    follow: bool = False
    """Follow redirects, a few."""


@dataclass(frozen=True, slots=True)
class EgressResponse:
    """What the other side answered; ``body`` as it came, not decompressed."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes = field(repr=False)
    moved: int
    """Bytes that were sent and received for it."""


@runtime_checkable
class Egress(Protocol):
    """The way out of a sandbox; safe to share between threads."""

    def fetch(self, request: EgressRequest) -> EgressResponse:
        """Send a request to one of its origins.

        Raises:
            GuestRefusal: it may not go there (DENIED), is no request (INVALID), there is no such host (NOT_FOUND), it
                or the answer is too large (LIMIT), nobody answered in time (TIMED_OUT) or properly (UNAVAILABLE).
        """
        ...
