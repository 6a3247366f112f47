"""Where things are kept: records, messages, blobs, logs, and the promise that they are durable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from hanzo_compute.model.keys import Key

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
