"""What agents work with: the platform's leases, and the runner that carries attempts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from hanzo_compute.errors import ComputeError
from hanzo_compute.model.evidence import Evidence
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.model.statement import Signed
from hanzo_compute.ports.guests import LoggingService, Seen, Touched
from hanzo_compute.ports.storage import Body, LogEntry


@dataclass(frozen=True, slots=True)
class Lease:
    """One attempt handed to an agent. ``data`` inline or behind presigned URLs, never both."""

    job: str
    attempt: int
    runtime: str
    spec: Body
    """The job spec; ``source`` and ``input`` as the client gave them."""
    lease_ms: int
    """The lease lapses this many ms after it was made or last renewed."""
    timeout_ms: int
    """Wall-clock limit: the spec's, or what is left until the deadline if that is less."""
    timeout_is_deadline: bool
    module_url: str | None = None
    input_url: str | None = None
    follow: bool = False
    terms: Body = field(default_factory=dict)
    """How the agent is paid: see :class:`~hanzo_compute.model.statement.Terms`."""
    delivered_tier: int = 0
    """The tier that this attempt's runner has proved; with ``evidence``, by which digest."""
    evidence: str | None = None
    call: str = ""
    """What its function's requests to other hosts are known by: the job, or the call that became it."""


@dataclass(frozen=True, slots=True)
class Want:
    """The work that an agent wants: up to ``limit`` attempts of a pool."""

    pool: str
    agent: str
    key: str
    """What the key is known by that the agent signs with: SHA-256, hex."""
    limit: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What an attempt came to, with the last chunk of its log; unsigned only if the platform failed it."""

    job: str
    attempt: int
    outcome: Outcome
    log_seq: int = 0
    entries: Sequence[LogEntry] = ()
    signed: Signed | None = None
    touched: Sequence[Touched] | None = None
    """The key-value entries that it has used, if it came to ``ok`` and its function has such: kept with the outcome."""


@dataclass(frozen=True, slots=True)
class Completed:
    """Answer to reports: for each its job's state, or why it was refused; and what was leased with the same call."""

    states: list[str | ComputeError]
    leases: list[Lease] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Beat:
    """Answer to a heartbeat: the reason to stop, or None, and whether somebody follows the log."""

    cancel: str | None
    follow: bool


@runtime_checkable
class LeaseApi(Protocol):
    """The agent's view of the platform (``/v1/leases…``)."""

    def lease(self, want: Want, wait_s: float) -> list[Lease]:
        """What is wanted; waits up to ``wait_s`` for the first."""
        ...

    def again(self, job: str, attempt: int) -> Lease:
        """The lease of an attempt that this agent holds. Raises StaleFence."""
        ...

    def heartbeat(self, job: str, attempt: int, *, seen: Beat, wait_s: float) -> Beat:
        """Renew the lease; waits up to ``wait_s`` for an answer other than ``seen``. Raises StaleFence."""
        ...

    def logs(self, job: str, attempt: int, seq: int, entries: Sequence[LogEntry]) -> None:
        """Append a log chunk. Raises StaleFence."""
        ...

    def upload(self, job: str, attempt: int, data: bytes) -> str:
        """Store output bytes for the job's tenant; returns the blob id. Raises StaleFence."""
        ...

    def download(self, url: str) -> bytes:
        """Bytes behind a presigned URL of a lease."""
        ...

    def entry(self, job: str, attempt: int, key: bytes, *, fresh: bool) -> Seen:
        """A key-value entry of the job's function; ``fresh``: as it is now. Raises StaleFence, PermissionDenied."""
        ...

    def secret(self, job: str, attempt: int, name: str) -> bytes | None:
        """A secret that the job's function was granted, None if there is none; that it was read is on record before.

        Raises StaleFence, PermissionDenied.
        """
        ...

    def complete(self, reports: Sequence[Report], *, want: Want | None = None) -> Completed:
        """Hand in outcomes, each by itself, and lease what is there of ``want``."""
        ...

    def release(self, job: str, attempt: int, reason: str) -> None:
        """Give the attempt back unfinished: it costs the tenant no retry. Raises StaleFence."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A challenge: a nonce of 32 bytes that evidence must answer."""

    id: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Presented:
    """An attestation result: a token, and its verdict (``accept``, ``reject``, ``unavailable``)."""

    token: str
    verdict: str


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """A job's data key as it was sealed to a runner, and what the runner has proved."""

    sealed: bytes
    tier: int
    evidence: str


@runtime_checkable
class KeyApi(Protocol):
    """How a runner gets a job's key (``/v1/attestation/…``, ``/v1/jobs/{id}/key``)."""

    def challenge(self, job: str, attempt: int, signing_key: bytes, sealing_key: bytes) -> Asked:
        """A nonce for an attempt and the runner's two keys. Raises StaleFence."""
        ...

    def credential(self, challenge: str, ek: bytes, ak: bytes) -> bytes:
        """A credential for a TPM with these keys (TPM2B_PUBLIC each): TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET."""
        ...

    def present(self, challenge: str, evidence: Sequence[Evidence], activated: bytes | None = None) -> Presented:
        """The attestation result for evidence that answers a challenge. Raises Rejected, StaleFence.

        ``activated`` is the secret of the challenge's credential.
        """
        ...

    def key(self, job: str, attempt: int, token: str) -> KeyAnswer:
        """The job's key. Raises Rejected, StaleFence, Conflict; NotFound while the requester has not given it."""
        ...


@dataclass(frozen=True, slots=True)
class Handle:
    """A started attempt."""

    job: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunnerOutcome:
    """What a runner collected: the outcome without its outputs, and standard output's bytes."""

    outcome: Outcome
    stdout: bytes


@runtime_checkable
class Runner(Protocol):
    """Runs attempts; every call is idempotent by (job, attempt). Belongs to one agent."""

    runtimes: frozenset[str]

    def ready(self) -> bool:
        """Whether an attempt that starts now could be run: if not, leasing one would only waste it."""
        ...

    def start(
        self, lease: Lease, *, module: bytes | None, stdin: bytes, service: LoggingService | None = None
    ) -> Handle:
        """Start an attempt; starting one that runs or has ended returns its handle.

        ``service`` answers the host calls that its function was granted; its lines go to standard error.
        """
        ...

    def poll(self, handle: Handle, wait_s: float) -> bool:
        """True once the attempt has ended; waits up to ``wait_s`` for that."""
        ...

    def logs(self, handle: Handle, cursor: int) -> tuple[list[LogEntry], int]:
        """The next log entries after ``cursor`` (0 at first), and the cursor after them: repeat until none come.

        One call gives at most one log chunk; all together stay within ``log_limit``. A cursor is a position in the
        log, good also after a restart.
        """
        ...

    def cancel(self, handle: Handle, reason: str) -> None:
        """End an attempt soon; its outcome gets ``reason`` as category unless it had ended before.

        One that was reaped meanwhile is left alone.
        """
        ...

    def collect(self, handle: Handle) -> RunnerOutcome:
        """The outcome of an attempt that has ended."""
        ...

    def adopt(self) -> list[Handle]:
        """After a restart: the attempts of the earlier process that have an outcome to collect."""
        ...

    def reap(self, handle: Handle) -> None:
        """Forget an attempt and remove what it left, killing it if it still runs."""
        ...

    def close(self) -> None:
        """End everything that this runner started."""
        ...


Spawn = Callable[[Callable[[], None], str], None]
"""Start a task that runs beside the caller (a thread; in simulation a greenlet), with a name for logs."""
