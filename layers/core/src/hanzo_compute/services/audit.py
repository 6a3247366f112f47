"""What is wrong with a store's rows, and what would put it right: rules alone, no reads and no writes.

Each rule knows what the services write, so a store that they alone have written has no findings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic_core import from_json

from hanzo_compute.config import Policy
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.keys import Key
from hanzo_compute.model.schedule import Schedule
from hanzo_compute.model.states import State
from hanzo_compute.model.stored import Row
from hanzo_compute.ports import Delete, Entries, Operation, Put
from hanzo_compute.services import (
    audit_batches,
    audit_functions,
    functions,
    leaves,
    outbox,
    records,
    schedules,
    secrets,
)

SLACK_MS: Final = 60_000
"""A time this much later than any that the services would write now is still taken for theirs."""

WITHOUT_ENTRIES: Final = {
    *("JOB", "LOG", "LABEL", "OUTBOX", "CREDENTIAL", "PROVISIONED", "CLOCK", "AGENT"),
    *("TREE", "CHECKPOINT", "TILE", "TARIFF", "SCHEDULE", "FNLOG", "PUBLIC", "BATCH"),
    *("ATTESTATION", "DATAKEY", "POLICY"),
    *("OBSERVED", "ROUTING", "TELEMETRY"),
}
"""Kinds of records that no index holds: of a schedule or a batch, what is not the record that moves."""

Exists = Callable[[str], bool]
"""Whether there is a job of this id."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. ``remedy`` says what is done about it, or what the reader can do when it is not ``repaired``."""

    check: str
    subject: str
    found: str
    remedy: str
    operations: tuple[Operation, ...] = ()
    dead: bool = False
    """The job must end as dead."""
    repaired: bool = False


def body_of(text: str) -> dict[str, Any] | None:
    """The body that a row holds, or None when it is no JSON object."""
    try:
        found = from_json(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def job_of(text: str) -> Job | None:
    """The job that a row holds, or None when it is none."""
    return job_of_body(body_of(text) or {})


def job_of_body(body: dict[str, Any]) -> Job | None:
    """The job of a record's body, or None when it is none."""
    try:
        job = Job.from_record(body)
        job.view()  # formats its times, and would fail on what is none
        records.index(job)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
        return None
    return job


def schedule_of(text: str) -> Schedule | None:
    """The schedule that a row holds, or None when it is none."""
    try:
        schedule = Schedule.from_record(body_of(text) or {})
        schedule.summary()
        schedules.index(schedule)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
        return None
    return schedule


def expected_entries(row: Row) -> Entries | None:
    """The index entries that a row of this content has, or says that it has; None when that cannot be known."""
    kind = row.key.pk.partition("#")[0]
    if kind == "JOB" and row.key.sk == "META":
        job = job_of(row.body)
        return _stated_entries(row) if job is None else records.index(job)
    if kind == "IDEMPOTENCY":
        expires = (body_of(row.body) or {}).get("expires_ms")
        return {keys.BY_DUE: keys.due_entry(expires, row.key.pk)} if isinstance(expires, int) else None
    if kind in ("JOB", "BATCH", "ATTESTATION") and row.key.sk.startswith(keys.LEAF):
        return _leaf_entries(row)
    if kind == "FUNCTION" and row.key.sk == "META":
        function = audit_functions.function_of(body_of(row.body))
        return _stated_entries(row) if function is None else functions.index(function)
    if kind == "SCHEDULE" and row.key.sk == "META":
        schedule = schedule_of(row.body)
        return _stated_entries(row) if schedule is None else schedules.index(schedule)
    if kind == "SECRET":
        _, tenant, name = (row.key.pk + "##").split("#", 2)
        return secrets.index(tenant, name.removesuffix("##"))
    if kind == "POLICY" and row.key.sk == "META":
        _, tenant, name = (row.key.pk + "##").split("#", 2)
        return {keys.BY_TENANT: keys.policy_entry(tenant, name.removesuffix("##"))}
    if kind in ("KV", "AUDIT", "CHALLENGE"):
        expires = (body_of(row.body) or {}).get("expires_ms")
        return {keys.BY_DUE: keys.expiry_entry(expires, row.key)} if isinstance(expires, int) else {}
    if kind in WITHOUT_ENTRIES or kind == "FUNCTION":
        return {}
    return _stated_entries(row)


def _leaf_entries(row: Row) -> Entries | None:
    try:
        return leaves.index(row.key, body_of(row.body) or {})
    except (KeyError, TypeError, ValueError):
        return _stated_entries(row)


def _stated_entries(row: Row) -> Entries | None:
    found = {} if row.entries is None else body_of(row.entries)
    texts = (str, str)
    if found is None or any(
        not isinstance(entry, list) or tuple(map(type, entry)) != texts for entry in found.values()
    ):
        return None
    return {name: (entry[0], entry[1]) for name, entry in found.items()}


def corrected(job: Job, now: int, policy: Policy, *, events: int = 0, attempts: int = 0) -> tuple[list[str], Job]:
    """What keeps a job from moving, and the job without that.

    ``events`` and ``attempts`` are the highest numbers among its records.
    """
    found: list[str] = []

    def note(what: str, **changes: Any) -> None:
        nonlocal job
        found.append(what)
        job = replace(job, **changes)

    if events > job.events:
        note(f"it counts {job.events} events and has {events}", events=events)
    if attempts > job.attempt:
        note(f"it counts {job.attempt} attempts and has {attempts}", attempt=attempts)
    if job.closed and not job.state.terminal:
        note(f"it is closed and {job.state}", closed=False)
    latest = now + SLACK_MS
    if job.state.terminal and job.closed:
        if job.due_ms is not None:
            note("it is at rest and due", due_ms=None)
    elif job.state is State.PLACED:
        if job.pool is None or job.placed_ms is None:
            note("it is placed nowhere", state=State.QUEUED, pool=None, placed_ms=None, due_ms=now)
        elif job.due_ms != job.deadline_ms:
            note("it is not due at its deadline", due_ms=job.deadline_ms)
    elif job.state is State.RUNNING:
        if (job.lease_until_ms or 0) > latest + policy.lease_ms:
            note("its lease ends too late", lease_until_ms=now, due_ms=now)
        elif job.due_ms is None or job.due_ms > latest + policy.lease_ms:
            note("nothing looks at its lease", due_ms=now)
    elif job.state is State.RETRYING:
        wait_ms = bounds.BACKOFF_S_MAX * 1000
        if (job.not_before_ms or 0) > latest + wait_ms:
            note("its next attempt is too far away", not_before_ms=now, due_ms=now)
        elif job.due_ms is None or job.due_ms > latest + wait_ms + policy.resend_ms:
            note("nothing would start its next attempt", due_ms=now)
    elif job.due_ms is None or job.due_ms > latest + policy.resend_ms:
        what = "nothing would close it" if job.state.terminal else "nothing would place it"
        note(what, due_ms=now)
    return found, job


def findings(rows: Iterable[Row], exists: Exists, now: int, policy: Policy) -> Iterator[Finding]:
    """What is wrong with all records of a store, given in the order of their keys."""
    partition = _Partition("")
    for row in rows:
        if row.key.pk != partition.pk:
            yield from partition.findings(now, policy)
            partition = _Partition(row.key.pk)
        if row.key.pk.startswith(("JOB#", "FUNCTION#", keys.SCHEDULE, keys.BATCH)):
            partition.add(row)
        else:
            yield from _single(row, exists, now, partition)
    yield from partition.findings(now, policy)


@dataclass
class _Partition:
    """What is kept of a partition while its rows go by."""

    pk: str
    meta: Row | None = None
    spec: bool = False
    specs: set[str] = field(default_factory=set)
    """Of a schedule: the digests of the jobs that it has."""
    events: int = 0
    attempts: int = 0
    keys: list[Key] = field(default_factory=list)
    leaves: set[str] = field(default_factory=set)
    statements: dict[str, str | None] = field(default_factory=dict)
    """Of batches, by their last invocation: those that have a leaf, and what is wrong with the others' record."""
    known: bool | None = None
    """Of a log: whether its job exists."""

    def add(self, row: Row) -> None:
        kind, _, number = row.key.sk.partition("#")
        self.keys.append(row.key)
        if self.pk.startswith(keys.BATCH):
            if kind == "LEAF":
                self.leaves.add(number)
            else:
                self.statements[number] = audit_batches.fault(body_of(row.body))
            return
        if row.key.sk == "META":
            self.meta = row
        elif row.key.sk == "SPEC":
            self.spec = body_of(row.body) is not None
        elif kind == "EVENT" and number.isdecimal():
            self.events = max(self.events, int(number))
        elif kind == "SPEC":
            self.specs.add(number)
        elif kind == "ATTEMPT" and number.isdecimal():
            self.attempts = max(self.attempts, int(number))

    def findings(self, now: int, policy: Policy) -> Iterator[Finding]:
        if not self.keys:
            return
        kind, _, job_id = self.pk.partition("#")
        if kind == "FUNCTION":
            yield from self._function()
            return
        if kind == "BATCH":
            for batch, wrong in audit_batches.faults(self.leaves, self.statements):
                yield Finding("batch", batch, wrong, "restore a backup: hzc restore")
            return
        if self.meta is None:
            for key in self.keys:
                yield _removed("orphan", f"{key.pk} {key.sk}", f"it belongs to no {kind.lower()}", key)
            return
        if kind == "SCHEDULE":
            yield from self._of_schedule(self.meta, now)
            return
        job = job_of(self.meta.body)
        if job is None or job.id != job_id:
            yield Finding("job", job_id, "its record cannot be read", "restore a backup: hzc restore")
            return
        found, fixed = corrected(job, now, policy, events=self.events, attempts=self.attempts)
        if found:
            put = Put(self.meta.key, fixed.record(), expect=self.meta.rev, index=records.index(fixed))
            yield Finding("job", job_id, "; ".join(found), "corrected", (put,))
        if not self.spec and not job.state.terminal:
            yield Finding("job", job_id, "its spec is lost", "ended as dead", dead=True)

    def _function(self) -> Iterator[Finding]:
        body = None if self.meta is None else body_of(self.meta.body)
        versions = [key for key in self.keys if self.meta is None or key != self.meta.key]
        for found, remedy, operations in audit_functions.faults(self.meta, body, versions):
            yield Finding("function", self.pk.partition("#")[2], found, remedy, operations)

    def _of_schedule(self, meta: Row, now: int) -> Iterator[Finding]:
        schedule = schedule_of(meta.body)
        if schedule is None or meta.key != keys.schedule(schedule.tenant, schedule.name):
            yield Finding("schedule", self.pk, "its record cannot be read", "restore a backup: hzc restore")
            return
        subject = f"{schedule.tenant} {schedule.name}"
        if schedule.spec not in self.specs:
            yield Finding("schedule", subject, "its jobs are lost", f"put it again: hzc schedule set {schedule.name}")
        for digest in sorted(self.specs - {schedule.spec}):
            key = keys.schedule_spec(schedule.tenant, schedule.name, digest)
            yield _removed("schedule", subject, "it has jobs that are not its own", key)
        waits = schedule.next_ms if schedule.firing is None else schedule.due_ms or schedule.firing.at_ms
        if waits is not None and (schedule.due_ms is None or schedule.due_ms > waits):
            fixed = replace(schedule, due_ms=waits)
            put = Put(meta.key, fixed.record(), expect=meta.rev, index=schedules.index(fixed))
            yield Finding("schedule", subject, "nothing looks at it when it is due", "corrected", (put,))


def _single(row: Row, exists: Exists, now: int, partition: _Partition) -> Iterator[Finding]:
    kind, _, rest = row.key.pk.partition("#")
    if kind == "LOG":
        if partition.known is None:
            partition.known = exists(rest)
        if not partition.known:
            yield _removed("orphan", f"{row.key.pk} {row.key.sk}", "it is a log of no job", row.key)
    elif kind == "LABEL" and not exists(row.key.sk):
        yield _removed("orphan", f"{row.key.pk} {row.key.sk}", "it is a label of no job", row.key)
    elif kind == "IDEMPOTENCY":
        yield from _idempotency(row, exists, now)
    elif kind in ("KV", "SECRET"):
        body = body_of(row.body) or {}
        kept = body.get("value" if kind == "KV" else "sealed", "" if "expires_ms" in body else None)
        if not isinstance(kept, str) or not isinstance(body.get("version"), int):
            remedy = "restore a backup (hzc restore), or write it again"
            yield Finding(kind.lower(), f"{row.key.pk} {row.key.sk}", "it cannot be read", remedy)
    elif kind == "OUTBOX":
        body = body_of(row.body) or {}
        wrong = _outbox_fault(row.key, body) or message_fault(body.get("message"), exists)
        if wrong:
            yield _removed("outbox", f"{row.key.pk} {row.key.sk}", wrong, row.key)


def _idempotency(row: Row, exists: Exists, now: int) -> Iterator[Finding]:
    body = body_of(row.body) or {}
    job, expires = body.get("job"), body.get("expires_ms")
    if row.key.sk != "-":
        wrong = "it is there twice"
    elif not isinstance(job, str) or not isinstance(expires, int) or not isinstance(body.get("digest"), str):
        wrong = "it cannot be read"
    elif expires <= now:
        wrong = "it has expired"
    elif not exists(job):
        wrong = "it names no job"
    else:
        return
    yield _removed("idempotency", row.key.pk, wrong, row.key)


def _outbox_fault(key: Key, body: dict[str, Any]) -> str | None:
    shard, at = key.pk.partition("#")[2], key.sk.partition("#")[0]
    if not (shard.isdecimal() and int(shard) < keys.SHARDS and at.isdecimal()):
        return "nobody would find it"
    if body.get("queue") not in (outbox.DISPATCH, outbox.COMPLETION) or not isinstance(body.get("not_before_ms"), int):
        return "it cannot be sent"
    return None


def message_fault(message: Any, exists: Exists) -> str | None:
    """What is wrong with a message about a job, if anything is."""
    job = message.get("job") if isinstance(message, dict) else None
    if not isinstance(job, str):
        return "it cannot be read"
    return None if exists(job) else "it names no job"


def _removed(check: str, subject: str, found: str, key: Key) -> Finding:
    return Finding(check, subject, found, "removed", (Delete(key),))
