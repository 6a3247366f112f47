"""Submitting: checks, idempotency keys, reruns, and all of it in one transaction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanzo_compute.config import Policy, Pool
from hanzo_compute.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    InvalidSpec,
    NoCapacity,
    NotFound,
    Unavailable,
)
from hanzo_compute.model import keys
from hanzo_compute.model.outcome import Category
from hanzo_compute.model.spec import format_time
from hanzo_compute.model.states import State
from hanzo_compute.services import outbox, read, submit
from tests.support.faults import FaultyQueue, FaultyStore, scripted
from tests.support.stepped import Platform, spec

DAY_MS = 24 * 3600 * 1000


def test_a_job_is_stored_with_its_spec_event_labels_and_message() -> None:
    platform = Platform()
    job = submit.submit(platform.ctx, "acme", spec(labels={"team": "red"})).job
    assert (job.state, job.tenant, job.attempt, job.runtime) == (State.QUEUED, "acme", 0, "wasm")
    assert submit.stored_spec(platform.ctx, job.id)["labels"] == {"team": "red"}
    assert platform.events(job.id) == ["submitted"]
    assert platform.store.get(keys.label("acme", "team", "red", job.id)) is not None
    (message,) = platform.queue.receive(outbox.DISPATCH)
    assert message.body == {"job": job.id, "attempt": 0}
    assert platform.store.query(keys.outbox(keys.shard(job.id), "").pk) == []


def test_the_same_key_and_body_give_the_same_job() -> None:
    platform = Platform()
    first = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k")
    again = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k")
    assert (first.replayed, again.replayed) == (False, True)
    assert again.job == first.job
    assert len(platform.queue.receive(outbox.DISPATCH)) == 1


def test_the_same_key_with_another_body_is_refused_and_names_the_job() -> None:
    platform = Platform()
    first = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k")
    with pytest.raises(IdempotencyMismatch) as refused:
        submit.submit(platform.ctx, "acme", spec(args=["x"]), idempotency_key="k")
    assert refused.value.data == {"job": first.job.id}


def test_keys_of_two_tenants_are_two_keys() -> None:
    platform = Platform()
    ours = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k")
    theirs = submit.submit(platform.ctx, "globex", spec(args=["x"]), idempotency_key="k")
    assert ours.job.id != theirs.job.id


def test_a_key_that_somebody_used_a_moment_before_gives_their_job() -> None:
    platform = Platform()
    rival: list[submit.Submitted] = []

    class Late(FaultyStore):
        def get(self, key, *, fresh=False):  # type: ignore[no-untyped-def]
            found = super().get(key, fresh=fresh)
            if key.pk.startswith("IDEMPOTENCY#") and not rival:
                rival.append(submit.submit(platform.ctx, "acme", spec(), idempotency_key="k"))
            return found

    late = Late(platform.store, scripted())
    mine = submit.submit(replace(platform.ctx, store=late), "acme", spec(), idempotency_key="k")
    assert mine.replayed
    assert mine.job.id == rival[0].job.id


def test_a_lost_reply_and_a_repeated_call_make_one_job() -> None:
    platform = Platform()
    store = FaultyStore(platform.store, scripted("transact:reply_lost"))
    with pytest.raises(Unavailable):
        submit.submit(replace(platform.ctx, store=store), "acme", spec(), idempotency_key="k")
    again = submit.submit(platform.ctx, "acme", spec(), idempotency_key="k")
    assert again.replayed
    assert len(read.jobs(platform.ctx, "acme", state=None, label=None, cursor="", limit=9).items) == 1


def test_a_message_that_cannot_be_sent_waits_in_the_outbox() -> None:
    platform = Platform()
    queue = FaultyQueue(platform.queue, scripted("send:before"))
    job = submit.submit(replace(platform.ctx, queue=queue), "acme", spec()).job
    (row,) = platform.store.query(keys.outbox(keys.shard(job.id), "").pk)
    assert row.body["message"] == {"job": job.id, "attempt": 0}


@pytest.mark.parametrize(("deadline_ms", "code"), [(-1, "past"), (0, "past"), (30 * DAY_MS + 1000, "too_far")])
def test_a_deadline_must_lie_ahead_within_bounds(deadline_ms: int, code: str) -> None:
    platform = Platform()
    with pytest.raises(InvalidSpec) as refused:
        platform.submitted(deadline=format_time(platform.clock.now_ms() + deadline_ms))
    assert [(problem.field, problem.code) for problem in refused.value.fields] == [("deadline", code)]


def test_an_unknown_blob_is_named_and_another_tenants_blob_is_unknown() -> None:
    platform = Platform()
    blob = platform.blobs.put("globex", b"module")
    with pytest.raises(InvalidSpec) as refused:
        platform.submitted(source={"module": blob}, input={"blob": blob})
    assert [(problem.field, problem.code) for problem in refused.value.fields] == [
        ("source.module", "unknown_blob"),
        ("input.blob", "unknown_blob"),
    ]
    assert platform.submitted("globex", source={"module": blob})


def test_no_pool_for_the_runtime_is_no_capacity() -> None:
    platform = Platform(Policy(pools=(Pool("gpu", frozenset({"docker"})),)))
    with pytest.raises(NoCapacity):
        platform.submitted()


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\t", "ü"])
def test_a_key_must_be_short_printable_ascii(key: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        submit.check_idempotency_key(key)
    assert refused.value.fields[0].field == "Idempotency-Key"


def test_good_keys_pass() -> None:
    assert [submit.check_idempotency_key(key) for key in (None, "k", "~" * 255)] == [None, "k", "~" * 255]


def test_a_rerun_is_a_new_job_with_the_spec_but_not_the_deadline() -> None:
    platform = Platform()
    deadline = format_time(platform.clock.now_ms() + 60_000)
    first = platform.submitted(args=["a"], deadline=deadline, labels={"team": "red"})
    again = submit.resubmit(platform.ctx, "acme", first, kind="rerun").job
    assert again.origin == {"kind": "rerun", "job": first}
    found = submit.stored_spec(platform.ctx, again.id)
    assert (found["args"], found["labels"], found.get("deadline")) == (["a"], {"team": "red"}, None)


def test_nobody_reruns_another_tenants_job() -> None:
    platform = Platform()
    job_id = platform.submitted("globex")
    with pytest.raises(NotFound):
        submit.resubmit(platform.ctx, "acme", job_id, kind="rerun")


def test_only_dead_jobs_are_redriven() -> None:
    platform = Platform(Policy(max_lapses=1))
    claim = platform.running()
    with pytest.raises(Conflict) as refused:
        submit.resubmit(platform.ctx, "acme", claim.job, kind="redrive")
    assert refused.value.data["state"] == "running"
    assert platform.end(claim, Category.PLATFORM).state is State.DEAD
    again = submit.resubmit(platform.ctx, "acme", claim.job, kind="redrive", idempotency_key="k")
    assert again.job.origin == {"kind": "redrive", "job": claim.job}
    assert submit.resubmit(platform.ctx, "acme", claim.job, kind="redrive", idempotency_key="k").replayed
