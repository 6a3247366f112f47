"""Repairs the state of a platform that stands still: what the reconciler cannot decide while others write.

Each repair is one transaction that leaves the store consistent, so it can be cut short and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State
from hanzo_compute.model.stored import BlobUse, LeftAttempt, Row, StoredMessage
from hanzo_compute.ports import Entries
from hanzo_compute.services import audit, records
from hanzo_compute.services.audit import Finding
from hanzo_compute.services.context import Context

Say = Callable[[str], None]
RESTORE = "keep a copy of the state folder, then restore a backup: hzc restore FILE --force"


class StateFolder(Protocol):
    """A state folder below its ports."""

    def integrity(self) -> list[str]:
        """What the database finds wrong with its own file."""
        ...

    def is_of_index(self, problem: str) -> bool:
        """Whether a problem is that of an index, which :meth:`rebuild_indexes` makes anew."""
        ...

    def rebuild_indexes(self) -> None:
        """Make the database's own indexes anew from its tables."""
        ...

    def recovered_bytes(self) -> int:
        """Bytes that a killed writer had left in its log when this state was opened."""
        ...

    def rows(self) -> Iterator[Row]:
        """All records as they are when this is called, in the order of their keys."""
        ...

    def correct_entries(self, expected: Iterable[tuple[Row, Entries]]) -> list[Row]:
        """Give rows these index entries where they have others; returns those that had."""
        ...

    def stray_entries(self) -> list[str]:
        """Remove a batch of the index entries that no record has; names them. Empty: there are none left."""
        ...

    def messages(self) -> Iterator[StoredMessage]:
        """All messages of all queues."""
        ...

    def drop_messages(self, seqs: Sequence[int]) -> None:
        """Remove messages."""
        ...

    def blob_uses(self) -> Iterator[BlobUse]:
        """Every blob that a record names."""
        ...

    def blob_fault(self, tenant: str, blob: str, *, digest: bool) -> str | None:
        """What is wrong with a blob on disk; its bytes are read only for ``digest``."""
        ...

    def temporary_files(self) -> Iterator[Path]:
        """Files and folders that killed processes had not finished."""
        ...

    def attempts(self) -> Iterator[LeftAttempt]:
        """What agents that do not run have kept of attempts."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file or a folder."""
        ...


def repair(ctx: Context, state: StateFolder, say: Say, *, digests: bool) -> Iterator[Finding]:
    """Find and repair; yields each finding once it is repaired, or must be left."""
    if state.recovered_bytes():
        found = f"a killed writer left {state.recovered_bytes()} bytes in its log"
        yield Finding("database", "db", found, "moved into the database", repaired=True)
    say("checking the database")
    sound = yield from _file(state)
    if not sound:
        return
    yield from _entries(state, say)
    yield from _records(ctx, state, say)
    yield from _messages(ctx, state, say)
    yield from _blobs(state, say, digests)
    yield from _leftovers(ctx, state, say)


def _file(state: StateFolder) -> Generator[Finding, None, bool]:
    problems = state.integrity()
    if not problems:
        return True
    if all(state.is_of_index(problem) for problem in problems):
        state.rebuild_indexes()
        if not state.integrity():
            yield Finding("database", "db", problems[0], "its index was rebuilt", repaired=True)
            return True
    for problem in problems:
        yield Finding("database", "db", problem, RESTORE)
    return False


def _entries(state: StateFolder, say: Say) -> Iterator[Finding]:
    seen = 0
    for batch in _batches(state.rows(), 200):
        expected = [(row, audit.expected_entries(row)) for row in batch]
        wrong = state.correct_entries([(row, entries) for row, entries in expected if entries is not None])
        for row in wrong:
            subject = f"{row.key.pk} {row.key.sk}"
            yield Finding("index", subject, "its index entries were others", "written anew", repaired=True)
        seen += len(batch)
        say(f"checking the indexes: {seen} records")
    while strays := state.stray_entries():
        for subject in strays:
            yield Finding("index", subject, "it is an entry of no record", "removed", repaired=True)


def _batches(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while batch := list(islice(rows, size)):
        yield batch


def _records(ctx: Context, state: StateFolder, say: Say) -> Iterator[Finding]:
    now = ctx.clock.now_ms()
    for number, finding in enumerate(audit.findings(state.rows(), _known(ctx), now, ctx.policy)):
        say(f"repairing records: {number}")
        if finding.operations:
            ctx.store.transact(finding.operations)
        if finding.dead:
            records.change(ctx, finding.subject, lambda job: _dead(ctx, job))
        yield replace(finding, repaired=bool(finding.operations) or finding.dead)


def _dead(ctx: Context, job: Job) -> records.Change | None:
    if job.state.terminal:
        return None
    reason = "its spec was lost, so it can never run"
    return records.finish(ctx, job, State.DEAD, reason=reason, category=Category.PLATFORM)


def _known(ctx: Context) -> audit.Exists:
    return lambda job_id: ctx.store.get(keys.job(job_id)) is not None


def _messages(ctx: Context, state: StateFolder, say: Say) -> Iterator[Finding]:
    say("checking the queues")
    known = _known(ctx)
    for message in state.messages():
        wrong = audit.message_fault(audit.body_of(message.body), known)
        if wrong:
            state.drop_messages([message.seq])
            yield Finding("message", f"{message.queue} {message.seq}", wrong, "removed", repaired=True)


def _blobs(state: StateFolder, say: Say, digests: bool) -> Iterator[Finding]:
    for number, use in enumerate(each for each in state.blob_uses() if each.needed):
        say(f"checking blobs: {number}")
        wrong = state.blob_fault(use.tenant, use.blob, digest=digests)
        if wrong:
            remedy = (
                f"tenant {use.tenant} uploads it again (POST /v1/blobs), or cancels the job or removes the function"
            )
            yield Finding("blob", f"{use.tenant} {use.blob}", f"{wrong}, and {use.user} needs it", remedy)


def _leftovers(ctx: Context, state: StateFolder, say: Say) -> Iterator[Finding]:
    say("looking for files that are left over")
    for path in state.temporary_files():
        state.remove(path)
        yield Finding("file", str(path), "a killed process had not finished it", "removed", repaired=True)
    for left in state.attempts():
        record = ctx.store.get(keys.job(left.job))
        job = None if record is None else audit.job_of_body(record.body)
        holds = job is not None and job.state is State.RUNNING and job.attempt == left.attempt
        if left.journal:
            wrong = "it is the journal of an attempt that is not there"
        elif holds:
            continue  # its agent hands it in, or calls it lost
        else:
            wrong = "its attempt does not hold the job any more"
        state.remove(left.path)
        yield Finding("attempt", str(left.path), wrong, "removed", repaired=True)
