"""What must hold: at every write while a schedule runs (:class:`Watch`), and of all that is left when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryDatabase
from hanzo_compute.adapters.memory.database import StoredRecord
from hanzo_compute.config import Policy
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.keys import Key
from hanzo_compute.model.outcome import RETRIED
from hanzo_compute.model.states import MOVES, State
from hanzo_compute.ports import RECORD_MAX, Body, Operation, Put
from hanzo_compute.services import audit, outbox
from tests.simulation import treelog
from tests.simulation.entries import EntryWatch
from tests.simulation.functions import FunctionWatch
from tests.simulation.invokers import InvocationWatch
from tests.simulation.learning import LearningWatch
from tests.simulation.scheduler import Scheduler
from tests.simulation.sealing import SealedWatch
from tests.simulation.violation import require

EVENTS = {"placed": {"placed"}, "running": {"running"}, "retrying": {"retrying", "lapsed", "released"}}
"""The events that may tell of a move to a state; a terminal state's event has its name."""
LATE_MS = 30_000
"""A lease after the deadline by more than this was not decided before it: grace, and the longest simulated pauses."""
AFTERWARDS = {"closed", "due_ms"}
"""What may still change in the record of a job that has ended."""


@dataclass
class Accepted:
    """What a client was told."""

    tenant: str
    request: str
    keyed: bool
    cancelled: bool = False
    """A cancel was answered with success."""
    ended: dict[str, Any] | None = None
    """The first view that showed a terminal state."""
    followed: list[str] | None = None
    """The log as somebody followed it to its end."""


@dataclass
class Scheduled:
    """A schedule of each minute, and between which times its tenant knows that it was there, and that all was done."""

    requests: list[str]
    from_ms: int
    to_ms: int = 0


@dataclass
class Watch:
    """Checks every applied transaction and message, and remembers what clients were told."""

    scheduler: Scheduler
    policy: Policy = field(default_factory=Policy)
    steady: bool = True
    """Nobody sets the clock."""
    database: MemoryDatabase = field(default_factory=MemoryDatabase)
    accepted: dict[str, Accepted] = field(default_factory=dict)
    cancels: set[str] = field(default_factory=set)
    """Jobs that somebody asked to cancel, whatever the answer was."""
    functions: FunctionWatch = field(default_factory=FunctionWatch)
    invocations: InvocationWatch = field(default_factory=InvocationWatch)
    learning: LearningWatch = field(default_factory=LearningWatch)
    sealed: SealedWatch = field(default_factory=SealedWatch)
    entries: EntryWatch = field(default_factory=EntryWatch)
    schedules: dict[tuple[str, str], Scheduled] = field(default_factory=dict)
    """By tenant and name."""
    batches_lost: int = 0
    refused: int = 0
    """Submissions that were refused because too many jobs waited."""

    def lost(self) -> None:
        """A batch was taken back."""
        self.batches_lost += 1

    def job(self, job_id: str) -> Body | None:
        """The record of a job as the writer has it."""
        return _body(self.database.record(keys.job(job_id)))

    # Writes

    def applied(self, operations: Sequence[Operation], before: Mapping[Key, StoredRecord | None]) -> None:
        """A transaction has just been applied."""
        puts = {operation.key: operation for operation in operations if isinstance(operation, Put)}
        self.invocations.applied(puts, before, self.database)
        self.entries.applied(puts, before)
        by_key = {operation.key: operation for operation in operations}
        self.functions.applied(by_key, before, self.database)
        self.learning.applied(by_key, before)
        self.sealed.applied(by_key, before, self.database, self.scheduler.now_ms)
        for key, put in puts.items():
            kind, _, subject = key.pk.partition("#")
            stored = self.database.record(key)
            require(stored is None or len(stored.body) < RECORD_MAX, f"{key} is too large")
            if kind == "JOB" and key.sk == "META":
                self._moved(subject, _body(before[key]), put.body, puts, before)
            elif kind == "JOB" and key.sk.startswith("ATTEMPT#"):
                self._attempt(subject, put.body, _body(before[key]), puts, before)
            elif kind == "JOB" and key.sk.startswith(keys.LEAF):
                self._leaf(key, put.body, _body(before[key]), puts)
            elif kind == "CHECKPOINT":
                treelog.extends(self.database, put.body, _body(before[key]))
            elif kind == "JOB":
                require(before[key] is None, f"{key} was written twice")
            elif kind == "LOG":
                self._log(key, subject, put.body, before)

    def _moved(
        self,
        job_id: str,
        old: Body | None,
        new: Body,
        puts: Mapping[Key, Put],
        before: Mapping[Key, StoredRecord | None],
    ) -> None:
        events = [put.body for key, put in puts.items() if key.pk == keys.job_partition(job_id) and "EVENT#" in key.sk]
        require(new["events"] == (old or {}).get("events", 0) + len(events), f"{job_id}: events are not counted")
        require(all(event["seq"] == new["events"] for event in events), f"{job_id}: an event has a wrong number")
        if old is None:
            require(new["state"] == "queued", f"{job_id} begins as {new['state']}")
            return
        wrong, _ = audit.corrected(Job.from_record(new), self.scheduler.now_ms, self.policy)
        # A clock that was set back makes every time late until the reconciler has noticed.
        require(not wrong or not self.steady, f"{job_id} was left so that a repair would be needed: {wrong}")
        was, now = State(old["state"]), State(new["state"])
        require(old["tenant"] == new["tenant"], f"{job_id} changed its tenant")
        if was.terminal:
            changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
            require(changed <= AFTERWARDS, f"{job_id} had ended, and {changed} changed")
        if was is not now:
            require(now in MOVES[was], f"{job_id} moved from {was} to {now}")
            kinds = EVENTS.get(now.value, {now.value})
            require([e["type"] in kinds for e in events] == [True], f"{job_id}: no event tells of {was} → {now}")
            if was is State.RUNNING:
                self.learning.ended(job_id, old, puts, events[0]["type"])
        leaves = [key for key in puts if key.pk == keys.job_partition(job_id) and key.sk.startswith(keys.LEAF)]
        require(
            not (now.terminal and not was.terminal) or len(leaves) == 1, f"{job_id} ended with {len(leaves)} leaves"
        )
        self._attempts(job_id, old, new)
        attempts = [
            put.body for key, put in puts.items() if key.pk == keys.job_partition(job_id) and "ATTEMPT#" in key.sk
        ]
        outcomes = [body for body in attempts if "outcome" in body]
        failed = sum(body["outcome"]["category"] in RETRIED for body in outcomes)
        require(
            new.get("failures", 0) - old.get("failures", 0) == failed,
            f"{job_id}: failures are not the program's",
        )

    def _attempts(self, job_id: str, old: Body, new: Body) -> None:
        leased = new.get("attempt", 0) - old.get("attempt", 0)
        expected = int(old["state"] == "placed" and new["state"] == "running")
        require(leased == expected, f"{job_id}: attempt went from {old.get('attempt')} to {new.get('attempt')}")
        if leased and old.get("deadline_ms") is not None:
            late = self.scheduler.now_ms - old["deadline_ms"]
            require(late < LATE_MS, f"{job_id} was leased {late} ms after its deadline")
        if old.get("cancel") is not None:
            gone = new["state"] == "running" and new.get("cancel") != old["cancel"]
            require(not gone, f"{job_id}: the request to stop was forgotten")
            require(new["state"] != "retrying", f"{job_id} is retried although it was asked to stop")

    def _attempt(
        self,
        job_id: str,
        new: Body,
        old: Body | None,
        puts: Mapping[Key, Put],
        before: Mapping[Key, StoredRecord | None],
    ) -> None:
        number, meta = new["attempt"], keys.job(job_id)
        require(meta in puts, f"attempt {number} of {job_id} was written without its job")
        job = _body(before[meta])
        assert job is not None
        if "outcome" not in new:
            require(old is None, f"attempt {number} of {job_id} began twice")
            return
        require(old is not None and "outcome" not in old, f"attempt {number} of {job_id} has two outcomes")
        holds = job["state"] == "running" and job.get("attempt") == number
        require(holds, f"an outcome of attempt {number} was accepted while {job_id} was {job['state']}")
        require(puts[meta].body["state"] != "running", f"{job_id} still runs after an outcome")
        require(keys.leaf(job_id, number) in puts, f"the outcome of attempt {number} of {job_id} has no leaf")

    def _leaf(self, key: Key, new: Body, old: Body | None, puts: Mapping[Key, Put]) -> None:
        """Written with its job, and then once more to give it its place."""
        if old is None:
            require("index" not in new and Key(key.pk, "META") in puts, f"{key} was written without its job")
        else:
            require("index" not in old, f"{key} has got two places")
            kept = {name: value for name, value in old.items() if name != "at_ms"}
            require({**kept, "index": new["index"]} == new, f"{key} was changed")

    def _log(self, key: Key, job_id: str, new: Body, before: Mapping[Key, StoredRecord | None]) -> None:
        old, meta = _body(before[key]), keys.job(job_id)
        require(old is None or old == new, f"{key} was written twice")
        # The last chunk comes with the outcome.
        job = _body(before[meta]) if meta in before else self.job(job_id)
        number = int(key.sk.partition("#")[0])
        assert job is not None
        holds = job["state"] == "running" and job.get("attempt") == number
        state = f"it was {job['state']}, attempt {job.get('attempt')}"
        require(holds, f"a log chunk of attempt {number} of {job_id} came after its end: {state}")

    def sent(self, queue: str, body: Body) -> None:
        """A message is about to be sent: what it tells of must have happened."""
        if self.batches_lost:
            return  # what was stored may have been taken back just now: such a message changes nothing
        job = self.job(str(body["job"]))
        require(job is not None, f"a message to {queue} names a job that does not exist: {body}")
        assert job is not None
        if queue == outbox.COMPLETION:
            early = "attempt" in body and not State(job["state"]).terminal  # without, it is about the log
            require(not early, f"a completion was sent for a job that is {job['state']}")

    # What clients see

    def told(self, job_id: str, tenant: str, request: str, *, keyed: bool) -> None:
        """A submission was answered with this job."""
        found = self.accepted.setdefault(job_id, Accepted(tenant, request, keyed))
        require((found.tenant, found.request) == (tenant, request), f"{job_id} answers two requests")
        same = [other for other, job in self.accepted.items() if job.request == request and other != job_id]
        require(not (keyed and same), f"request {request} was answered with {job_id} and with {same}")

    def saw(self, job_id: str, view: dict[str, Any]) -> None:
        """A client read a job."""
        found = self.accepted[job_id]
        if found.ended is None:
            found.ended = view if State(view["state"]).terminal else None
        elif State(view["state"]).terminal:
            require(view == found.ended, f"{job_id} ended as {found.ended}, later as {view}")


def _body(stored: StoredRecord | None) -> Body | None:
    return None if stored is None else decode_body(stored.body)
