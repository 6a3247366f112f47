"""A clock that is set back or forward: what waits does not wait longer, and what is promised is kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from hanzo_compute.model import keys
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State
from hanzo_compute.services import appraisals, complete, lease, outbox, reconcile, submit, timekeeping
from hanzo_compute_agent.signing import Signer
from tests.support import statements
from tests.support.faults import FaultyQueue, scripted
from tests.support.stepped import Platform, spec

HOUR = 3_600_000
DAY = 24 * HOUR


@pytest.fixture(params=[HOUR, DAY], ids=["hour", "day"])
def platform(request: pytest.FixtureRequest) -> Any:
    made = Platform()
    made.jump = request.param  # type: ignore[attr-defined]
    reconcile.reconcile(made.ctx)
    return made


def back(platform: Any) -> dict[str, int]:
    platform.clock.now_ms_value -= platform.jump
    found = reconcile.reconcile(platform.ctx)
    assert found.pop("clock_set_back") == 1
    return found


def test_a_clock_that_runs_is_written_down_once_a_minute(platform: Any) -> None:
    for _ in range(3 * 60):
        platform.clock.advance(1_000)
        assert reconcile.reconcile(platform.ctx) == {}
    record = platform.store.get(keys.clock())
    assert record is not None
    assert record.rev == 4
    assert record.body == {"seen_ms": platform.clock.now_ms()}


def test_two_machines_that_differ_by_a_little_are_no_set_back(platform: Any) -> None:
    platform.clock.now_ms_value -= outbox.AHEAD_MS
    assert reconcile.reconcile(platform.ctx) == {}


def test_a_queued_job_is_placed_at_once(platform: Any) -> None:
    job_id = platform.submitted()
    assert back(platform) == {"messages_hastened": 1, "jobs_brought_forward": 1}
    assert platform.dispatch() == 1
    assert platform.job(job_id).state is State.PLACED


def test_a_queued_job_whose_message_is_lost_is_found_in_time(platform: Any) -> None:
    job_id = platform.submitted()
    platform.queue.ack(platform.queue.receive(outbox.DISPATCH))
    back(platform)
    assert platform.job(job_id).due_ms == platform.clock.now_ms() + platform.ctx.policy.resend_ms
    platform.clock.advance(platform.ctx.policy.resend_ms + 1)
    assert reconcile.reconcile(platform.ctx) == {"dispatch_resent": 1}


def test_jobs_placed_before_keep_their_place_in_the_line(platform: Any) -> None:
    before = [platform.placed()]
    platform.clock.advance(5)
    before.append(platform.placed())
    assert back(platform)["jobs_brought_forward"] == 2
    platform.clock.advance(1_000)
    after = platform.placed()
    assert [platform.lease().job for _ in range(3)] == [*before, after]


def test_a_lease_lapses_in_its_time(platform: Any) -> None:
    claim = platform.running()
    back(platform)
    assert platform.job(claim.job).lease_until_ms == platform.clock.now_ms() + platform.ctx.policy.lease_ms
    lease.heartbeat(platform.ctx, claim)
    platform.clock.advance(platform.ctx.policy.lease_ms + 1)
    assert reconcile.reconcile(platform.ctx) == {"lapsed": 1}


def test_a_retry_waits_no_longer_than_it_should(platform: Any) -> None:
    claim = platform.running(retry={"max_attempts": 2, "backoff_s": 10})
    complete.complete(platform.ctx, statements.ended(platform.ctx, claim, complete.Outcome(category=Category.EXIT)))
    platform.clock.advance(4_000)
    back(platform)
    job = platform.job(claim.job)
    assert job.not_before_ms is not None
    # The time was noted 4 s before it was set back.
    assert 6_000 <= job.not_before_ms - platform.clock.now_ms() <= 10_000
    platform.clock.advance(9_000)
    assert platform.dispatch() == 0
    platform.clock.advance(1_000)
    assert platform.dispatch() == 1
    assert platform.job(claim.job).state is State.PLACED


def test_a_completion_is_sent_again_in_time(platform: Any) -> None:
    claim = platform.running()
    platform.end(claim)
    platform.queue.ack(platform.queue.receive(outbox.COMPLETION))
    back(platform)
    platform.clock.advance(platform.ctx.policy.resend_ms + 1)
    assert reconcile.reconcile(platform.ctx) == {"completion_resent": 1}


def test_an_outbox_row_of_the_future_is_sent_with_what_is_left_of_its_delay(platform: Any) -> None:
    claim = platform.running(retry={"max_attempts": 2, "backoff_s": 10})
    ctx = replace(platform.ctx, queue=FaultyQueue(platform.queue, scripted("send:before")))
    complete.complete(ctx, statements.ended(ctx, claim, complete.Outcome(category=Category.EXIT)))
    assert back(platform)["outbox_sent"] == 1
    assert platform.store.query(keys.outbox(keys.shard(claim.job), "").pk) == []
    platform.clock.advance(9_000)
    assert platform.dispatch() == 0
    platform.clock.advance(1_000)
    assert platform.dispatch() == 1
    assert platform.job(claim.job).state is State.PLACED


def test_a_pass_that_was_cut_short_is_done_again_and_changes_nothing_twice(platform: Any) -> None:
    claim = platform.running()
    placed = platform.placed()
    platform.clock.now_ms_value -= platform.jump
    for job_id in (claim.job, placed):
        change = timekeeping.recall(platform.ctx, platform.job(job_id), platform.jump)
        assert change is not None
        assert timekeeping.recall(platform.ctx, change.job, platform.jump) is None


def test_what_was_written_with_the_old_time_after_the_pass_is_found_by_the_next(platform: Any) -> None:
    claim = platform.running()
    back(platform)
    platform.clock.now_ms_value += platform.jump  # a process that had asked for the time before, and was held up
    lease.heartbeat(platform.ctx, claim)
    platform.clock.now_ms_value -= platform.jump
    found: Counter[str] = Counter()
    for _ in range(61):
        platform.clock.advance(1_000)
        found.update(reconcile.reconcile(platform.ctx))
    assert found == {"jobs_brought_forward": 1}
    platform.clock.advance(platform.ctx.policy.lease_ms + 1)
    assert reconcile.reconcile(platform.ctx) == {"lapsed": 1}


def test_a_key_outlives_a_clock_that_is_set_forward_once(platform: Any) -> None:
    first = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k").job
    platform.end(_leased(platform))
    platform.close(first.id)
    platform.clock.now_ms_value += 2 * DAY
    found = reconcile.reconcile(platform.ctx)
    assert found["idempotency_kept"] == 1
    assert submit.submit(platform.ctx, "acme", spec(), idempotency_key="k").job.id == first.id
    platform.clock.now_ms_value += 2 * DAY
    assert reconcile.reconcile(platform.ctx)["idempotency_forgotten"] == 1
    assert platform.store.get(keys.idempotency("acme", "k")) is None


def test_a_key_is_not_kept_for_ever_after_a_clock_that_was_ahead(platform: Any) -> None:
    submit.submit(platform.ctx, "acme", spec(), idempotency_key="k")
    platform.clock.now_ms_value -= 365 * DAY
    reconcile.reconcile(platform.ctx)
    record = platform.store.get(keys.idempotency("acme", "k"))
    assert record is not None
    assert record.body["expires_ms"] == platform.clock.now_ms() + platform.ctx.policy.idempotency_ms


def test_a_nonce_is_never_kept_whatever_the_clock_does(platform: Any) -> None:
    """It is good for two minutes: nobody is promised that it can be answered later."""
    platform.submitted()
    platform.dispatch()
    held = platform.lease()
    signing = Signer(statements.VAULT, "agent-0").public_key
    made = appraisals.challenge(platform.ctx, platform.claim(held), appraisals.Keys(signing, bytes(32)))
    platform.clock.now_ms_value += platform.jump
    found = reconcile.reconcile(platform.ctx)
    assert (found["expired_forgotten"], found.get("expired_kept")) == (1, None)
    assert platform.store.get(keys.challenge(made["id"])) is None


def _leased(platform: Any) -> lease.Claim:
    platform.dispatch()
    claim: lease.Claim = platform.claim(platform.lease())
    return claim
