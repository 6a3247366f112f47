"""How much one front holds at a time, whoever asks for it: connections, bytes, requests that wait for their turn."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from hanzo_compute.errors import Unavailable
from hanzo_compute.model.bounds import KIB, MIB

CONNECTIONS_MAX: Final = 10_000
"""However many descriptors there are: a parked request costs some 20 KiB."""
OPEN_FILES_MAX: Final = 65_536
"""The soft limit of open files is raised to the hard one, at most to this."""
RESERVED_FILES: Final = 128
"""Descriptors for the front's own files, and for connections that are being turned away."""
SMALL: Final = 16 * KIB
"""Bodies and answers up to this size are not counted: the bound on connections bounds them."""
RETRY_AFTER_S: Final = 1


@dataclass(frozen=True)
class Limits:
    """The bounds of one front."""

    connections: int = CONNECTIONS_MAX
    """Connections beyond this many are answered 503 and closed."""
    turns: int = 1_000
    """Requests that wait for their handler's turn, or for their writes to be durable; parked ones do not count."""
    bodies: int = 64 * MIB
    """Bytes of all bodies that are being read or worked on."""
    answers: int = 128 * MIB
    """Bytes of all answers whose clients have not read them yet."""
    head_s: float = 10.0
    """The head of a request must have arrived this long after the connection was made, or after its first byte."""
    unread_s: float = 60.0
    """A client that reads nothing of its answer for this long is cut off."""


def from_system() -> Limits:
    """The limits that fit the open files that this process may have, after asking for as many as it can have.

    A connection needs up to two descriptors: its socket, and the file of a blob.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    files = OPEN_FILES_MAX if soft == resource.RLIM_INFINITY else soft
    return Limits(connections=max(16, min(CONNECTIONS_MAX, (files - RESERVED_FILES) // 2)))


def overloaded(what: str) -> Unavailable:
    """The refusal of what would be one too many; nothing has been done."""
    return Unavailable(
        f"the platform is at its limit: {what}", hint="repeat it in a moment", retry_after_s=RETRY_AFTER_S
    )


class Budget:
    """Bytes that may be held at the same time, by all together."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self.held = 0

    def take(self, size: int) -> None:
        """Hold ``size`` more bytes. Raises Unavailable when that would be too many."""
        if self.held + size > self._most:
            raise overloaded(self._what)
        self.held += size

    def give(self, size: int) -> None:
        """Hold them no more."""
        self.held -= size

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold ``size`` bytes for the block, unless they are few. Raises Unavailable."""
        counted = size if size > SMALL else 0
        self.take(counted)
        try:
            yield
        finally:
            self.give(counted)


class Load:
    """What one front holds now."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.bodies = Budget(limits.bodies, "too many large bodies are being read")
        self.answers = Budget(limits.answers, "too many large answers wait to be read")
        self.turns = 0
        """Requests that wait for their handler's turn, or for durability."""

    def check_turn(self, share: int = 1) -> None:
        """Refuse a request when too many wait already; ``share``: how many times as many may. Raises Unavailable."""
        if self.turns >= self.limits.turns * share:
            raise overloaded("too many requests wait for their turn")

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a request as waiting for the block."""
        self.turns += 1
        try:
            yield
        finally:
            self.turns -= 1
