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


@dataclass(frozen=True, slots=True)
class Seen:
    """A key-value entry as it was read: the revision of its record, the highest version that it has had, its value."""

    rev: int
    version: int
    value: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Touched:
    """A key-value entry that a call has used: the revision that it saw, and what it left if it has changed it."""

    key: bytes
    rev: int
    version: int = 0
    value: bytes | None = field(default=None, repr=False)
    """None with ``changed``: it was removed."""
    changed: bool = False
    blob: str | None = None
    """The blob that holds the value instead, of the job's tenant."""


@runtime_checkable
class GuestService(Protocol):
    """Answers the host calls of one call that leave the sandbox."""

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """The status and the result; raises nothing, whatever the guest does."""
        ...


@runtime_checkable
class LoggingService(GuestService, Protocol):
    """A :class:`GuestService` that has a log: of its refusals, and of what the guest says."""

    lines: list[tuple[str, str]]
    """Level and text."""

    def log(self, level: str, text: str) -> None:
        """Take a line; what is too much is dropped."""
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
