"""Placing: repeated, late and early messages, deadlines, and the choice of a pool."""

from __future__ import annotations

import pytest

from hanzo_compute.config import Policy, Pool
from hanzo_compute.errors import NoCapacity
from hanzo_compute.model import keys
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.spec import format_time
from hanzo_compute.model.states import State
from hanzo_compute.services import cancel, place
from tests.support.stepped import Platform

WASM = frozenset({"wasm"})


def test_a_waiting_job_is_placed_once_however_often_its_message_comes() -> None:
    platform = Platform()
    job_id = platform.submitted()
    first = platform.place(job_id)
    again = platform.place(job_id)
    assert first == again
    assert first is not None
    assert (first.state, first.pool) == (State.PLACED, "local")
    assert platform.events(job_id) == ["submitted", "placed"]
    assert len(platform.store.query_index(keys.BY_POOL, keys.pool_partition("local"))) == 1


def test_a_message_about_no_job_is_dropped() -> None:
    assert Platform().place("j-00000000000000000000000000") is None


def test_a_message_that_comes_after_the_end_changes_nothing() -> None:
    platform = Platform()
    job_id = platform.submitted()
    cancel.cancel(platform.ctx, "acme", job_id)
    ended = platform.place(job_id)
    assert ended is not None
    assert ended.state is State.CANCELLED


def test_past_its_deadline_a_job_expires_instead() -> None:
    platform = Platform()
    job_id = platform.submitted(deadline=format_time(platform.clock.now_ms() + 5000))
    platform.clock.advance(5000)
    found = platform.place(job_id)
    assert found is not None
    assert (found.state, found.category) == (State.EXPIRED, "deadline")


def test_a_retry_is_not_placed_before_its_time_but_a_second_early_is_in_time() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 2, "backoff_s": 10})
    waiting = platform.end(claim, Category.EXIT, exit_code=1)
    assert waiting.state is State.RETRYING
    platform.clock.advance(8_000)
    early = platform.place(claim.job)
    assert early is not None
    assert early.state is State.RETRYING
    platform.clock.advance(1_000)
    placed = platform.place(claim.job)
    assert placed is not None
    assert (placed.state, placed.not_before_ms) == (State.PLACED, None)


def test_the_least_loaded_pool_gets_the_job_and_the_first_one_on_a_tie() -> None:
    pools = (Pool("docker", frozenset({"docker"})), Pool("a", WASM), Pool("b", WASM))
    platform = Platform(Policy(pools=pools))
    assert [platform.job(platform.placed()).pool for _ in range(3)] == ["a", "b", "a"]


def test_without_a_pool_the_message_is_tried_again() -> None:
    platform = Platform()
    with pytest.raises(NoCapacity):
        place.choose(platform.ctx, "docker")
