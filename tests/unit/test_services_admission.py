"""Backpressure: how many jobs may wait, who is refused, and that a refusal leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hanzo_compute.config import Policy, Pool, load
from hanzo_compute.errors import InvalidRequest, NoCapacity, RateLimited
from hanzo_compute.model import keys
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.states import State
from hanzo_compute.services import admission, cancel, submit
from tests.support.faults import FaultyStore, scripted
from tests.support.stepped import Platform, spec

THREE = Policy(tenant_waiting_max=3)


def pass_time(platform: Platform) -> None:
    platform.clock.advance(int(admission.COUNT_S * 1000))


def contents(platform: Platform) -> dict[str, list[str]]:
    return {pk: list(rows) for pk, rows in platform.commits.database.partitions.items() if rows}


def test_a_tenant_with_too_many_waiting_jobs_is_told_to_come_back_and_leaves_nothing_behind() -> None:
    platform = Platform(THREE)
    for _ in range(3):
        platform.submitted()
    before = contents(platform)
    with pytest.raises(RateLimited) as refused:
        submit.submit(platform.ctx, "acme", spec(labels={"a": "b"}), idempotency_key="new")
    assert refused.value.data["retry_after_s"] > 0
    assert contents(platform) == before
    assert platform.submitted("globex")


@pytest.mark.parametrize("state", [State.QUEUED, State.PLACED, State.RETRYING])
def test_whatever_waits_to_run_counts(state: State) -> None:
    platform = Platform(Policy(tenant_waiting_max=1, waiting_max=1))
    if state is State.RETRYING:
        platform.end(platform.running(retry={"max_attempts": 2}), Category.EXIT, exit_code=1)
    elif state is State.PLACED:
        platform.placed()
    else:
        platform.submitted()
    pass_time(platform)
    with pytest.raises(RateLimited):
        platform.submitted()
    with pytest.raises(NoCapacity):
        platform.submitted("globex")


def test_what_runs_or_has_ended_does_not_count() -> None:
    platform = Platform(Policy(tenant_waiting_max=1, waiting_max=1))
    claim = platform.running()
    pass_time(platform)
    cancelled = platform.submitted()
    with pytest.raises(RateLimited):
        platform.submitted()
    cancel.cancel(platform.ctx, "acme", cancelled)
    pass_time(platform)
    platform.end(claim)
    assert platform.submitted()


def test_the_platform_refuses_everybody_when_too_many_wait() -> None:
    platform = Platform(Policy(waiting_max=3, pools=(Pool("a", frozenset({"wasm"})), Pool("b", frozenset({"wasm"})))))
    for tenant in ("acme", "globex", "initech"):
        platform.placed(tenant)
    pass_time(platform)
    before = contents(platform)
    with pytest.raises(NoCapacity) as refused:
        platform.submitted("fourth")
    assert refused.value.data["retry_after_s"] > 0
    assert contents(platform) == before


def test_a_repeated_call_gets_its_job_however_many_wait() -> None:
    platform = Platform(Policy(tenant_waiting_max=1, waiting_max=1))
    first = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k")
    pass_time(platform)
    again = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k")
    assert again.replayed
    assert again.job == first.job


def test_reruns_and_redrives_are_admissions() -> None:
    platform = Platform(Policy(tenant_waiting_max=1, max_lapses=1))
    claim = platform.running()
    assert platform.end(claim, Category.PLATFORM).state is State.DEAD
    pass_time(platform)
    rerun = submit.resubmit(platform.ctx, "acme", claim.job, kind="rerun", idempotency_key="k")
    for kind in ("rerun", "redrive"):
        with pytest.raises(RateLimited):
            submit.resubmit(platform.ctx, "acme", claim.job, kind=kind)
    assert submit.resubmit(platform.ctx, "acme", claim.job, kind="rerun", idempotency_key="k").job == rerun.job


class Counting(FaultyStore):
    """A store that says how often it was asked to count."""

    counts = 0

    def count_index(self, index: str, pk: str, most: int) -> int:
        self.counts += 1
        return super().count_index(index, pk, most)


def test_counts_are_taken_once_a_second_however_many_submit() -> None:
    platform = Platform(Policy(tenant_waiting_max=60))
    store = Counting(platform.store, scripted())
    ctx = replace(platform.ctx, store=store)
    for _ in range(50):
        submit.submit(ctx, "acme", spec())
    assert store.counts == 5  # three states of the tenant, two partitions of the platform
    pass_time(platform)
    submit.submit(ctx, "acme", spec())
    assert store.counts == 10


def test_a_bound_that_is_reached_by_jobs_that_have_run_already_is_counted_again_soon() -> None:
    platform = Platform(Policy(tenant_waiting_max=2))
    for _ in range(2):
        platform.running()
    with pytest.raises(RateLimited):
        platform.submitted()
    platform.clock.advance(int(admission.RECOUNT_S * 1000))
    assert platform.submitted()


def test_a_process_remembers_the_counts_of_so_many_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "TENANTS_MAX", 8)
    platform = Platform()
    for number in range(40):
        platform.submitted(f"tenant-{number}")
    assert len(platform.ctx.waiting) <= 8


def test_another_process_is_seen_after_a_second() -> None:
    platform = Platform(THREE)
    other = replace(platform.ctx, waiting={})
    platform.submitted()
    for _ in range(2):
        submit.submit(other, "acme", spec())
    pass_time(platform)
    with pytest.raises(RateLimited):
        platform.submitted()


def test_the_index_of_waiting_jobs_is_empty_when_none_waits() -> None:
    platform = Platform()
    claim = platform.running()
    assert platform.store.query_index(keys.BY_POOL, keys.UNPLACED) == []
    platform.end(claim)
    assert platform.store.query_index(keys.BY_POOL, keys.pool_partition("local")) == []


def test_limits_come_from_the_environment(tmp_path: Path) -> None:
    home = {"HZC_HOME": str(tmp_path), "HZC_CACHE": str(tmp_path)}
    policy = load(home | {"HZC_WAITING_MAX": "7", "HZC_TENANT_WAITING_MAX": "3"}).policy
    assert (policy.waiting_max, policy.tenant_waiting_max) == (7, 3)
    default = load(home).policy
    assert (default.waiting_max, default.tenant_waiting_max) == (50_000, 10_000)


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "many", "9" * 30, "\u0663", " 5"])
def test_a_limit_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidRequest, match="HZC_WAITING_MAX"):
        load({"HZC_HOME": str(tmp_path), "HZC_CACHE": str(tmp_path), "HZC_WAITING_MAX": text})
