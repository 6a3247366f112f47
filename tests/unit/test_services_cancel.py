"""Cancelling, in every state that a job can be in."""

from __future__ import annotations

import pytest

from hanzo_compute.errors import Conflict, NotFound
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State
from hanzo_compute.services import cancel, lease, reconcile
from tests.support import statements
from tests.support.stepped import LESSEE, Platform


def test_a_queued_job_ends_at_once_and_never_runs() -> None:
    platform = Platform()
    job_id = platform.submitted()
    found = cancel.cancel(platform.ctx, "acme", job_id)
    assert (found.state, found.category, found.reason) == (State.CANCELLED, "cancelled", "cancelled before it ran")
    platform.dispatch()
    assert lease.acquire(platform.ctx, statements.want("a", 1, "local"), LESSEE) == []
    assert platform.events(job_id) == ["submitted", "cancelled"]


def test_a_placed_job_leaves_the_line() -> None:
    platform = Platform()
    job_id = platform.placed()
    assert cancel.cancel(platform.ctx, "acme", job_id).state is State.CANCELLED
    assert lease.acquire(platform.ctx, statements.want("a", 1, "local"), LESSEE) == []


def test_a_job_between_attempts_ends_without_the_exit_code_of_the_last_one() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 3})
    platform.end(claim, Category.EXIT, exit_code=7)
    found = cancel.cancel(platform.ctx, "acme", claim.job)
    assert (found.state, found.category, found.exit_code) == (State.CANCELLED, "cancelled", None)


def test_a_running_job_is_asked_once() -> None:
    platform = Platform()
    claim = platform.running()
    asked = cancel.cancel(platform.ctx, "acme", claim.job)
    again = cancel.cancel(platform.ctx, "acme", claim.job)
    assert (asked.state, asked.cancel) == (State.RUNNING, "cancelled")
    assert again.events == asked.events
    assert platform.events(claim.job)[-1] == "cancel_requested"
    assert platform.end(claim, Category.CANCELLED).state is State.CANCELLED


def test_a_running_job_whose_agent_is_gone_is_cancelled_when_its_lease_lapses() -> None:
    platform = Platform()
    claim = platform.running()
    cancel.cancel(platform.ctx, "acme", claim.job)
    platform.clock.advance(15_001)
    reconcile.reconcile(platform.ctx)
    found = platform.job(claim.job)
    assert (found.state, found.reason, found.lapses) == (State.CANCELLED, "cancelled while it ran", 0)


def test_cancelling_what_was_cancelled_is_fine_and_what_ended_otherwise_is_a_conflict() -> None:
    platform = Platform()
    job_id = platform.submitted()
    first = cancel.cancel(platform.ctx, "acme", job_id)
    assert cancel.cancel(platform.ctx, "acme", job_id) == first
    claim = Platform.claim(_leased(platform))
    platform.end(claim)
    with pytest.raises(Conflict) as refused:
        cancel.cancel(platform.ctx, "acme", claim.job)
    assert refused.value.data["state"] == "succeeded"


def _leased(platform: Platform):  # type: ignore[no-untyped-def]
    platform.placed()
    return platform.lease()


def test_another_tenants_job_is_not_found() -> None:
    platform = Platform()
    job_id = platform.submitted("globex")
    with pytest.raises(NotFound):
        cancel.cancel(platform.ctx, "acme", job_id)
    assert platform.job(job_id).state is State.QUEUED
