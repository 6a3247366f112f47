"""What runs a function's calls: a sandbox that is asked for one answer, and gives it in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from hanzo_compute.ports.guests import GuestService


@dataclass(frozen=True, slots=True)
class GuestProgram:
    """What is called, by a key that names it and everything of it: two of one key are the same."""

    key: str
    entry: str
    """``command``: request on standard input, response on standard output. ``reactor``: alloc and handle."""
    profile: str
    module: Callable[[], bytes]
    """The module's bytes; asked for only if it is not compiled yet. Unused with a language."""
    digest: str
    """SHA-256, hex, of the module; empty with a language."""
    language: str | None = None
    files: Callable[[], Mapping[str, bytes]] = dict
    """What it sees in ``/in``, by path; asked for only when it is prepared. Raises InvalidPackage."""
    script: str = ""
    """With a language: which of the files it begins with."""
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    memory_mib: int = 256
    fuel: int | None = None
    output_max: int = 1 << 20
    granted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class GuestCall:
    """One call of a program, for a tenant."""

    program: GuestProgram
    tenant: str
    data: bytes
    timeout_s: float
    service: GuestService | None = None
    heard: Callable[[bytes], None] | None = None
    """Takes standard output of a command as it is written; all of it stands in the result, too."""


@dataclass(frozen=True, slots=True)
class GuestResult:
    """What a call came to. ``category`` is one of :class:`~hanzo_compute.model.outcome.Category`."""

    category: str
    output: bytes = b""
    errors: bytes = b""
    """Standard error, and what was logged."""
    detail: str = ""
    exit_code: int | None = None
    trap: str | None = None
    limits: Sequence[str] = ()
    wall_us: int = 0
    cpu_ms: int = 0
    fuel: int | None = None
    memory_bytes: int = 0
    runtime: str = ""


@runtime_checkable
class Guests(Protocol):
    """Runs calls in sandboxes; several may run at a time."""

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call to its end. Raises Unavailable when no sandbox can be had, NoCapacity when too many wait."""
        ...

    async def close(self) -> None:
        """End all sandboxes."""
        ...
