"""Learning: each end of an attempt is one observation, and each observation counts once."""

from __future__ import annotations

import logging
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from hanzo_compute.config import LEAST_LOADED, Policy
from hanzo_compute.errors import Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.ports import Put, Record
from hanzo_compute.routing import learning, snapshot
from hanzo_compute.services import explain, learn, observe, reconcile, refit
from tests.support.faults import FaultyStore, scripted, seeded
from tests.support.stepped import Platform


def observed(platform: Platform) -> list[Record]:
    return [record for shard in range(keys.SHARDS) for record in platform.store.query(keys.observed_partition(shard))]


def row(**changes: Any) -> dict[str, Any]:
    body = {"at_ms": 1_700_000_000_000, "pool": "local", "runtime": "wasm", "category": "ok"}
    return body | {"wait_ms": 20, "run_ms": 100, "ahead": 0, "tier": 0} | changes


def put(platform: Platform, *rows: dict[str, Any]) -> None:
    for number, body in enumerate(rows):
        platform.store.transact([Put(keys.observed(body["at_ms"], f"j-{number}", 1), body)])


def test_an_outcome_is_one_observation_however_often_it_is_handed_in() -> None:
    platform = Platform()
    claim = platform.running()
    platform.clock.advance(250)
    for _ in range(3):
        platform.end(claim)
    (found,) = observed(platform)
    assert found.body == row(at_ms=platform.clock.now_ms(), wait_ms=0, run_ms=250)
    assert "acme" not in f"{found.body}"


def test_every_attempt_is_one_and_a_lease_that_lapses_is_one_too() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 2, "backoff_s": 1})
    platform.end(claim, Category.EXIT, exit_code=1)
    platform.again(claim.job)
    platform.clock.advance(platform.ctx.policy.lease_ms + 1)
    assert reconcile.reconcile(platform.ctx)["lapsed"] == 1
    reconcile.reconcile(platform.ctx)
    assert [record.body["category"] for record in observed(platform)] == ["exit", "lapsed"]
    with_gone = learn.learn(platform.ctx)
    assert with_gone["folded"] == 2
    assert observed(platform) == []
    (pool,) = explain.regimes(platform.ctx)["pools"]
    assert (pool["seen"], pool["lost"]) == (2, 1)


def test_nothing_is_written_down_where_nobody_learns() -> None:
    platform = Platform(Policy(routing=LEAST_LOADED))
    platform.end(platform.running())
    assert observed(platform) == []


def test_batches_are_bounded_and_a_pass_takes_all_that_waits() -> None:
    platform = Platform()
    for number in range(250):
        platform.store.transact([Put(keys.observed(number, f"j-{number}", 1), row(at_ms=number))])
    assert learn.learn(platform.ctx) == {"folded": 250}
    rev, found = learn.stored(platform.ctx)
    assert (rev, found.folded, found.pool("local").seen) == (3, 250, 250)
    assert observed(platform) == []
    assert learn.learn(platform.ctx) == {}


@pytest.mark.parametrize("fault", ["transact:reply_lost", "transact:before", "query:reply_lost", "get:before"])
def test_a_fold_that_was_cut_short_counts_once(fault: str) -> None:
    platform = Platform()
    put(platform, *(row(at_ms=1000 + number) for number in range(7)))
    cut = replace(platform.ctx, store=FaultyStore(platform.store, scripted(fault)))
    with pytest.raises(Unavailable):
        learn.learn(cut)
    learn.learn(cut)
    assert learn.stored(platform.ctx)[1].folded == 7
    assert learn.stored(platform.ctx)[1].pool("local").seen == 7


def test_two_learners_at_a_time_count_no_row_twice_and_lose_none() -> None:
    platform = Platform()
    put(platform, *(row(at_ms=1000 + number) for number in range(9)))

    class Overtaken(FaultyStore):
        """Another learner is done between this one's reads and its write."""

        def transact(self, operations: Any, sends: Any = ()) -> None:
            if not self.over:
                self.over = True
                learn.learn(platform.ctx)
                put(platform, row(at_ms=5000, pool="later"))
            super().transact(operations, sends)

        over = False

    slow = replace(platform.ctx, store=Overtaken(platform.store, scripted()))
    assert learn.learn(slow) == {"conflicts": 1}
    assert learn.learn(slow) == {"folded": 1}
    found = learn.stored(platform.ctx)[1]
    assert (found.folded, found.pool("local").seen, found.pool("later").seen) == (10, 9, 1)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_fails_every_row_counts_once(seed: int) -> None:
    platform, random = Platform(), Random(seed)
    rows = [row(at_ms=1000 + number, pool=random.choice("abc")) for number in range(30)]
    put(platform, *rows)
    shaky = replace(platform.ctx, store=FaultyStore(platform.store, seeded(random, 0.3)))
    for _ in range(200):
        try:
            if not observed(platform):
                break
            learn.learn(shaky)
        except Unavailable:
            continue
    found = learn.stored(platform.ctx)[1]
    assert found.folded == 30
    assert {name: found.pool(name).seen for name in "abc"} == {
        name: sum(body["pool"] == name for body in rows) for name in "abc"
    }


def test_a_row_that_cannot_be_read_is_dropped_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    platform = Platform()
    put(platform, row(), row(wait_ms=-1), row(pool=None), row(wait_ms=10**30), {"at_ms": 3})
    with caplog.at_level(logging.WARNING):
        assert learn.learn(platform.ctx)["warnings"] == 1
    assert "4 observations cannot be read" in caplog.text
    found = learn.stored(platform.ctx)[1]
    assert (found.folded, found.pool("local").seen) == (5, 1)


def test_telemetry_is_kept_once_for_each_interval_and_in_a_ring() -> None:
    platform = Platform(Policy(telemetry_ms=1000))
    for number in range(5):
        at = platform.clock.now_ms()
        put(platform, row(at_ms=at, wait_ms=number))
        learn.learn(platform.ctx)
        platform.clock.advance(1000)
    found = platform.store.query(keys.telemetry(0).pk)
    assert len(found) == 4
    slots = sorted(record.body["slot"] for record in found)
    assert slots == list(range(slots[0], slots[0] + 4))
    assert {record.body["seen"][0] for record in found} == {0.0}
    last = max(found, key=lambda record: record.body["slot"])
    assert last.body["seen"][1] == pytest.approx(1.3862943611198906)  # log(1 + 3)
    assert keys.telemetry(keys.TELEMETRY_SLOTS + 3) == keys.telemetry(3)


def test_a_snapshot_survives_its_record_bit_for_bit() -> None:
    platform = Platform()
    put(platform, *(row(at_ms=1000 + number, wait_ms=number * 7, pool="ab"[number % 2]) for number in range(20)))
    learn.learn(platform.ctx)
    _, found = learn.stored(platform.ctx)
    assert snapshot.parse(found.body()) == found


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"folded": "many"},
        {"pools": {"a": {"seen": 1, "speed": 3}}},
        {"pools": {"a": {"wait_ms": float("nan")}}},
        {"pools": {"a": {"seen": "1"}}},
        {"window": None},
        {"window": {"slot": 1, "seen": 1, "log_wait": None, "waiting": 0}},
        {"window": {"slot": 1, "seen": "1", "log_wait": 1.0, "waiting": 0}},
        {"window": {"slot": 1, "seen": 1, "log_wait": 1.0, "waiting": -1}},
        {"window": {"slot": "1", "seen": 1, "log_wait": 1.0, "waiting": 1}},
        {"pools": {"a": {"pace_ms": 1e300}}},
        {"pools": {"a": {"attested_ms": []}}},
        {"at_ms": 10**18},
        {"fit": {"mean": [None], "scale": [1.0]}},
        {"fit": {"mean": [1.0], "scale": [10**400]}},
        {"fit": {"tried_ms": "x"}},
        {"fit": {"held_out": float("nan")}},
        {"fit": {"mean": [1.0], "scale": [0.0]}},
        {"fit": {"mean": [1.0], "scale": []}},
        {"engine": 3},
    ],
)
def test_what_is_no_snapshot_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(snapshot.Unreadable):
        snapshot.parse(snapshot.Snapshot().body() | change)


def test_the_same_rows_give_the_same_snapshot_in_whatever_order_they_are_read() -> None:
    rows = [row(at_ms=1000 + number, wait_ms=number * 11, pool="ab"[number % 2]) for number in range(12)]
    arguments = {"now_ms": 5000, "waiting": 2, "interval_ms": 1000, "begin_ms": 100}
    first = learning.fold(snapshot.Snapshot(), rows, **arguments)
    assert learning.fold(snapshot.Snapshot(), rows[::-1], **arguments) == first
    assert first.snapshot.engine is not None


def test_a_row_of_a_clock_that_ran_ahead_is_of_now() -> None:
    """Otherwise nothing would be forgotten any more until that time, and a proof would be fresh as long."""
    platform = Platform()
    now, year = platform.clock.now_ms(), 365 * 24 * 3600 * 1000
    put(platform, row(at_ms=now), row(at_ms=now + year, tier=1, wait_ms=60_000))
    learn.learn(platform.ctx)
    found = learn.stored(platform.ctx)[1]
    assert (found.pool("local").at_ms, found.pool("local").attested_ms) == (now, now)
    assert found.router.at == now / 1000


def test_what_was_learnt_before_a_clock_was_set_back_is_forgotten_as_it_should() -> None:
    ahead = 1_900_000_000_000
    now = ahead - 365 * 24 * 3600 * 1000
    arguments = {"waiting": 0, "interval_ms": 1000, "begin_ms": 100}
    rows = [row(at_ms=ahead, tier=1, wait_ms=5000) for _ in range(20)]
    before = learning.fold(snapshot.Snapshot(), rows, now_ms=ahead, **arguments).snapshot
    missed = before.router.service.rows(["local"])[0, 0, 1]
    first = learning.fold(before, [row(at_ms=now)], now_ms=now, **arguments).snapshot
    assert (first.at_ms, first.pool("local").attested_ms) == (now, now)
    hour = now + 3600 * 1000
    later = learning.fold(first, [row(at_ms=hour)], now_ms=hour, **arguments).snapshot
    assert missed > 15
    assert later.router.service.rows(["local"])[0, 0, 1] < 1.1  # its prior


def test_the_next_fit_is_due_though_its_time_was_set_by_a_clock_that_ran_ahead() -> None:
    platform = Platform()
    now = platform.clock.now_ms()
    fit = replace(snapshot.Fit(), tried_ms=now, due_ms=now + 365 * 24 * 3600 * 1000)
    platform.store.transact([Put(keys.routing(), snapshot.Snapshot(fit=fit).body())])
    refit.refit(platform.ctx)
    assert 0 < learn.stored(platform.ctx)[1].fit.due_ms - now <= platform.ctx.policy.refit_ms


def test_learning_goes_on_whatever_the_engine_fails_by(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform()
    put(platform, row())
    learn.learn(platform.ctx)

    def fails(*_: Any) -> Any:
        raise OverflowError("a defect")

    monkeypatch.setattr("hllm.router.Router.learn", fails)
    put(platform, row(at_ms=1))
    assert learn.learn(platform.ctx) == {"folded": 1, "warnings": 2}
    assert observed(platform) == []
    assert learn.stored(platform.ctx)[1].pool("local").seen == 2


def test_pools_that_are_gone_are_forgotten_in_the_end() -> None:
    rows = [row(at_ms=number, pool=f"p{number}") for number in range(learning.POOLS_KEPT + 5)]
    arguments = {"now_ms": 5000, "waiting": 0, "interval_ms": 1000, "begin_ms": 100}
    found = learning.fold(snapshot.Snapshot(), rows, **arguments).snapshot
    assert set(found.pools) == {f"p{number}" for number in range(5, learning.POOLS_KEPT + 5)}


def test_an_agent_of_a_tier_leaves_the_time_of_its_proof() -> None:
    platform = Platform()
    put(platform, row(tier=2, at_ms=4000), row(at_ms=6000))
    learn.learn(platform.ctx)
    assert learn.stored(platform.ctx)[1].pool("local").attested_ms == 4000


def test_a_sealed_job_that_cannot_be_opened_tells_nothing_of_its_pool() -> None:
    platform = Platform()
    job = platform.ctx.store.get(keys.job(platform.running().job))
    assert job is not None
    plain = Job.from_record(job.body)
    sealed = replace(plain, data_key="k1", tier=1)
    told = {
        (each.data_key, category): len(observe.ended(platform.ctx, each, category))
        for each in (plain, sealed)
        for category in ("platform", observe.LAPSED, "ok")
    }
    assert told.pop(("k1", "platform")) == 0
    assert set(told.values()) == {1}


def test_a_release_is_no_fault_of_the_pool() -> None:
    from hanzo_compute.services import lease

    platform = Platform()
    claim = platform.running()
    lease.release(platform.ctx, claim, "it stops")
    assert observed(platform) == []
