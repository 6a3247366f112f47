"""The reconciler: each loss that it repairs, and that it says so."""

from __future__ import annotations

from dataclasses import replace

from hanzo_compute.model import keys
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.spec import format_time
from hanzo_compute.model.states import State
from hanzo_compute.services import cancel, complete, lease, outbox, reconcile, submit
from hanzo_compute.services.lease import Claim
from tests.support import statements
from tests.support.faults import FaultyQueue, scripted
from tests.support.stepped import LESSEE, Platform, spec


def test_nothing_to_do_is_said_by_saying_nothing() -> None:
    platform = Platform()
    platform.submitted()
    assert reconcile.reconcile(platform.ctx) == {}


def test_an_outbox_row_is_sent_once_it_is_old() -> None:
    platform = Platform()
    queue = FaultyQueue(platform.queue, scripted("send:before"))
    job_id = submit.submit(replace(platform.ctx, queue=queue), "acme", spec()).job.id
    assert reconcile.reconcile(platform.ctx) == {}
    platform.clock.advance(2_000)
    assert reconcile.reconcile(platform.ctx) == {"outbox_sent": 1}
    assert reconcile.reconcile(platform.ctx) == {}
    assert platform.dispatch() == 1
    assert platform.job(job_id).state is State.PLACED


def test_a_row_that_waits_keeps_what_is_left_of_its_delay() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 2, "backoff_s": 10})
    ctx = replace(platform.ctx, queue=FaultyQueue(platform.queue, scripted("send:before")))
    complete.complete(ctx, statements.ended(ctx, claim, complete.Outcome(category=Category.EXIT)))
    platform.clock.advance(4_000)
    assert reconcile.reconcile(platform.ctx) == {"outbox_sent": 1}
    platform.clock.advance(5_999)
    assert platform.dispatch() == 0
    platform.clock.advance(1)
    assert platform.dispatch() == 1


def test_a_message_that_vanished_is_sent_again() -> None:
    platform = Platform()
    job_id = platform.submitted()
    platform.queue.ack(platform.queue.receive(outbox.DISPATCH))
    platform.clock.advance(30_001)
    assert reconcile.reconcile(platform.ctx) == {"dispatch_resent": 1}
    assert reconcile.reconcile(platform.ctx) == {}
    assert platform.dispatch() == 1
    assert platform.job(job_id).state is State.PLACED


def test_a_completion_that_vanished_is_sent_again_until_it_is_closed() -> None:
    platform = Platform()
    claim = platform.running()
    ended = platform.end(claim)
    for _ in range(2):
        platform.queue.ack(platform.queue.receive(outbox.COMPLETION))
        platform.clock.advance(30_001)
        assert reconcile.reconcile(platform.ctx) == {"completion_resent": 1}
    assert platform.job(claim.job).view() == ended.view()
    platform.close(claim.job)
    platform.clock.advance(60_000)
    assert reconcile.reconcile(platform.ctx) == {}


def test_a_waiting_job_expires_at_its_deadline_in_every_state() -> None:
    platform = Platform()
    fields = {"deadline": format_time(platform.clock.now_ms() + 20_000), "retry": {"max_attempts": 2, "backoff_s": 15}}
    retrying = platform.running(**fields).job
    platform.end(Claim(retrying, 1, LESSEE), Category.EXIT)
    placed = platform.placed(**fields)
    queued = platform.submitted(**fields)
    found = [platform.job(job_id) for job_id in (queued, placed, retrying)]
    assert [job.state for job in found] == [State.QUEUED, State.PLACED, State.RETRYING]
    platform.clock.advance(20_001)
    assert reconcile.reconcile(platform.ctx) == {"expired": 3}
    found = [platform.job(job_id) for job_id in (queued, placed, retrying)]
    assert {(job.state, job.category) for job in found} == {(State.EXPIRED, "deadline")}


def test_an_agent_that_runs_on_after_the_deadline_is_asked_to_stop_and_then_given_up() -> None:
    platform = Platform()
    claim = platform.running(deadline=format_time(platform.clock.now_ms() + 9_000))
    platform.clock.advance(8_000)
    lease.heartbeat(platform.ctx, claim)
    platform.clock.advance(3_001)
    assert reconcile.reconcile(platform.ctx) == {"deadline_enforced": 1}
    assert lease.heartbeat(platform.ctx, claim).cancel == "deadline"
    assert reconcile.reconcile(platform.ctx) == {}
    platform.clock.advance(15_001)
    assert reconcile.reconcile(platform.ctx) == {"lapsed": 1}
    found = platform.job(claim.job)
    assert (found.state, found.reason) == (State.EXPIRED, "the deadline passed while it ran")


def test_a_lease_lapses_but_not_one_that_is_renewed() -> None:
    platform = Platform()
    gone, kept = platform.running(), platform.running()
    platform.clock.advance(14_000)
    lease.heartbeat(platform.ctx, kept)
    platform.clock.advance(1_001)
    assert reconcile.reconcile(platform.ctx) == {"lapsed": 1}
    assert platform.job(gone.job).state is State.RETRYING
    assert platform.job(kept.job).state is State.RUNNING


def test_a_job_whose_message_died_is_dead_and_completion_follows() -> None:
    platform = Platform()
    job_id = platform.submitted()
    _bury(platform)
    assert reconcile.reconcile(platform.ctx) == {"dead": 1}
    found = platform.job(job_id)
    assert (found.state, found.category) == (State.DEAD, "platform")
    assert platform.queue.receive(outbox.COMPLETION)[0].body["job"] == job_id


def test_a_dead_letter_of_an_earlier_attempt_does_not_kill_the_next_one() -> None:
    platform = Platform()
    job_id = platform.submitted()
    platform.place(job_id)  # it is placed, but its message cannot be acknowledged
    platform.end(platform.claim(platform.lease()), Category.PLATFORM)
    assert platform.job(job_id).state is State.RETRYING
    (first,) = [message for message in platform.queue.receive(outbox.DISPATCH) if message.body["attempt"] == 0]
    platform.queue.nack(first)
    _bury(platform, attempt=0)
    assert reconcile.reconcile(platform.ctx) == {}
    assert platform.job(job_id).state is State.RETRYING


def test_dead_letters_about_no_job_or_an_ended_one_are_dropped() -> None:
    platform = Platform()
    platform.queue.send(outbox.DISPATCH, {"job": "j-00000000000000000000000000", "attempt": 0})
    job_id = platform.submitted()
    cancel.cancel(platform.ctx, "acme", job_id)
    _bury(platform)
    assert reconcile.reconcile(platform.ctx) == {}
    platform.clock.advance(120_000)
    assert platform.queue.receive(f"{outbox.DISPATCH}-dlq") == []


def test_completions_that_died_are_tried_again() -> None:
    platform = Platform()
    platform.end(platform.running())
    for _ in range(3):
        platform.queue.receive(outbox.COMPLETION, visibility_s=0)
    assert reconcile.reconcile(platform.ctx) == {"completion_redriven": 1}
    assert len(platform.queue.receive(outbox.COMPLETION)) == 1


def test_idempotency_keys_are_forgotten_when_their_time_is_over() -> None:
    platform = Platform()
    first = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k").job
    cancel.cancel(platform.ctx, "acme", first.id)
    platform.close(first.id)
    platform.clock.advance(24 * 3600 * 1000 + 1)
    assert reconcile.reconcile(platform.ctx) == {"idempotency_forgotten": 1}
    assert platform.store.get(keys.idempotency("acme", "k")) is None
    assert not submit.submit(platform.ctx, "acme", spec(), idempotency_key="k").replayed


def _bury(platform: Platform, attempt: int | None = None) -> None:
    """Receive dispatch messages until they are dead letters."""
    for _ in range(3):
        for message in platform.queue.receive(outbox.DISPATCH):
            if attempt in (None, message.body["attempt"]):
                platform.queue.nack(message)
