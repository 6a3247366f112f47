"""What a sandbox is asked to run, and what it tells afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hanzo_compute.adapters.sandbox.hostcalls import HostCalls
    from hanzo_compute.adapters.sandbox.image import Image

EPOCH_NS: Final = 946_684_800 * 10**9
"""2000-01-01T00:00:00Z: when every program of the deterministic profile begins."""

Sink = Callable[[int, bytes], None]
"""Takes output as it comes: 1 for stdout, 2 for stderr, and the bytes."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the host that a guest sees under a name of its own."""

    host: str
    guest: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one call may use at most; beyond it stands the worker's own limit."""

    memory_mib: int = 256
    fuel: int | None = None
    output: int = 8 << 20
    """Bytes of stdout, and of stderr."""
    scratch: int = 64 << 20
    """Bytes written to files."""
    scratch_files: int = 1000
    open_files: int = 32
    host_calls: int = 10_000
    host_bytes: int = 64 << 20
    """Bytes that host calls bring in and out."""


@dataclass(slots=True)
class Call:
    """One run of a module. ``entry`` is ``command`` (``_start``) or ``reactor`` (``alloc`` and ``handle``)."""

    entry: str = "command"
    argv: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    """Standard input, or what ``handle`` is called with."""
    stdin_path: str | None = None
    folders: list[Folder] = field(default_factory=list)
    bounds: Bounds = field(default_factory=Bounds)
    deterministic: bool = False
    seed: bytes = b""
    """What randomness grows from (deterministic)."""
    host: HostCalls | None = None
    """The host functions that are granted."""
    deadline: float | None = None
    """On the monotonic clock: a host call that sleeps ends then."""
    sink: Sink | None = None
    """Where output goes as it comes; without it, it is kept for the report."""
    image: Image | None = None
    """What its memory is at the beginning: of a program that goes on from a snapshot."""
    keeps: bool = False
    """Its memory is wanted afterwards."""
    kept: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Report:
    """How a call ended: ``exit``, ``trap``, ``oom`` (it could not start in its memory) or ``invalid``."""

    kind: str
    exit_code: int | None = None
    trap: str | None = None
    detail: str = ""
    output: bytes = b""
    """What ``handle`` returned."""
    stdout: bytes = b""
    stderr: bytes = b""
    wall_ms: int = 0
    cpu_ms: int = 0
    fuel: int | None = None
    """None where it is not counted, or not known."""
    memory_bytes: int = 0
    at_memory_limit: bool = False
    limits: list[str] = field(default_factory=list)
    """Budgets that were reached: stdout, stderr, scratch, scratch_files, open_files, host_calls, host_bytes."""
    counters: dict[str, int] = field(default_factory=dict)
    """How often shadowed functions of WASI were called, and host functions."""


class Stream:
    """The seeded random bytes of a deterministic call: SHAKE-256 over the seed and the number of the request."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        self._count += 1
        return hashlib.shake_256(self._seed + self._count.to_bytes(8, "little")).digest(size)


def seed(module: str, argv: list[str], env: dict[str, str], stdin: str) -> bytes:
    """The seed of a deterministic run: of what runs (SHA-256, hex), how it is called, and what it reads (likewise)."""
    parts = [b"hanzo-compute/deterministic/v1", module.encode(), stdin.encode()]
    parts += [arg.encode() for arg in argv]
    parts += [f"{name}={value}".encode() for name, value in sorted(env.items())]
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "little") + part)
    return hashed.digest()
