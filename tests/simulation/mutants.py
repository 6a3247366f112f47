"""Defects that the simulation has to find, each planted by replacing one thing of the product or of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from hanzo_compute.adapters.memory import MemoryCommits
from hanzo_compute.errors import Unavailable
from hanzo_compute.model import invocation, keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.states import State
from hanzo_compute.model.tariff import Rates
from hanzo_compute.ports import Delete, Handle, JobStore, LogEntry, Operation, Put, Send, Touched, WriteConflict
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
    timekeeping,
)
from hanzo_compute.services.context import Context
from hanzo_compute.services.invocations import Batcher
from hanzo_compute.services.lease import Claim
from hanzo_compute_agent.carrier import Carrier
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


MUTANTS: Final = (
    Mutant("the last writer wins", last_writer_wins, ("entries",), "an update was lost|left its entries twice"),
    Mutant("entries in another transaction", entries_in_another_transaction, ("entries",), "written with 0 outcomes"),
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
