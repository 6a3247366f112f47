"""Outcomes: from category to state, retries, repeated reports, and closing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanzo_compute.errors import InvalidRequest, StaleFence, Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.outcome import Category, Outcome, Output
from hanzo_compute.model.spec import format_time
from hanzo_compute.model.states import State
from hanzo_compute.services import cancel, complete, outbox, reconcile
from tests.support import statements
from tests.support.faults import FaultyStore, scripted
from tests.support.stepped import Platform, entries

NO_RETRY = {"max_attempts": 1}


@pytest.mark.parametrize(
    ("category", "state"),
    [
        (Category.OK, State.SUCCEEDED),
        (Category.EXIT, State.FAILED),
        (Category.TRAP, State.FAILED),
        (Category.OOM, State.FAILED),
        (Category.FUEL, State.FAILED),
        (Category.INVALID_PROGRAM, State.FAILED),
        (Category.TIMEOUT, State.TIMED_OUT),
    ],
)
def test_each_category_has_its_state(category: Category, state: State) -> None:
    platform = Platform()
    claim = platform.running(retry=NO_RETRY)
    ended = platform.end(claim, category, exit_code=3, detail="why")
    assert (ended.state, ended.category, ended.exit_code, ended.attempt) == (state, category.value, 3, 1)
    assert ended.reason == (None if category is Category.OK else "why")
    assert platform.events(claim.job)[-1] == state.value
    (message,) = platform.queue.receive(outbox.COMPLETION)
    assert message.body == {"job": claim.job, "attempt": 1}


def test_a_failure_is_retried_with_growing_waits_until_the_retries_are_spent() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 3, "backoff_s": 4})
    for attempt, wait_ms in ((1, 4_000), (2, 8_000)):
        found = platform.end(claim, Category.EXIT, exit_code=1)
        assert (found.state, found.failures, found.category) == (State.RETRYING, attempt, None)
        assert (found.not_before_ms or 0) - platform.clock.now_ms() == wait_ms
        claim = platform.again(claim.job)
    found = platform.end(claim, Category.TRAP)
    assert (found.state, found.failures, found.attempt, found.category) == (State.FAILED, 3, 3, "trap")


def test_no_retry_helps_an_invalid_program() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 5})
    assert platform.end(claim, Category.INVALID_PROGRAM).state is State.FAILED


def test_a_retry_that_would_come_after_the_deadline_is_an_expiry() -> None:
    platform = Platform()
    deadline = format_time(platform.clock.now_ms() + 3000)
    claim = platform.running(retry={"max_attempts": 3, "backoff_s": 4}, deadline=deadline)
    found = platform.end(claim, Category.EXIT, exit_code=9)
    assert (found.state, found.category, found.exit_code, found.failures) == (State.EXPIRED, "deadline", None, 1)


def test_a_success_forgives_the_lapses_before_it_and_a_failure_does_too() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 2})
    assert platform.end(claim, Category.PLATFORM).lapses == 1
    claim = platform.again(claim.job)
    assert platform.end(claim, Category.EXIT).lapses == 0


@pytest.mark.parametrize("category", [Category.CANCELLED, Category.DEADLINE])
def test_an_agent_that_stops_a_job_which_nobody_asked_to_stop_has_failed(category: Category) -> None:
    platform = Platform()
    claim = platform.running()
    found = platform.end(claim, category)
    assert (found.state, found.lapses) == (State.RETRYING, 1)


def test_a_run_that_ends_by_its_deadline_has_expired() -> None:
    platform = Platform()
    claim = platform.running(deadline=format_time(platform.clock.now_ms() + 3000))
    assert platform.end(claim, Category.DEADLINE).state is State.EXPIRED


@pytest.mark.parametrize(
    ("category", "state"),
    [
        (Category.OK, State.SUCCEEDED),
        (Category.EXIT, State.FAILED),
        (Category.CANCELLED, State.CANCELLED),
        (Category.PLATFORM, State.CANCELLED),
    ],
)
def test_whatever_comes_of_a_run_that_was_asked_to_stop_is_its_end(category: Category, state: State) -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 3})
    cancel.cancel(platform.ctx, "acme", claim.job)
    assert platform.end(claim, category).state is state


def test_the_same_report_twice_is_answered_alike_and_counted_once() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 3})
    first = platform.end(claim, Category.EXIT)
    again = platform.end(claim, Category.EXIT)
    assert (again.state, again.failures, again.events) == (first.state, 1, first.events)


def test_a_report_whose_reply_was_lost_is_repeated_without_harm() -> None:
    platform = Platform()
    claim = platform.running()
    ctx = replace(platform.ctx, store=FaultyStore(platform.store, scripted("transact:reply_lost")))
    with pytest.raises(Unavailable):
        complete.complete(ctx, statements.ended(ctx, claim, Outcome(category=Category.OK)))
    assert platform.end(claim).state is State.SUCCEEDED


def test_a_losing_attempt_is_refused_and_leaves_nothing() -> None:
    platform = Platform()
    loser = platform.running()
    platform.clock.advance(15_001)
    reconcile.reconcile(platform.ctx)
    winner = platform.again(loser.job)
    with pytest.raises(StaleFence):
        complete.complete(
            platform.ctx, statements.ended(platform.ctx, loser, Outcome(category=Category.OK), 1, entries("lost"))
        )
    ended = complete.complete(
        platform.ctx, statements.ended(platform.ctx, winner, Outcome(category=Category.OK), 1, entries("kept"))
    )
    assert (ended.state, ended.attempt) == (State.SUCCEEDED, 2)
    assert [entry.text for entry in platform.ctx.logs.read("acme", loser.job).entries] == ["kept"]
    first = platform.store.get(keys.attempt(loser.job, 1))
    assert first is not None
    assert "outcome" not in first.body


def test_outputs_must_have_been_uploaded_for_this_tenant_in_this_size() -> None:
    platform = Platform()
    claim = platform.running()
    blob = platform.blobs.put("globex", b"12345")

    def outcome(size: int) -> Outcome:
        return Outcome(category=Category.OK, outputs=[Output(name="stdout", size=size, blob=blob)])

    with pytest.raises(InvalidRequest) as refused:
        complete.complete(platform.ctx, statements.ended(platform.ctx, claim, outcome(5)))
    assert refused.value.fields[0].field == "outcome.outputs.0.blob"
    platform.blobs.put("acme", b"12345")
    with pytest.raises(InvalidRequest):
        complete.complete(platform.ctx, statements.ended(platform.ctx, claim, outcome(6)))
    assert complete.complete(platform.ctx, statements.ended(platform.ctx, claim, outcome(5))).state is State.SUCCEEDED


def test_closing_happens_once_and_changes_nothing_that_a_tenant_sees() -> None:
    platform = Platform()
    claim = platform.running()
    assert platform.close(claim.job) == (platform.job(claim.job), False)
    ended = platform.end(claim)
    platform.clock.advance(5000)
    closed = platform.close(claim.job)
    assert closed is not None
    assert (closed[0].closed, closed[0].due_ms, closed[1]) == (True, None, True)
    assert closed[0].view() == ended.view()
    assert platform.close(claim.job) == (closed[0], False)
    assert platform.close("j-00000000000000000000000000") is None
