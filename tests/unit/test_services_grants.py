"""What an agent gets for an attempt that it holds, and what becomes of the entries that the attempt leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from hanzo_compute.errors import InvalidRequest, NotFound, PermissionDenied, StaleFence, Unavailable
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.function import FunctionSpec
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category, Outcome
from hanzo_compute.model.states import State
from hanzo_compute.ports import ABSENT, LogEntry, Operation, Seen, Send, Touched
from hanzo_compute.services import cancel, complete, functions, grants, kv, reconcile, secrets
from hanzo_compute.services.complete import CONFLICTS_MAX
from hanzo_compute.services.lease import Claim
from tests.support import statements
from tests.support.faults import FaultyStore, scripted
from tests.support.stepped import LESSEE, Platform, entries

ALL = {"kv": True, "secrets": ["TOKEN", "NONE"]}
K = b"k"


def deploy(platform: Platform, name: str = "f", tenant: str = "acme", **capabilities: Any) -> None:
    source = {"code": "print(1)", "language": "python"}
    spec = FunctionSpec.model_validate({"source": source, "capabilities": capabilities or ALL})
    functions.deploy(platform.ctx, tenant, name, spec)


@pytest.fixture
def platform() -> Platform:
    made = Platform()
    secrets.put(made.ctx, "acme", "TOKEN", b"t0p\xff")
    secrets.put(made.ctx, "acme", "OTHER", b"not this one")
    secrets.put(made.ctx, "other", "TOKEN", b"of others")
    deploy(made)
    return made


def running(platform: Platform, name: str = "f", **fields: Any) -> Claim:
    return platform.running(source={"function": name}, **fields)


def write(platform: Platform, value: bytes, key: bytes = K, function: str = "f") -> None:
    session = kv.Session(platform.ctx, "acme", function, fresh=True)
    session.put(key, value)
    session.commit()


def stored(platform: Platform, key: bytes = K, function: str = "f", tenant: str = "acme") -> Any:
    return kv.Session(platform.ctx, tenant, function, fresh=True).get(key)


def end(
    platform: Platform, claim: Claim, touched: Sequence[Touched] | None = (), category: str = "ok", **fields: Any
) -> Job:
    ended = statements.ended(platform.ctx, claim, Outcome(category=Category(category)))
    return complete.complete(platform.ctx, replace(ended, touched=touched, **fields))


def bump(platform: Platform, claim: Claim, key: bytes = K) -> list[Touched]:
    """What an attempt leaves that adds one."""
    buffer = kv.Buffer(lambda key, fresh: grants.entry(platform.ctx, claim, key, fresh=fresh))
    value, version = buffer.get(key) or (b"0", 0)
    assert buffer.put(key, str(int(value) + 1).encode(), version) == 0
    return buffer.touched()


class TestReads:
    def test_an_entry_as_it_is(self, platform: Platform) -> None:
        claim = running(platform)
        assert grants.entry(platform.ctx, claim, K) == Seen(ABSENT, 0, None)
        write(platform, b"v")
        write(platform, b"w")
        assert grants.entry(platform.ctx, claim, K, fresh=True) == Seen(2, 2, b"w")

    def test_of_its_own_function_and_tenant_alone(self, platform: Platform) -> None:
        write(platform, b"of g", function="g")
        deploy(platform, tenant="other")
        theirs = kv.Session(platform.ctx, "other", "f")
        theirs.put(K, b"of others")
        theirs.commit()
        assert grants.entry(platform.ctx, running(platform), K, fresh=True).value is None

    def test_a_secret_is_on_record_once_for_an_attempt(self, platform: Platform) -> None:
        claim = running(platform)
        for _ in range(3):
            assert grants.secret(platform.ctx, claim, "TOKEN") == b"t0p\xff"
            platform.clock.advance(1000)
        assert grants.secret(platform.ctx, claim, "NONE") is None
        found = secrets.reads(platform.ctx, "acme", secret=None, cursor="", limit=10).items
        assert sorted((each["function"], each["secret"], each["call"]) for each in found) == [
            ("f@1", "NONE", claim.job),
            ("f@1", "TOKEN", claim.job),
        ]

    def test_the_next_attempt_has_a_record_of_its_own(self, platform: Platform) -> None:
        claim = running(platform)
        grants.secret(platform.ctx, claim, "TOKEN")
        platform.clock.advance(20_000)
        reconcile.reconcile(platform.ctx)
        again = platform.again(claim.job)
        grants.secret(platform.ctx, again, "TOKEN")
        assert len(secrets.reads(platform.ctx, "acme", secret="TOKEN", cursor="", limit=10).items) == 2

    @pytest.mark.parametrize("name", ["OTHER", "token", "", "x" * 5000])
    def test_only_the_secrets_that_it_names(self, platform: Platform, name: str) -> None:
        with pytest.raises(PermissionDenied):
            grants.secret(platform.ctx, running(platform), name)
        assert secrets.reads(platform.ctx, "acme", secret=None, cursor="", limit=10).items == []

    @pytest.mark.parametrize("capabilities", [{"input": True}, {"secrets": ["OTHER"]}])
    def test_what_was_not_granted(self, platform: Platform, capabilities: dict[str, Any]) -> None:
        deploy(platform, "g", **capabilities)
        claim = running(platform, "g")
        with pytest.raises(PermissionDenied):
            grants.entry(platform.ctx, claim, K)
        with pytest.raises(PermissionDenied):
            grants.secret(platform.ctx, claim, "TOKEN")

    def test_a_job_of_no_function_is_granted_nothing(self, platform: Platform) -> None:
        claim = platform.running()
        with pytest.raises(PermissionDenied):
            grants.entry(platform.ctx, claim, K)
        with pytest.raises(PermissionDenied):
            grants.secret(platform.ctx, claim, "TOKEN")

    def test_what_was_granted_later_is_not_the_jobs(self, platform: Platform) -> None:
        deploy(platform, "g", secrets=["OTHER"])
        claim = running(platform, "g")
        deploy(platform, "g", secrets=["OTHER", "TOKEN"])
        with pytest.raises(PermissionDenied):
            grants.secret(platform.ctx, claim, "TOKEN")

    @pytest.mark.parametrize("key", [b"", b"x" * (bounds.KV_KEY_MAX + 1)])
    def test_a_key_has_its_bounds(self, platform: Platform, key: bytes) -> None:
        with pytest.raises(InvalidRequest):
            grants.entry(platform.ctx, running(platform), key)

    @pytest.mark.parametrize(
        "other",
        [
            lambda claim: replace(claim, attempt=claim.attempt + 1),
            lambda claim: replace(claim, lessee="another"),
        ],
    )
    def test_a_wrong_fence_or_lessee(self, platform: Platform, other: Any) -> None:
        claim = other(running(platform))
        self._refused(platform, claim)

    def test_no_such_job(self, platform: Platform) -> None:
        with pytest.raises(NotFound):
            grants.entry(platform.ctx, Claim("j-nowhere", 1, LESSEE), K)

    def test_after_the_lease_has_run_out_although_nobody_has_noticed(self, platform: Platform) -> None:
        claim = running(platform)
        platform.clock.advance(platform.ctx.policy.lease_ms)
        assert platform.job(claim.job).state is State.RUNNING
        self._refused(platform, claim)

    def test_after_its_end(self, platform: Platform) -> None:
        claim = running(platform)
        end(platform, claim)
        self._refused(platform, claim)

    def test_for_a_stale_attempt_nothing_is_on_record(self, platform: Platform) -> None:
        """The attempt loses its job between the look at its lease and the record."""
        claim = running(platform)

        class Loses(FaultyStore):
            def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
                if any(keys.is_audit(each.key) for each in operations):
                    end(platform, claim)
                super().transact(operations, sends)

        ctx = replace(platform.ctx, store=Loses(platform.store, scripted()))
        with pytest.raises(StaleFence):
            grants.secret(ctx, claim, "TOKEN")
        assert secrets.reads(platform.ctx, "acme", secret=None, cursor="", limit=10).items == []

    def _refused(self, platform: Platform, claim: Claim) -> None:
        with pytest.raises(StaleFence):
            grants.entry(platform.ctx, claim, K)
        with pytest.raises(StaleFence):
            grants.secret(platform.ctx, claim, "TOKEN")
        assert secrets.reads(platform.ctx, "acme", secret=None, cursor="", limit=10).items == []


class TestWrites:
    def test_they_are_there_with_the_outcome_and_once(self, platform: Platform) -> None:
        claim = running(platform)
        touched = bump(platform, claim)
        assert stored(platform) is None
        assert end(platform, claim, touched).state is State.SUCCEEDED
        assert end(platform, claim, touched).state is State.SUCCEEDED  # its answer was lost
        assert stored(platform) == (b"1", 1)

    def test_removed_ones_and_those_that_were_only_read(self, platform: Platform) -> None:
        write(platform, b"1")
        write(platform, b"read", b"r")
        claim = running(platform)
        buffer = kv.Buffer(lambda key, fresh: grants.entry(platform.ctx, claim, key, fresh=fresh))
        buffer.delete(K)
        buffer.get(b"r")
        buffer.get(b"nothing")
        end(platform, claim, buffer.touched())
        assert (stored(platform), stored(platform, b"r")) == (None, (b"read", 1))
        write(platform, b"2")
        assert stored(platform) == (b"2", 2)  # as after any other removal

    @pytest.mark.parametrize("category", ["exit", "trap", "oom", "timeout", "fuel"])
    def test_an_attempt_that_fails_leaves_nothing(self, platform: Platform, category: str) -> None:
        claim = running(platform)
        touched = bump(platform, claim)
        with pytest.raises(InvalidRequest, match="of an end with ok"):
            end(platform, claim, touched, category)
        end(platform, claim, None, category)
        assert stored(platform) is None

    def test_a_losing_attempt_leaves_nothing(self, platform: Platform) -> None:
        first = running(platform)
        touched = bump(platform, first)
        platform.clock.advance(20_000)
        reconcile.reconcile(platform.ctx)
        second = platform.again(first.job)
        with pytest.raises(StaleFence):
            end(platform, first, touched)
        assert stored(platform) is None
        end(platform, second, bump(platform, second))
        with pytest.raises(StaleFence):
            end(platform, first, touched)
        assert stored(platform) == (b"1", 1)

    @pytest.mark.parametrize("noticed", [True, False], ids=["before", "within"])
    def test_who_saw_what_is_no_more_runs_again(self, platform: Platform, *, noticed: bool) -> None:
        claim = running(platform)
        touched = bump(platform, claim)
        ctx = platform.ctx
        if noticed:
            write(platform, b"5")
        else:  # between what is looked at before and the transaction

            class Late(FaultyStore):
                def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
                    if any(keys.is_kv(each.key) for each in operations):
                        write(platform, b"5")
                    super().transact(operations, sends)

            ctx = replace(ctx, store=Late(platform.store, scripted()))
        ended = statements.ended(platform.ctx, claim, Outcome(category=Category.OK))
        tail = [LogEntry(1, "stdout", "x")]
        job = complete.complete(ctx, replace(ended, touched=touched, log_seq=1, entries=tail))
        assert (job.state, job.failures, job.lapses, job.conflicts, job.billed) == (State.RETRYING, 0, 0, 1, "0")
        assert stored(platform) == (b"5", 1)
        assert platform.events(claim.job)[-1] == "retrying"
        with pytest.raises(StaleFence):
            end(platform, claim, touched)
        again = platform.again(claim.job)
        job = end(platform, again, bump(platform, again))
        assert (job.state, job.conflicts) == (State.SUCCEEDED, 0)
        assert stored(platform) == (b"6", 2)

    def test_a_read_alone_conflicts_too(self, platform: Platform) -> None:
        write(platform, b"1", b"limit")
        claim = running(platform)
        seen = grants.entry(platform.ctx, claim, b"limit", fresh=True)
        write(platform, b"0", b"limit")
        assert end(platform, claim, [Touched(b"limit", seen.rev)]).state is State.RETRYING

    def test_one_whose_entries_keep_changing_is_given_up(self, platform: Platform) -> None:
        claim = running(platform)
        for number in range(CONFLICTS_MAX):
            touched = bump(platform, claim)
            write(platform, str(number).encode())
            job = end(platform, claim, touched)
            if number < CONFLICTS_MAX - 1:
                assert job.state is State.RETRYING
                claim = platform.again(claim.job)
        assert (job.state, job.category, job.conflicts) == (State.DEAD, "platform", CONFLICTS_MAX)
        assert job.reason == f"entries of function f changed while it ran, {CONFLICTS_MAX} attempts in a row"

    def test_of_two_that_were_asked_to_stop_none_runs_again(self, platform: Platform) -> None:
        claim = running(platform)
        touched = bump(platform, claim)
        cancel.cancel(platform.ctx, "acme", claim.job)
        write(platform, b"5")
        assert end(platform, claim, touched).state is State.CANCELLED

    def test_a_chunk_that_had_arrived_and_a_conflict_at_once(self, platform: Platform) -> None:
        from hanzo_compute.services import lease

        claim = running(platform)
        lease.append_logs(platform.ctx, claim, 1, entries("a"))
        touched = bump(platform, claim)
        job = end(platform, claim, touched, log_seq=1, entries=entries("a"))
        assert (job.state, stored(platform)) == (State.SUCCEEDED, (b"1", 1))

    def test_several_at_once_each_with_its_own_end(self, platform: Platform) -> None:
        claims = [running(platform) for _ in range(3)]
        ended = []
        for claim in claims:
            touched = bump(platform, claim)
            made = statements.ended(platform.ctx, claim, Outcome(category=Category.OK))
            ended.append(replace(made, touched=touched))
        done = complete.complete_all(platform.ctx, ended)
        assert [each.state.value for each in done if isinstance(each, Job)] == ["succeeded", "retrying", "retrying"]
        assert stored(platform) == (b"1", 1)

    def test_a_commit_whose_answer_was_lost_is_one_commit(self, platform: Platform) -> None:
        claim = running(platform)
        touched = bump(platform, claim)

        class Lost(FaultyStore):
            def transact(self, operations: Sequence[Operation], sends: Sequence[Send] = ()) -> None:
                super().transact(operations, sends)
                if any(keys.is_kv(each.key) for each in operations):
                    raise Unavailable("the answer was lost")

        ended = replace(statements.ended(platform.ctx, claim, Outcome(category=Category.OK)), touched=touched)
        with pytest.raises(Unavailable):
            complete.complete(replace(platform.ctx, store=Lost(platform.store, scripted())), ended)
        assert complete.complete(platform.ctx, ended).state is State.SUCCEEDED
        assert stored(platform) == (b"1", 1)

    def test_without_its_entries_an_ok_is_refused(self, platform: Platform) -> None:
        """It comes from an agent of a release that knows of none: what the function wrote is lost."""
        claim = running(platform)
        with pytest.raises(InvalidRequest, match="must be there"):
            end(platform, claim, None)
        assert platform.job(claim.job).state is State.RUNNING

    def test_a_job_without_kv_writes_no_entries(self, platform: Platform) -> None:
        deploy(platform, "g", input=True)
        for claim in (running(platform, "g"), platform.running()):
            with pytest.raises(InvalidRequest):
                end(platform, claim, [Touched(K, ABSENT, 1, b"v", True)])
            assert end(platform, claim, None).state is State.SUCCEEDED
        assert stored(platform, function="g") is None

    @pytest.mark.parametrize(
        "touched",
        [
            [Touched(b"", ABSENT, 1, b"v", True)],
            [Touched(b"x" * (bounds.KV_KEY_MAX + 1), ABSENT)],
            [Touched(K, ABSENT), Touched(K, ABSENT, 1, b"v", True)],
            [Touched(K, ABSENT, 1, bytes(bounds.KV_VALUE_MAX + 1), True)],
            [Touched(bytes([number]), ABSENT, 1, bytes(bounds.KV_VALUE_MAX), True) for number in range(9)],
            [Touched(bytes([number]), ABSENT) for number in range(bounds.KV_TOUCHED_MAX + 1)],
            [Touched(K, ABSENT, 1, None, True, f"b1-{'0' * 64}")],
        ],
        ids=["no key", "long key", "twice", "large value", "large together", "many", "no such blob"],
    )
    def test_what_no_call_can_leave(self, platform: Platform, touched: list[Touched]) -> None:
        claim = running(platform)
        with pytest.raises(InvalidRequest):
            end(platform, claim, touched)
        assert (platform.job(claim.job).state, stored(platform)) == (State.RUNNING, None)

    def test_large_values_come_as_blobs_of_the_tenant(self, platform: Platform) -> None:
        large = bytes(bounds.KV_VALUE_MAX)
        claim = running(platform)
        foreign = platform.blobs.put("other", large)
        with pytest.raises(InvalidRequest):
            end(platform, claim, [Touched(K, ABSENT, 1, None, True, foreign)])
        too_large = platform.blobs.put("acme", large + b"x")
        with pytest.raises(InvalidRequest):
            end(platform, claim, [Touched(K, ABSENT, 1, None, True, too_large)])
        blob = platform.blobs.put("acme", large)
        end(platform, claim, [Touched(K, ABSENT, 1, None, True, blob)])
        assert stored(platform) == (large, 1)

    @pytest.mark.parametrize("version", [0, 1, 2])
    def test_a_version_that_was_seen_never_comes_again(self, platform: Platform, version: int) -> None:
        """Whatever an agent says, another value has another version."""
        write(platform, b"1")
        write(platform, b"2")
        claim = running(platform)
        end(platform, claim, [Touched(K, 2, version, b"3", True)])
        assert stored(platform) == (b"3", 3)

    def test_all_entries_fit_into_the_transaction_of_an_outcome(self, platform: Platform) -> None:
        claim = running(platform)
        size = bounds.KV_WRITTEN_MAX // bounds.KV_TOUCHED_MAX
        touched = [
            Touched(bytes([number]) * bounds.KV_KEY_MAX, ABSENT, 1, bytes(size), True)
            for number in range(bounds.KV_TOUCHED_MAX)
        ]
        job = end(platform, claim, touched, log_seq=1, entries=entries("x" * 1000))
        assert job.state is State.SUCCEEDED
        assert stored(platform, bytes([39]) * bounds.KV_KEY_MAX) == (bytes(size), 1)
