"""Leases: who gets a job, who keeps it, and what a fence refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.errors import InvalidRequest, NotFound, PermissionDenied, StaleFence, Unavailable
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.outcome import Category, Outcome
from hanzo_compute.model.spec import code_digest, format_time
from hanzo_compute.model.states import State
from hanzo_compute.ports import Beat, Operation, Send
from hanzo_compute.services import cancel, complete, lease, read, reconcile
from hanzo_compute.services.lease import Claim
from hanzo_compute_agent.signing import Signer
from tests.support import statements
from tests.support.faults import FaultyStore, scripted
from tests.support.stepped import LESSEE, Platform, entries


def test_jobs_are_leased_in_the_order_in_which_they_were_placed() -> None:
    platform = Platform()
    placed = []
    for _ in range(3):
        placed.append(platform.placed())
        platform.clock.advance(1)
    assert [found.job for found in lease.acquire(platform.ctx, statements.want("a", 2, "local"), LESSEE)] == placed[:2]
    assert [found.job for found in lease.acquire(platform.ctx, statements.want("b", 9, "local"), LESSEE)] == placed[2:]
    assert lease.acquire(platform.ctx, statements.want("b", 9, "local"), LESSEE) == []


def test_a_lease_tells_all_that_the_agent_needs() -> None:
    platform = Platform()
    blob = platform.blobs.put("acme", b"data")
    platform.placed(source={"module": blob}, input={"blob": blob}, resources={"timeout_s": 7})
    found = platform.lease()
    assert (found.attempt, found.runtime, found.timeout_ms, found.timeout_is_deadline) == (1, "wasm", 7000, False)
    assert platform.blobs.download(found.module_url or "") == b"data"
    assert platform.blobs.download(found.input_url or "") == b"data"
    assert platform.job(found.job).lease_until_ms == platform.clock.now_ms() + found.lease_ms


def test_a_lease_says_where_the_package_is() -> None:
    platform = Platform()
    blob = platform.blobs.put("acme", b"archive")
    platform.placed(source={"package": blob, "language": "python"})
    found = platform.lease()
    assert found.spec["source"] == {"package": blob, "language": "python", "entry": "main.py"}
    assert platform.blobs.download(found.module_url or "") == b"archive"
    assert code_digest(found.spec) == blob.removeprefix("b1-")


def test_the_time_that_is_left_until_the_deadline_is_the_limit() -> None:
    platform = Platform()
    platform.placed(deadline=format_time(platform.clock.now_ms() + 5000), resources={"timeout_s": 60})
    found = platform.lease()
    assert (found.timeout_ms, found.timeout_is_deadline) == (5000, True)


def test_past_its_deadline_a_job_expires_instead_of_being_leased() -> None:
    platform = Platform()
    job_id = platform.placed(deadline=format_time(platform.clock.now_ms() + 5000))
    platform.clock.advance(5000)
    assert lease.acquire(platform.ctx, statements.want("a", 1, "local"), LESSEE) == []
    found = platform.job(job_id)
    assert (found.state, found.category, found.attempt) == (State.EXPIRED, "deadline", 0)


def test_another_pools_jobs_are_not_seen() -> None:
    platform = Platform()
    platform.placed()
    assert lease.acquire(platform.ctx, statements.want("a", 1, "other"), LESSEE) == []


def test_two_agents_at_one_job_get_one_lease() -> None:
    platform = Platform()
    job_id = platform.placed()
    stale = platform.store.query_index(keys.BY_POOL, keys.pool_partition("local"))
    first = platform.lease()

    class Behind(FaultyStore):
        def query_index(self, *_: object, **__: object):  # type: ignore[no-untyped-def,override]
            return stale

    behind = replace(platform.ctx, store=Behind(platform.store, scripted()))
    assert lease.acquire(behind, statements.want("b", 1, "local"), LESSEE) == []
    assert (first.job, platform.job(job_id).attempt, platform.job(job_id).agent) == (job_id, 1, "agent-0")


def test_what_is_taken_reaches_the_agent_although_the_store_fails_then() -> None:
    platform = Platform()
    placed = []
    for _ in range(2):
        placed.append(platform.placed())
        platform.clock.advance(1)

    class Fails(FaultyStore):
        def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
            if any(operation.key == keys.job(placed[1]) for operation in operations):
                raise Unavailable("down")
            super().transact(operations, sends)

    ctx = replace(platform.ctx, store=Fails(platform.store, scripted()))
    assert [found.job for found in lease.acquire(ctx, statements.want("a", 2, "local"), LESSEE)] == placed[:1]
    with pytest.raises(Unavailable):
        lease.acquire(ctx, statements.want("a", 2, "local"), LESSEE)


def test_a_heartbeat_renews_a_lease_that_has_lost_a_third() -> None:
    platform = Platform()
    claim = platform.running()
    until = platform.job(claim.job).lease_until_ms
    platform.clock.advance(4_000)
    lease.heartbeat(platform.ctx, claim)
    assert platform.job(claim.job).lease_until_ms == until
    platform.clock.advance(2_000)
    assert lease.heartbeat(platform.ctx, claim) == Beat(None, False)
    assert platform.job(claim.job).lease_until_ms == platform.clock.now_ms() + 15_000


def test_a_heartbeat_tells_of_a_cancel_and_of_followers() -> None:
    platform = Platform()
    claim = platform.running()
    read.logs(platform.ctx, "acme", claim.job, cursor="", follow=True)
    assert lease.heartbeat(platform.ctx, claim) == Beat(None, True)
    cancel.cancel(platform.ctx, "acme", claim.job)
    platform.clock.advance(10_000)
    assert lease.heartbeat(platform.ctx, claim) == Beat("cancelled", True)
    platform.clock.advance(30_000)
    assert lease.heartbeat(platform.ctx, claim) == Beat("cancelled", False)


@pytest.mark.parametrize("wrong", ["attempt", "lessee", "ended"])
def test_every_call_of_an_attempt_that_does_not_hold_the_job_is_refused(wrong: str) -> None:
    platform = Platform()
    claim = platform.running()
    if wrong == "attempt":
        claim = replace(claim, attempt=2)
    elif wrong == "lessee":
        claim = replace(claim, lessee="globex")
    else:
        lease.release(platform.ctx, claim, "test")
    calls = [
        lambda: lease.heartbeat(platform.ctx, claim),
        lambda: lease.append_logs(platform.ctx, claim, 1, entries("x")),
        lambda: lease.presign_output(platform.ctx, claim, f"b1-{0:064}", 1),
        lambda: lease.release(platform.ctx, claim, "again"),
        lambda: platform.end(claim),
    ]
    for call in calls:
        with pytest.raises(StaleFence) as refused:
            call()
        assert refused.value.data["job"] == claim.job
    assert platform.ctx.logs.read("acme", claim.job).entries == []


def test_calls_about_no_job_are_not_found() -> None:
    claim = Claim("j-00000000000000000000000000", 1, LESSEE)
    platform = Platform()
    for call in (
        lambda: lease.heartbeat(platform.ctx, claim),
        lambda: lease.append_logs(platform.ctx, claim, 1, entries("x")),
        lambda: lease.release(platform.ctx, claim, "x"),
        lambda: platform.end(claim),
    ):
        with pytest.raises(NotFound):
            call()


def test_a_release_costs_nothing_and_sends_the_job_on_at_once() -> None:
    platform = Platform()
    claim = platform.running()
    found = lease.release(platform.ctx, claim, "the agent stops")
    assert (found.state, found.failures, found.lapses) == (State.RETRYING, 0, 0)
    assert platform.events(claim.job)[-1] == "released"
    assert platform.dispatch() == 1
    assert platform.lease("agent-1").attempt == 2


def test_a_release_of_a_job_that_is_to_stop_ends_it() -> None:
    platform = Platform()
    claim = platform.running()
    cancel.cancel(platform.ctx, "acme", claim.job)
    found = lease.release(platform.ctx, claim, "the agent stops")
    assert (found.state, found.category) == (State.CANCELLED, "cancelled")


@pytest.mark.parametrize(
    ("seq", "texts", "field"),
    [(0, ["x"], "seq"), (bounds.LOG_CHUNKS_MAX + 1, ["x"], "seq"), (1, ["x" * (bounds.LOG_CHUNK_MAX + 1)], "entries")],
)
def test_a_log_chunk_over_its_bounds_names_the_field(seq: int, texts: list[str], field: str) -> None:
    platform = Platform()
    claim = platform.running()
    with pytest.raises(InvalidRequest) as refused:
        lease.append_logs(platform.ctx, claim, seq, entries(*texts))
    assert refused.value.fields[0].field == field


def test_a_chunk_is_refused_when_its_attempt_is_lost_between_the_look_and_the_write() -> None:
    platform = Platform()
    claim = platform.running()

    class Slow(FaultyStore):
        def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
            if platform.job(claim.job).state is State.RUNNING:  # first the process stands still, and the lease lapses
                platform.clock.advance(16_000)
                reconcile.reconcile(platform.ctx)
            super().transact(operations, sends)

    slow = replace(platform.ctx, store=Slow(platform.store, scripted()), logs=platform.ctx.logs)
    slow = replace(slow, logs=type(platform.ctx.logs)(slow.store, platform.blobs))
    with pytest.raises(StaleFence):
        lease.append_logs(slow, claim, 1, entries("too late"))
    assert platform.job(claim.job).state is State.RETRYING
    assert platform.ctx.logs.read("acme", claim.job).entries == []


def test_a_chunk_waits_for_a_heartbeat_that_comes_between() -> None:
    platform = Platform()
    claim = platform.running()
    platform.clock.advance(10_000)

    class Busy(FaultyStore):
        beaten = False

        def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
            if not self.beaten:
                self.beaten = True
                lease.heartbeat(platform.ctx, claim)
            super().transact(operations, sends)

    store = Busy(platform.store, scripted())
    ctx = replace(platform.ctx, store=store, logs=type(platform.ctx.logs)(store, platform.blobs))
    lease.append_logs(ctx, claim, 1, entries("once"))
    assert [entry.text for entry in platform.ctx.logs.read("acme", claim.job).entries] == ["once"]


def test_an_output_that_the_tenant_has_needs_no_upload() -> None:
    platform = Platform()
    claim = platform.running()
    blob = platform.blobs.put("globex", b"output")
    url = lease.presign_output(platform.ctx, claim, blob, 6)
    assert url is not None
    platform.blobs.upload(url.url, b"output")
    assert platform.blobs.get("acme", blob) == b"output"
    assert lease.presign_output(platform.ctx, claim, blob, 6) is None


def test_an_attempt_that_no_agent_ends_lapses_again_and_again_until_the_job_is_dead() -> None:
    platform = Platform()
    claim = platform.running()
    for lapses in range(1, 5):
        platform.clock.advance(15_001)
        assert reconcile.reconcile(platform.ctx)["lapsed"] == 1
        found = platform.job(claim.job)
        assert (found.state, found.lapses, found.failures) == (State.RETRYING, lapses, 0)
        claim = platform.again(claim.job)
    platform.end(claim, Category.PLATFORM, detail="the runner broke")
    found = platform.job(claim.job)
    assert (found.state, found.category, found.lapses) == (State.DEAD, "platform", 5)
    assert "the runner broke" in str(found.reason)


def test_a_name_has_the_key_that_came_first() -> None:
    platform = Platform()
    platform.placed()
    want = statements.want("a")
    other = replace(want, key="ab" * 32)
    assert lease.acquire(platform.ctx, want, LESSEE)
    for ctx in (platform.ctx, replace(platform.ctx, agents={})):  # the process that saw it first, and another
        with pytest.raises(PermissionDenied, match="another key") as refused:
            lease.acquire(ctx, other, LESSEE)
        assert "HZC_AGENT_NAME" in str(refused.value.hint)
    assert lease.acquire(platform.ctx, replace(other, agent="b"), LESSEE) == []
    assert lease.acquire(platform.ctx, other, "another-lessee") == []


def test_an_attempt_is_signed_for_by_the_key_that_leased_it() -> None:
    platform = Platform()
    claim = platform.running()
    ended = statements.ended(platform.ctx, claim, Outcome(category=Category.OK))
    stranger = MemoryVault(Random(9))
    assert ended.signed is not None
    forged = Signer(stranger, "agent-0").sign(lease.again(platform.ctx, claim), ended.outcome)
    with pytest.raises(InvalidRequest, match="with which the attempt was leased"):
        complete.complete(platform.ctx, replace(ended, signed=forged))
    assert complete.complete(platform.ctx, ended).state is State.SUCCEEDED
