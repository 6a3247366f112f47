"""Placing: repeated, late and early messages, deadlines, the choice of a pool, and what is told of it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from hanzo_compute.config import LEAST_LOADED, Policy, Pool
from hanzo_compute.errors import InvalidSpec, NoCapacity, NotFound
from hanzo_compute.model import keys, spec, tariff
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.spec import format_time
from hanzo_compute.model.states import State
from hanzo_compute.ports import Put
from hanzo_compute.routing import placement
from hanzo_compute.services import cancel, explain, learn, place, pricing
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
    job_id = platform.submitted()
    gone = replace(platform.ctx, policy=Policy(pools=(Pool("docker", frozenset({"docker"})),)))
    assert isinstance(place.place(gone, [job_id])[job_id], NoCapacity)
    assert platform.job(job_id).state is State.QUEUED


def test_a_batch_spreads_although_none_of_it_is_written_yet() -> None:
    platform = Platform(Policy(pools=(Pool("a", WASM), Pool("b", WASM))))
    found = place.place(platform.ctx, [platform.submitted() for _ in range(4)])
    assert sorted(str(job.pool) for job in found.values() if isinstance(job, Job)) == ["a", "a", "b", "b"]
    assert sorted(job.ahead for job in found.values() if isinstance(job, Job)) == [0, 0, 1, 1]


def lessons(platform: Platform, good: str, bad: str, count: int = 12) -> None:
    """Attempts that end well in one pool and are lost in the other."""
    now = platform.clock.now_ms()
    rows = []
    for number in range(count):
        for pool, category in ((good, "ok"), (bad, "lapsed")):
            row = {"at_ms": now + number, "pool": pool, "runtime": "wasm", "category": category}
            row |= {"wait_ms": 20, "run_ms": 100, "ahead": 0, "tier": 0}
            rows.append(Put(keys.observed(now + number, f"j-{pool}", number), row))
    platform.store.transact(rows)
    assert learn.learn(platform.ctx)["folded"] == 2 * count


def pools_of(platform: Platform, count: int) -> list[str | None]:
    return [platform.job(platform.placed()).pool for _ in range(count)]


def test_a_pool_that_fails_falls_behind_and_comes_back_by_forgetting() -> None:
    platform = Platform(Policy(pools=(Pool("a", WASM), Pool("b", WASM))))
    lessons(platform, good="b", bad="a")
    assert pools_of(platform, 6) == ["b"] * 6
    platform.clock.advance(3_600_000)
    now = platform.clock.now_ms()
    row = {"at_ms": now, "pool": "b", "runtime": "wasm", "category": "ok", "wait_ms": 5, "run_ms": 9, "ahead": 0}
    platform.store.transact([Put(keys.observed(now, "j-later", 1), row | {"tier": 0})])
    learn.learn(platform.ctx)
    assert "a" in pools_of(platform, 6)


def test_a_placement_is_explained_to_its_tenant_alone() -> None:
    platform = Platform(Policy(pools=(Pool("a", WASM), Pool("b", WASM))))
    lessons(platform, good="b", bad="a")
    job_id = platform.placed()
    trace = explain.trace(platform.ctx, "acme", job_id)
    assert (trace["job"], trace["attempt"], trace["by"]) == (job_id, 1, "hllm")
    assert trace["chosen"] == {"pool": "b", "runtime": "wasm"}
    decision = trace["decision"]
    assert [each["action"] for each in decision["candidates"]] == ["b/wasm", "a/wasm"]
    assert decision["candidates"][0]["p_met"] > 0.8 > 0.2 > decision["candidates"][1]["p_met"]
    assert decision["recomputed"] == "yes"
    assert any(each["of"] == "price" and each["then"] == "a/wasm" for each in decision["counterfactuals"])
    assert explain.trace(platform.ctx, "acme", job_id, 1)["at"] == trace["at"]
    for tenant, attempt in (("other", None), ("acme", 2)):
        with pytest.raises(NotFound):
            explain.trace(platform.ctx, tenant, job_id, attempt)
    with pytest.raises(NotFound, match="has not been placed"):
        explain.trace(platform.ctx, "acme", platform.submitted())


def test_what_was_altered_is_not_recomputed() -> None:
    platform = Platform(Policy(pools=(Pool("a", WASM), Pool("b", WASM))))
    lessons(platform, good="b", bad="a")
    job_id = platform.placed()
    record = platform.store.get(keys.trace(job_id, 1))
    assert record is not None
    decision = json.loads(record.body["decision"])
    inputs = decision["inputs"]
    inputs["state"] = inputs["state"].replace('"version":1', '"version":2')
    record.body["decision"] = json.dumps(decision)
    platform.store.transact([Put(record.key, record.body, expect=record.rev)])
    assert "altered" in explain.trace(platform.ctx, "acme", job_id)["decision"]["recomputed"]


@pytest.mark.parametrize("routing", ["hllm", LEAST_LOADED])
def test_without_data_and_without_the_router_load_decides_and_the_trace_says_so(routing: str) -> None:
    platform = Platform(Policy(pools=(Pool("a", WASM), Pool("b", WASM)), routing=routing))
    if routing == LEAST_LOADED:
        assert learn.learn(platform.ctx) == {}
    trace = explain.trace(platform.ctx, "acme", platform.placed())
    assert trace["by"] == "least_loaded"
    assert trace["why"] == ("no data: least loaded" if routing == "hllm" else "HZC_ROUTING=least_loaded: least loaded")
    assert pools_of(platform, 3) == ["b", "a", "b"]


def test_one_place_is_no_choice() -> None:
    platform = Platform()
    trace = explain.trace(platform.ctx, "acme", platform.placed())
    assert (trace["by"], "decision" in trace) == ("only", False)


@pytest.mark.parametrize("damage", ["record", "engine", "type"])
def test_a_damaged_snapshot_holds_up_nothing_and_is_learnt_anew(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    platform = Platform(Policy(pools=(Pool("a", WASM), Pool("b", WASM))))
    lessons(platform, good="b", bad="a")
    record = platform.store.get(keys.routing())
    assert record is not None
    body = record.body
    if damage == "record":
        body = {"format": 1, "nothing": "of it"}
    elif damage == "engine":
        body["engine"]["service"] = {"a": [[-1.0, float(2**60)]]}
    else:
        body["engine"]["regimes"] = 7
    platform.store.transact([Put(record.key, body, expect=record.rev)])
    with caplog.at_level(logging.WARNING):
        job = platform.job(platform.placed())
    trace = explain.trace(platform.ctx, "acme", job.id)
    assert trace["by"] == "least_loaded"
    assert trace["why"].endswith("least loaded")
    assert caplog.records
    lessons(platform, good="b", bad="a", count=11)
    platform.clock.advance(5_000)
    assert platform.job(platform.placed()).pool == "b"


def test_a_snapshot_is_read_again_after_five_seconds() -> None:
    platform = Platform(Policy(pools=(Pool("a", WASM), Pool("b", WASM))))
    assert pools_of(platform, 1) == ["a"]
    lessons(platform, good="b", bad="a")
    platform.clock.advance(4_999)
    trace = explain.trace(platform.ctx, "acme", platform.placed())
    assert trace["why"] == "no data: least loaded"
    platform.clock.advance(1)
    assert explain.trace(platform.ctx, "acme", platform.placed())["by"] == "hllm"


def test_a_pool_whose_evidence_is_old_comes_behind_one_that_proved_its_tier_lately() -> None:
    places = [placement.Place("a", "wasm", tier=2), placement.Place("b", "wasm", tier=2, load=3)]
    platform = Platform(Policy(pools=(Pool("a", WASM), Pool("b", WASM))))
    lessons(platform, good="b", bad="c")
    lessons(platform, good="a", bad="c", count=11)
    _, known = learn.stored(platform.ctx)
    now, day = platform.clock.now_ms(), 24 * 3600 * 1000
    bounds = placement.Bounds(10_000, day)
    assert placement.choose(places, known, tier=2, seed=1, now_ms=now, bounds=bounds).place.pool == "a"
    fresh = replace(known.pool("b"), attested_ms=now - 1000)
    stale = replace(known.pool("a"), attested_ms=now - day - 1)
    known = replace(known, pools={"a": stale, "b": fresh})
    found = placement.choose(places, known, tier=2, seed=1, now_ms=now, bounds=bounds)
    assert found.place.pool == "b"
    (rejected,) = json.loads(found.trace["decision"])["rejected"]
    assert (rejected["action"], rejected["predicate"]) == ("a/wasm", "excluded")


def test_a_trace_has_a_bound_and_says_what_it_lost() -> None:
    platform = Platform(Policy(pools=tuple(Pool(f"pool-{number:02d}", WASM) for number in range(64))))
    for number in range(0, 64, 2):
        lessons(platform, good=f"pool-{number:02d}", bad=f"pool-{number + 1:02d}", count=2)
        platform.clock.advance(1000)
    trace = explain.trace(platform.ctx, "acme", platform.placed())
    assert trace["by"] == "hllm"
    assert trace["cut"][0] == "decision.inputs"
    assert len(json.dumps(trace)) <= placement.TRACE_MAX + 200
    assert trace["chosen"]["pool"] in [each["pool"] for each in trace["places"]]


EITHER = """
version = "either"
token = "credit"

[[rate]]
runtime = "wasm"
attempt = 1000

[[rate]]
runtime = "docker"
attempt = 10
"""


@pytest.fixture
def either(monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A platform whose source code runs in two runtimes, at different prices, in a pool of each."""
    monkeypatch.setitem(spec.RUNTIMES_OF, "code", ("wasm", "docker"))
    pools = (Pool("sandboxes", WASM), Pool("containers", frozenset({"docker"})))
    platform = Platform(Policy(pools=pools))
    platform.ctx = replace(platform.ctx, tariff=tariff.parse(EITHER, "either"))
    pricing.publish(platform.ctx)
    return platform


def test_auto_is_the_cheaper_runtime_where_nothing_else_speaks(either: Platform) -> None:
    job_id = either.submitted()
    waiting = either.job(job_id)
    assert (waiting.runtime, waiting.most, waiting.runtimes) == ("docker", "1000", {"docker": "10", "wasm": "1000"})
    either.dispatch()
    placed = either.job(job_id)
    assert (placed.runtime, placed.pool, placed.most) == ("docker", "containers", "10")
    assert explain.trace(either.ctx, "acme", job_id)["chosen"] == {"pool": "containers", "runtime": "docker"}


def test_auto_leaves_a_runtime_that_does_not_hold_what_it_runs(either: Platform) -> None:
    lessons(either, good="sandboxes", bad="containers")
    placed = either.job(either.placed())
    assert (placed.runtime, placed.pool, placed.most) == ("wasm", "sandboxes", "1000")
    assert pricing.terms_of(either.ctx, placed).rates.cost({"attempts": 1}) == 1000


def test_auto_keeps_to_what_the_requester_pays_and_to_what_is_named(either: Platform) -> None:
    lessons(either, good="sandboxes", bad="containers")
    cheap = either.job(either.placed(max_price={"token": "credit", "units": "50"}))
    assert (cheap.runtime, cheap.runtimes) == ("docker", {})
    named = either.job(either.placed(runtime="wasm"))
    assert (named.runtime, named.pool, named.runtimes) == ("wasm", "sandboxes", {})
    with pytest.raises(InvalidSpec, match="max_price"):
        either.submitted(max_price={"token": "credit", "units": "5"})


def test_auto_is_what_the_source_fits_where_it_fits_one() -> None:
    platform = Platform(Policy(pools=(Pool("containers", frozenset({"docker"})), Pool("sandboxes", WASM))))
    placed = platform.job(platform.placed())
    assert (placed.runtime, placed.pool, placed.runtimes) == ("wasm", "sandboxes", {})
