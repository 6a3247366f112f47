"""What the services need from the world: Protocols that adapters implement and simulations replace.

Ports are synchronous and shaped for the poorest of their back ends: records are read by key or by a range of one
partition, changed by compare-and-set in transactions of at most 100 records, and stay under 400 KB. Every call may
raise :class:`~hanzo_compute.errors.Unavailable`, also after it took effect: callers repeat safely.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

from hanzo_compute.errors import ComputeError
from hanzo_compute.model.keys import Key
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.model.statement import Signed

Body = dict[str, Any]
Entries = Mapping[str, tuple[str, str]]

ABSENT: Final = 0
"""As ``expect``: the record must not exist."""

TRANSACTION_MAX: Final = 100
"""Operations in one transaction."""
RECORD_MAX: Final = 400_000
"""Bytes of a record's body as JSON."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stored record; ``rev`` counts its writes from 1."""

    key: Key
    rev: int
    body: Body


@dataclass(frozen=True, slots=True)
class Put:
    """Write a whole record if its revision is ``expect`` (``ABSENT``: it does not exist; None: whatever it is).

    ``index`` holds the record's entry in each index it appears in, and replaces its earlier entries.
    """

    key: Key
    body: Body
    expect: int | None = None
    index: Entries = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a record and its index entries if its revision is ``expect``; removing what is absent succeeds
    when ``expect`` is None."""

    key: Key
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """Only require that a record's revision is ``expect`` (``ABSENT``: that it does not exist)."""

    key: Key
    expect: int


Operation = Put | Delete | Check


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a queue with a transaction, visible after ``delay_s`` (at most 900) seconds."""

    queue: str
    body: Body
    delay_s: int = 0


class WriteConflict(Exception):
    """An expectation did not hold, so nothing of the transaction was applied.

    ``current`` maps each key whose expectation failed to the record found there, or None. It says nothing to a
    client: services catch it and decide.
    """

    def __init__(self, current: Mapping[Key, Record | None]) -> None:
        super().__init__(f"conflict on {', '.join('/'.join(key) for key in current)}")
        self.current = dict(current)


@runtime_checkable
class JobStore(Protocol):
    """Records with compare-and-set, ranges of a partition, and a few named indexes.

    ``fresh`` reads see every write that this process has applied, and every applied write of others; other reads
    may be a moment old, and index reads always may. A caller acts on a stale read safely because of ``expect``.
    """

    @property
    def sends(self) -> bool:
        """Whether the queues are in the same database, so that :meth:`transact` can send messages, too."""
        ...

    def get(self, key: Key, *, fresh: bool = False) -> Record | None:
        """The record at ``key``."""
        ...

    def query(
        self, pk: str, *, prefix: str = "", after: str = "", limit: int = 100, reverse: bool = False
    ) -> list[Record]:
        """Records of a partition whose sort key starts with ``prefix``, in order of sort key.

        ``after`` excludes sort keys up to and including itself (with ``reverse``: from itself on).
        """
        ...

    def query_index(
        self, index: str, pk: str, *, after: str = "", before: str = "", limit: int = 100, reverse: bool = False
    ) -> list[tuple[str, Record]]:
        """Sort keys and records of an index partition strictly between ``after`` and ``before`` (empty: open)."""
        ...

    def count_index(self, index: str, pk: str, most: int) -> int:
        """How many entries an index partition has, counted up to ``most``; may be a moment old."""
        ...

    def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        """Apply all operations or none, and send the messages if they are applied (only where ``sends``).

        Raises:
            WriteConflict: an expectation did not hold.
            Unavailable: the outcome is not known, or nothing was applied; repeat it safely.
        """
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """A received message. ``receipt`` is good until the visibility timeout passes."""

    id: str
    queue: str
    body: Body
    receipt: str
    receive_count: int
    sent_ms: int


DEAD_LETTERS: Final = "-dlq"
"""Suffix of the queue that takes a queue's messages after ``max_receives``."""


def queue_wake(queue: str) -> str:
    """The wake key of a queue: woken when a message is sent that is visible at once."""
    return f"QUEUE#{queue}"


@runtime_checkable
class Queue(Protocol):
    """At-least-once messages: SQS's standard queue."""

    def send(self, queue: str, body: Body, *, delay_s: int = 0) -> None:
        """Send a message that becomes visible after ``delay_s`` (at most 900) seconds."""
        ...

    def receive(self, queue: str, *, limit: int = 10, visibility_s: int = 30) -> list[Message]:
        """Take up to ``limit`` visible messages and hide them; those received too often go to the dead letters."""
        ...

    def ack(self, messages: Sequence[Message]) -> None:
        """Remove messages; a receipt that is stale or unknown is ignored."""
        ...

    def nack(self, message: Message, *, delay_s: int = 0) -> None:
        """Make a message visible again after ``delay_s``; a stale receipt is ignored."""
        ...

    def redrive(self, queue: str, *, limit: int = 10) -> int:
        """Move up to ``limit`` of the queue's dead letters back to it, counts reset; returns how many."""
        ...

    def hasten(self, queue: str, *, by_s: int) -> int:
        """Let each hidden message become visible ``by_s`` seconds earlier, now at the earliest; returns how many.

        For when the clock was set back. A queue that keeps its own time has nothing to do.
        """
        ...


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """A request that needs no credential until ``expires_ms``."""

    url: str
    method: str
    expires_ms: int


@runtime_checkable
class BlobStore(Protocol):
    """Immutable bytes by digest (``b1-<sha256>``, at most 8 MiB), kept apart by tenant."""

    def put(self, tenant: str, data: bytes) -> str:
        """Store bytes, durably, and return their id; storing them again is the same."""
        ...

    def get(self, tenant: str, blob: str) -> bytes:
        """The bytes. Raises NotFound; raises InternalError when they do not match their digest."""
        ...

    def size(self, tenant: str, blob: str) -> int | None:
        """Size in bytes, or None when the tenant has no such blob."""
        ...

    def presign_put(self, tenant: str, blob: str, size: int, *, ttl_s: int = 900) -> PresignedUrl:
        """A URL that takes exactly these bytes by PUT."""
        ...

    def presign_get(self, tenant: str, blob: str, *, ttl_s: int = 900) -> PresignedUrl:
        """A URL that gives the bytes by GET."""
        ...


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A piece of a job's output: when (ms since the epoch), which stream (``stdout``, ``stderr``), what."""

    at_ms: int
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class LogPage:
    """Entries and the cursor after them; the same cursor again when there was nothing new."""

    entries: list[LogEntry]
    cursor: str


@runtime_checkable
class LogStore(Protocol):
    """Logs by job, attempt and sequence number; appending the same chunk twice is the same as once."""

    def append(
        self,
        tenant: str,
        job: str,
        attempt: int,
        seq: int,
        entries: Sequence[LogEntry],
        *,
        guard: Sequence[Check] = (),
    ) -> None:
        """Store one chunk (at most 256 KiB of text); ``seq`` from 1, without gaps.

        A chunk that is new is stored only if the ``guard`` holds, in one transaction.

        Raises:
            WriteConflict: the guard did not hold.
        """
        ...

    def chunk(self, tenant: str, job: str, attempt: int, seq: int, entries: Sequence[LogEntry]) -> Put:
        """The write that stores a new chunk, for a transaction of the caller's."""
        ...

    def read(self, tenant: str, job: str, cursor: str = "", *, limit: int = 16) -> LogPage:
        """Up to ``limit`` chunks after ``cursor``, all attempts in order. Raises InvalidRequest on a bad cursor."""
        ...


@runtime_checkable
class Clock(Protocol):
    """Time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@runtime_checkable
class Ids(Protocol):
    """Identifiers and secrets."""

    def new(self, prefix: str, now_ms: int) -> str:
        """A new id ``<prefix>-<26 characters>`` that sorts by time (Crockford base32 of ms and 80 random bits)."""
        ...

    def token(self) -> str:
        """256 random bits as text, safe in URLs."""
        ...


class KeyKind(StrEnum):
    """What a signing key is for its algorithm."""

    ED25519 = "ed25519"
    P256 = "p256"


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key for one thing's data: 32 bytes to encrypt with, and the same wrapped, to be stored beside the data."""

    plaintext: bytes = field(repr=False)
    wrapped: bytes


@runtime_checkable
class KeyVault(Protocol):
    """Keys that do not leave their place: signing keys by name, envelope keys bound to what they are for.

    A name begins with a-z, then come letters, digits, ``.``, ``_``, ``-``; at most 80 characters.
    """

    def public_key(self, name: str, kind: KeyKind) -> bytes:
        """Public key as SubjectPublicKeyInfo (DER); the key is made at its first use.

        Raises:
            Conflict: the key of this name is of another kind.
        """
        ...

    def sign(self, name: str, kind: KeyKind, message: bytes) -> bytes:
        """64 bytes. Ed25519 over the message; P-256: r and s, with low s, over ``message``, a digest of 32 bytes."""
        ...

    def data_key(self, context: Mapping[str, str]) -> DataKey:
        """A new data key, wrapped under the master key with this encryption context."""
        ...

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key.

        Raises:
            PermissionDenied: it was wrapped with another context or under another master key, or altered.
        """
        ...


# Agents


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

    def complete(self, reports: Sequence[Report], *, want: Want | None = None) -> Completed:
        """Hand in outcomes, each by itself, and lease what is there of ``want``."""
        ...

    def release(self, job: str, attempt: int, reason: str) -> None:
        """Give the attempt back unfinished: it costs the tenant no retry. Raises StaleFence."""
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

    def start(self, lease: Lease, *, module: bytes | None, stdin: bytes) -> Handle:
        """Start an attempt; starting one that runs or has ended returns its handle."""
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


WAKE_ALL: Final = "*"
"""In ``CommitNews.woken``: news may have been missed (the writer was restarted), so everybody looks again."""


@dataclass(frozen=True, slots=True)
class CommitNews:
    """What the embedded store's writer said since the last look: tickets that are durable now, tickets whose
    writes were lost (nothing of them happened), and the partitions (of indexes too) whose records changed, durably."""

    durable: Sequence[int] = ()
    failed: Sequence[int] = ()
    woken: Sequence[str] = ()


@runtime_checkable
class Commits(Protocol):
    """The embedded store's promise of durability, which the host keeps on behalf of handlers.

    Writes return when they are *applied*. Whoever answers for them takes a ticket afterwards and withholds the
    answer until the ticket is durable; a failed ticket turns the answer into 503. Once a write is lost, further ones
    (and fresh reads) raise Unavailable until the ticket is taken: nothing is built on what is not there.
    """

    def take(self) -> int | None:
        """A ticket for all writes and fresh reads since the last call; None when nothing is to be awaited."""
        ...

    def fileno(self) -> int:
        """A descriptor that becomes readable when there may be news."""
        ...

    def news(self) -> CommitNews:
        """What has been said since the last call; does not wait."""
        ...

    def wait(self, ticket: int, timeout_s: float = 30.0) -> None:
        """Wait for one ticket. Raises Unavailable when its writes were lost or time is up."""
        ...
