"""Defects that the simulation has to find, each planted by replacing one thing of the product or of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Final

import pytest

from hanzo_compute.adapters.memory import MemoryCommits
from hanzo_compute.errors import Unavailable
from hanzo_compute.model import invocation, keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.states import State
from hanzo_compute.model.tariff import Rates
from hanzo_compute.ports import Check, Delete, Handle, JobStore, LogEntry, Operation, Put, Send, Touched, WriteConflict
from hanzo_compute.services import (
    admission,
    complete,
    firing,
    kv,
    lease,
    log,
    outbox,
    reconcile,
    records,
    release_key,
    timekeeping,
)
from hanzo_compute.services.context import Context
from hanzo_compute.services.invocations import Batcher
from hanzo_compute.services.lease import Claim
from hanzo_compute_agent.carrier import Attempt, Carrier
from tests.simulation.host import Life
from tests.simulation.ports import SimQueue, SimStore
from tests.simulation.runner import SimJournal, SimRunner

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutant:
    """A planted defect, the profiles that show it, and what the failure says."""

    name: str
    plant: Callable[[Patch], None]
    profiles: tuple[str, ...]
    says: str


def _transact(patch: Patch, change: Callable[[SimStore, list[Operation]], list[Operation]]) -> None:
    """Let every transaction pass through ``change`` first."""
    original = SimStore.transact

    def transact(self: SimStore, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        changed = change(self, list(operations))
        if changed:
            original(self, changed, sends)

    patch.setattr(SimStore, "transact", transact)


def _is_outbox(operation: Operation) -> bool:
    return operation.key.pk.startswith("OUTBOX#")


def send_before_commit(patch: Patch) -> None:
    made = outbox.row

    def early(ctx: Context, queue: str, job: Job, *, delay_ms: int = 0) -> outbox.Row:
        row = made(ctx, queue, job, delay_ms=delay_ms)
        outbox._send(ctx, row)
        return row

    patch.setattr(outbox, "row", early)


def ack_before_durable(patch: Patch) -> None:
    patch.setattr(Life, "handle", _without_durability(Life.handle, "pump"))


def answer_before_durable(patch: Patch) -> None:
    patch.setattr(Life, "handle", _without_durability(Life.handle, "front"))


def _without_durability(original: Callable[..., Any], process: str) -> Callable[..., Any]:
    def handle(self: Life, work: Callable[[Context], Any]) -> Any:
        if not self.process.name.startswith(process):
            return original(self, work)
        durable, self.durable = self.durable, lambda ticket: None  # type: ignore[method-assign]
        try:
            return original(self, work)
        finally:
            self.durable = durable  # type: ignore[method-assign]

    return handle


def fence_ignored(patch: Patch) -> None:
    patch.setattr(Claim, "holds", lambda self, job: job.state is State.RUNNING)


def outbox_skipped(patch: Patch) -> None:
    _transact(patch, lambda _, operations: [o for o in operations if not _is_outbox(o)])


def outbox_row_kept(patch: Patch) -> None:
    _transact(patch, lambda _, operations: [o for o in operations if not (_is_outbox(o) and isinstance(o, Delete))])


def never_resent(patch: Patch) -> None:
    original = reconcile.repair

    def repair(ctx: Context, job: Job) -> Any:
        found = original(ctx, job)
        return None if found is not None and found[0].endswith("_resent") else found

    patch.setattr(reconcile, "repair", repair)


def never_swept(patch: Patch) -> None:
    patch.setattr(outbox, "sweep", lambda ctx: 0)


def lapse_is_a_failure(patch: Patch) -> None:
    original = lease.lapsed

    def lapsed(ctx: Context, job: Job, reason: str) -> records.Change:
        return original(ctx, replace(job, failures=job.failures + 1), reason)

    patch.setattr(lease, "lapsed", lapsed)
    patch.setattr(complete, "lapsed", lapsed)


def lapses_forgotten(patch: Patch) -> None:
    original = reconcile._running

    def running(ctx: Context, job: Job, now: int) -> Any:
        return None if (job.lease_until_ms or 0) <= now else original(ctx, job, now)

    patch.setattr(reconcile, "_running", running)


def key_in_another_transaction(patch: Patch) -> None:
    def change(store: SimStore, operations: list[Operation]) -> list[Operation]:
        key = [o for o in operations if o.key.pk.startswith("IDEMPOTENCY#")]
        if not key or len(operations) == 1 or store.sends:
            return operations
        store.transact([o for o in operations if o not in key])
        return key

    _transact(patch, change)


def puts_without_compare(patch: Patch) -> None:
    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        return [replace(o, expect=None) if isinstance(o, Put) else o for o in operations]

    _transact(patch, change)


def cancel_lost_at_heartbeat(patch: Patch) -> None:
    original = lease.heartbeat

    def heartbeat(ctx: Context, claim: Claim) -> Any:
        job = lease.held(ctx, claim)
        if job.cancel is not None:
            record = ctx.store.get(keys.job(job.id), fresh=True)
            assert record is not None
            body = {name: value for name, value in record.body.items() if name != "cancel"}
            ctx.store.transact([Put(keys.job(job.id), body, expect=record.rev, index=records.index(job))])
        return original(ctx, claim)

    patch.setattr(lease, "heartbeat", heartbeat)


def closed_without_compare(patch: Patch) -> None:
    def close(ctx: Context, job_ids: Iterable[str]) -> dict[str, None]:
        for job_id in job_ids:
            record = ctx.store.get(keys.job(job_id)) or ctx.store.get(keys.job(job_id), fresh=True)
            assert record is not None
            job = replace(Job.from_record(record.body), closed=True, due_ms=None)
            ctx.store.transact([Put(keys.job(job_id), job.record(), index=records.index(job))])
        return dict.fromkeys(job_ids)

    patch.setattr(complete, "close", close)


class _Deaf:
    """A store whose first conflict is not heard of."""

    def __init__(self, inner: JobStore) -> None:
        self._inner = inner
        self._first = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
        first, self._first = self._first, False
        try:
            self._inner.transact(operations, sends)
        except WriteConflict:
            if not first:
                raise


def batch_conflict_taken_for_success(patch: Patch) -> None:
    original = records.change_all

    def change_all(ctx: Context, changes: Any) -> Any:
        return original(replace(ctx, store=_Deaf(ctx.store)), changes)

    patch.setattr(records, "change_all", change_all)


def goes_on_after_a_lost_batch(patch: Patch) -> None:
    patch.setattr(MemoryCommits, "check", lambda self: None)


def journal_forgets(patch: Patch) -> None:
    patch.setattr(SimJournal, "intend", lambda self, handle, shipment: None)


def tail_sent_in_one_page(patch: Patch) -> None:
    original = SimRunner.logs

    def logs(self: SimRunner, handle: Handle, cursor: int) -> tuple[list[LogEntry], int]:
        return original(self, handle, cursor) if not cursor else ([], cursor)

    patch.setattr(SimRunner, "logs", logs)


def outcome_dropped(patch: Patch) -> None:
    def hand_in(self: Carrier, attempt: Any, collected: Any, *, more: bool = True) -> None:
        attempt.settled = True

    patch.setattr(Carrier, "_hand_in", hand_in)


def tenants_mixed_up(patch: Patch) -> None:
    original = records.find

    def find(ctx: Context, job_id: str, *, tenant: str | None = None, fresh: bool = False) -> Job:
        return original(ctx, job_id, tenant=None, fresh=fresh)

    patch.setattr(records, "find", find)


def set_back_not_noticed(patch: Patch) -> None:
    patch.setattr(timekeeping, "_bring_forward", lambda ctx, by_ms, repaired: None)


def messages_left_in_the_future(patch: Patch) -> None:
    patch.setattr(SimQueue, "hasten", lambda self, queue, *, by_s: 0)


def leases_left_in_the_future(patch: Patch) -> None:
    original = timekeeping.recall

    def recall(ctx: Context, job: Job, by_ms: int) -> Any:
        return None if job.state is State.RUNNING else original(ctx, job, by_ms)

    patch.setattr(timekeeping, "recall", recall)


def admitted_after_the_write(patch: Patch) -> None:
    """The bound is looked at when the job is stored already."""
    admit = admission.admit
    patch.setattr(admission, "admit", lambda ctx, tenant, beside=0: None)
    patch.setattr(admission, "accepted", admit)


def leaf_in_another_transaction(patch: Patch) -> None:
    def change(store: SimStore, operations: list[Operation]) -> list[Operation]:
        return [o for o in operations if not (o.key.sk.startswith(keys.LEAF) and "index" not in getattr(o, "body", {}))]

    _transact(patch, change)


def head_without_compare(patch: Patch) -> None:
    """Two sequencers can give two leaves one place, or one leaf two."""

    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        free = (keys.tree_head().pk,)
        return [
            replace(o, expect=None)
            if isinstance(o, Put) and (o.key.pk in free or (o.key.sk.startswith(keys.LEAF) and "index" in o.body))
            else o
            for o in operations
        ]

    _transact(patch, change)


def head_forgotten(patch: Patch) -> None:
    _transact(patch, lambda _, operations: [o for o in operations if o.key != keys.tree_head()] or operations)


def never_signed_again(patch: Patch) -> None:
    """A checkpoint is signed for the first leaves alone."""
    original = log._Tree.append

    def append(self: Any, batch: Any, *, sign: bool) -> bool:
        return original(self, batch, sign=sign and not self.signed_size)

    patch.setattr(log._Tree, "append", append)


def billed_twice(patch: Patch) -> None:
    original = complete._bill

    def bill(job: Job, stated: Any) -> Any:
        found = original(job, stated)
        return found | {"units": str(2 * int(found["units"]))}

    patch.setattr(complete, "_bill", bill)


def bills_half(patch: Patch) -> None:
    """Agent and platform agree on a price that is not the tariff's."""
    original = Rates.bill
    patch.setattr(Rates, "bill", lambda self, usage, most: original(self, usage, most) // 2)


def _is_function(operation: Operation) -> bool:
    return operation.key.pk.startswith("FUNCTION#") and operation.key.sk == "META"


def functions_without_compare(patch: Patch) -> None:
    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        return [replace(o, expect=None) if isinstance(o, Put) and _is_function(o) else o for o in operations]

    _transact(patch, change)


def run_in_another_transaction(patch: Patch) -> None:
    """The jobs of a run first, and then what says that they are there."""

    def change(store: SimStore, operations: list[Operation]) -> list[Operation]:
        jobs = [o for o in operations if not o.key.pk.startswith(keys.SCHEDULE)]
        if not jobs or len(jobs) == len(operations) or store.sends:
            return operations
        store.transact(jobs)
        return [o for o in operations if o.key.pk.startswith(keys.SCHEDULE)]

    _transact(patch, change)


def numbers_begin_anew(patch: Patch) -> None:
    """A removed function leaves nothing."""

    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        gone = [o for o in operations if isinstance(o, Put) and _is_function(o) and o.body["removed"]]
        return [Delete(o.key, o.expect) if o in gone else o for o in operations]  # type: ignore[union-attr]

    _transact(patch, change)


def schedule_without_compare(patch: Patch) -> None:
    """What was read a moment ago is fired again."""

    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        return [
            replace(o, expect=None) if isinstance(o, Put) and o.key.pk.startswith(keys.SCHEDULE) else o
            for o in operations
        ]

    _transact(patch, change)


def run_cut_short(patch: Patch) -> None:
    """Of a run that takes several transactions only the first is made."""
    original = firing._submit

    def submit(ctx: Context, schedule: Any, begun: Any, now: int) -> Any:
        step = original(ctx, schedule, begun, now)
        if step.schedule.firing is not None:
            step.schedule = replace(step.schedule, firing=None, due_ms=step.schedule.next_ms)
        return step

    patch.setattr(firing, "_submit", submit)


def batch_made_anew(patch: Patch) -> None:
    """A batch whose write was not answered is taken apart, and its invocations go into the next one."""
    write, add = Batcher._write, Batcher.add
    known: dict[str, Any] = {}

    def adds(self: Batcher, invocation: Any) -> None:
        known[invocation.id] = invocation
        add(self, invocation)

    def again(self: Batcher, ctx: Context, done: list[str]) -> None:
        try:
            write(self, ctx, done)
        except Unavailable:
            lost = [each for sealed in self._sealed for each in sealed.ids]
            self._sealed.clear()
            self._pending |= {each: known[each] for each in lost}
            raise

    patch.setattr(Batcher, "add", adds)
    patch.setattr(Batcher, "_write", again)
    original = Batcher.flush

    def flush(self: Batcher, ctx: Context) -> list[str]:
        kept = {**self._pending}
        try:
            return original(self, ctx)
        except Unavailable:
            self._pending |= kept
            raise

    patch.setattr(Batcher, "flush", flush)


def last_writer_wins(patch: Patch) -> None:
    """Entries are written over whatever is there by then."""
    original = kv.of_touched

    def of_touched(ctx: Context, tenant: str, function: str, touched: Sequence[Touched]) -> list[Operation]:
        now = [replace(each, rev=kv.read(ctx, tenant, function, each.key, fresh=True).rev) for each in touched]
        return original(ctx, tenant, function, now)

    patch.setattr(kv, "of_touched", of_touched)


def entries_in_another_transaction(patch: Patch) -> None:
    """Entries first, and then the outcome that they belong to."""

    def change(store: SimStore, operations: list[Operation]) -> list[Operation]:
        entries = [o for o in operations if keys.is_kv(o.key)]
        if not entries or len(entries) == len(operations) or store.sends:
            return operations
        store.transact(entries)
        return [o for o in operations if not keys.is_kv(o.key)]

    _transact(patch, change)


def total_is_not_the_sum(patch: Patch) -> None:
    """The first invocation of a batch is free."""
    original = invocation.header

    def header(batch: str, agent: str, tree: bytes, rows: Any, terms: Any) -> Any:
        free = int(rows[0][4]) if len(rows) > 1 else 0
        made = original(batch, agent, tree, rows, terms)
        return made | {"price": made["price"] | {"units": str(int(made["price"]["units"]) - free)}}

    patch.setattr(invocation, "header", header)


def release_without_fence(patch: Patch) -> None:
    """A runner that has lost the job gets the key of whoever holds it now."""

    class Lenient(Claim):
        def holds(self, job: Job) -> bool:
            return job.state is State.RUNNING

    original = release_key._release

    def release(ctx: Context, claim: Claim, *given: Any, **more: Any) -> Any:
        return original(ctx, Lenient(claim.job, claim.attempt, claim.lessee), *given, **more)

    def held(ctx: Context, claim: Claim) -> Job:
        return lease.held(ctx, Lenient(claim.job, claim.attempt, claim.lessee))

    patch.setattr(release_key, "_release", release)
    patch.setattr(release_key, "lease", SimpleNamespace(held=held))


def second_recipient_overwrites(patch: Patch) -> None:
    original = release_key._released

    def released(ctx: Context, job: Job, recipient: bytes) -> Any:
        record = ctx.store.get(keys.key_release(job.id, job.attempt), fresh=True)
        same = record is not None and record.body["recipient"] == recipient.hex()
        return original(ctx, job, recipient) if same else None

    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        free = [o for o in operations if isinstance(o, Put) and o.key.sk.startswith("RELEASE#")]
        return [replace(o, expect=None) if o in free else o for o in operations]  # type: ignore[arg-type]

    patch.setattr(release_key, "_released", released)
    _transact(patch, change)


def decision_in_another_transaction(patch: Patch) -> None:
    """What was decided is written down when the key has been released."""

    def change(store: SimStore, operations: list[Operation]) -> list[Operation]:
        said = [o for o in operations if o.key.pk.startswith(keys.ATTESTATION) and o.key.sk.startswith(keys.LEAF)]
        if not said or len(said) == len(operations) or any("index" in getattr(o, "body", {}) for o in said):
            return operations
        store.transact([o for o in operations if o not in said])
        return said

    _transact(patch, change)


def challenge_not_consumed(patch: Patch) -> None:
    """A nonce is answered as often as somebody likes."""

    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        if not any(o.key.sk.startswith("APPRAISAL#") for o in operations):
            return operations
        return [o for o in operations if not keys.is_challenge(o.key)]

    _transact(patch, change)


def shipped_unsealed_after_adoption(patch: Patch) -> None:
    """An agent that was started anew has no key, and ships what is there."""
    original = Attempt.sealed.fget  # type: ignore[attr-defined]

    def is_sealed(self: Attempt) -> bool:
        return bool(original(self)) and not (self.ending and self.key is None)

    patch.setattr(Attempt, "sealed", property(is_sealed))


def delivered_not_reset(patch: Patch) -> None:
    """What the runner of an attempt has proved is said of the next one, too."""
    original = lease._take

    def take(ctx: Context, want: Any, lessee: str, taken: set[str], job: Job) -> Any:
        step = original(ctx, want, lessee, taken, job)
        if step is None:
            return None
        return replace(step, job=replace(step.job, delivered=job.delivered, evidence=job.evidence))

    patch.setattr(lease, "_take", take)


def key_of_a_closed_job(patch: Patch) -> None:
    """A key is taken on the strength of what a read has shown, which may be old."""
    original = release_key.deposit

    class Trusting(_Deaf):
        def __init__(self, inner: JobStore) -> None:
            super().__init__(inner)
            self._shown: dict[keys.Key, Any] = {}

        def get(self, key: keys.Key, *, fresh: bool = False) -> Any:
            if key not in self._shown:
                self._shown[key] = self._inner.get(key, fresh=fresh)
            return self._shown[key] or self._inner.get(key, fresh=fresh)

        def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
            self._inner.transact([o for o in operations if not isinstance(o, Check)], sends)

    def deposit(ctx: Context, tenant: str, job_id: str, key: bytes) -> Any:
        return original(replace(ctx, store=Trusting(ctx.store)), tenant, job_id, key)

    patch.setattr(release_key, "deposit", deposit)


def log_sent_as_it_is(patch: Patch) -> None:
    """Of a sealed job the outputs alone are sealed."""
    patch.setattr(Carrier, "_whole_log", lambda self, handle: b"")
    patch.setattr(Attempt, "sealed", property(lambda self: self.key is not None and not self.ending))
    original = Carrier._hand_in

    def hand_in(self: Carrier, attempt: Any, collected: Any, *, more: bool = True) -> None:
        self._ship(attempt)
        original(self, attempt, collected, more=more)

    patch.setattr(Carrier, "_hand_in", hand_in)


MUTANTS: Final = (
    Mutant("the last writer wins", last_writer_wins, ("entries",), "an update was lost|left its entries twice"),
    Mutant("entries in another transaction", entries_in_another_transaction, ("entries",), "written with 0 outcomes"),
    Mutant("a release without its fence", release_without_fence, ("sealed",), "was released when it was|has delivered"),
    Mutant("a second recipient overwrites", second_recipient_overwrites, ("sealed",), "written twice|have opened"),
    Mutant("a decision in another transaction", decision_in_another_transaction, ("sealed",), "was written down as"),
    Mutant("a challenge not consumed", challenge_not_consumed, ("sealed",), "used up the challenges"),
    Mutant(
        "shipped unsealed after adoption", shipped_unsealed_after_adoption, ("sealed",), "is not sealed|goes out as"
    ),
    Mutant("delivered not reset", delivered_not_reset, ("sealed",), "has delivered"),
    Mutant("the key of a closed job", key_of_a_closed_job, ("sealed",), "was taken when it was"),
    Mutant("a log sent as it is", log_sent_as_it_is, ("sealed",), "goes out as it is|was refused"),
    Mutant("a batch made anew", batch_made_anew, ("invocations",), "is in two batches"),
    Mutant("a total that is not the sum", total_is_not_the_sum, ("invocations",), "and its invocations"),
    Mutant("a run in another transaction", run_in_another_transaction, ("schedules",), "submitted a job twice"),
    Mutant("a schedule without compare", schedule_without_compare, ("schedules",), "submitted a job twice"),
    Mutant("a run cut short", run_cut_short, ("schedules",), "has not submitted"),
    Mutant("functions without compare", functions_without_compare, ("functions",), ""),
    Mutant("numbers begin anew", numbers_begin_anew, ("functions",), "was removed, and its count"),
    Mutant("a leaf in another transaction", leaf_in_another_transaction, ("calm",), "leaf|leaves"),
    Mutant("head without compare", head_without_compare, ("stale", "crashy"), ""),
    Mutant("head forgotten", head_forgotten, ("calm",), ""),
    Mutant("never signed again", never_signed_again, ("calm",), "does not come to rest"),
    Mutant("billed twice", billed_twice, ("calm",), "billed"),
    Mutant("bills half", bills_half, ("calm",), "billed"),
    Mutant("send before commit", send_before_commit, ("calm",), "names a job that does not exist|was sent for a job"),
    Mutant("ack before durable", ack_before_durable, ("writer",), "does not come to rest"),
    Mutant("answer before durable", answer_before_durable, ("writer",), ""),
    Mutant("fence ignored", fence_ignored, ("frozen",), "attempt"),
    Mutant("outbox skipped", outbox_skipped, ("crashy", "deadline"), "does not come to rest"),
    Mutant("outbox row kept", outbox_row_kept, ("calm",), "outbox rows are left"),
    Mutant("never resent", never_resent, ("lossy",), "does not come to rest"),
    Mutant("outbox never swept", never_swept, ("crashy",), "does not come to rest|outbox rows are left"),
    Mutant("a lapse counts as a failure", lapse_is_a_failure, ("crashy",), "failures"),
    Mutant("lapses are not looked for", lapses_forgotten, ("crashy",), "does not come to rest"),
    Mutant("key in another transaction", key_in_another_transaction, ("calm", "crashy"), "idempotency key|answered"),
    Mutant("puts without compare", puts_without_compare, ("calm", "crashy"), ""),
    Mutant("cancel lost at heartbeat", cancel_lost_at_heartbeat, ("cancel",), "request to stop was forgotten"),
    Mutant("closed without compare", closed_without_compare, ("stale",), ""),
    Mutant("batch conflict taken for success", batch_conflict_taken_for_success, ("stale",), ""),
    Mutant("goes on after a lost batch", goes_on_after_a_lost_batch, ("writer",), ""),
    Mutant("journal forgets", journal_forgets, ("agents",), "log of attempt"),
    Mutant("only the first page of a log", tail_sent_in_one_page, ("calm",), "log of attempt"),
    Mutant("outcome dropped", outcome_dropped, ("calm",), "without a fault"),
    Mutant("a clock set back is not noticed", set_back_not_noticed, ("clock",), "does not come to rest|still due"),
    Mutant("messages left in the future", messages_left_in_the_future, ("clock",), "does not come to rest"),
    Mutant("leases left in the future", leases_left_in_the_future, ("clock",), "does not come to rest"),
    Mutant("tenants mixed up", tenants_mixed_up, ("calm",), "can read"),
    Mutant("admitted after the write", admitted_after_the_write, ("full",), "after something was written"),
)
