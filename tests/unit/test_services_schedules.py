"""Schedules: put, look at, delete; and each due time fires each job once, whatever comes between."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from hanzo_compute.adapters.memory import MemoryStore
from hanzo_compute.config import Policy, Pool
from hanzo_compute.errors import Conflict, InvalidRequest, InvalidSpec, NoCapacity, NotFound, Unavailable
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.function import FunctionSpec
from hanzo_compute.model.schedule import Schedule, ScheduleSpec
from hanzo_compute.model.states import State
from hanzo_compute.ports import Delete, Put
from hanzo_compute.services import audit, cancel, firing, functions, read, reconcile, schedules, submit
from tests.support.faults import Fault, FaultyStore
from tests.support.rows import rows_in
from tests.support.stepped import Platform

MINUTE = 60_000
HOUR = 60 * MINUTE
JOB = {"source": {"code": "print(1)", "language": "python"}}


def asked(**fields: Any) -> ScheduleSpec:
    return ScheduleSpec.model_validate({"cron": "*/5 * * * *", "jobs": JOB} | fields)


def put(platform: Platform, name: str = "s", **fields: Any) -> Schedule:
    return schedules.put(platform.ctx, "acme", name, asked(**fields)).schedule


def stored(platform: Platform, name: str = "s") -> Schedule:
    return Schedule.from_record(schedules.find(platform.ctx, "acme", name).body)


def at(platform: Platform, clock: str) -> None:
    """Let it be this time of 2030-01-01."""
    moment = datetime.fromisoformat(f"2030-01-01T{clock}+00:00").astimezone(UTC)
    platform.clock.now_ms_value = int(moment.timestamp()) * 1000


def made(platform: Platform) -> list[tuple[str, str]]:
    """The times and states of all jobs that schedules have made."""
    page = read.jobs(platform.ctx, "acme", state=None, label=None, cursor="", limit=bounds.PAGE_MAX)
    found = [(item["origin"]["at"][11:16], item["state"]) for item in page.items]
    return sorted(found)


def runs(platform: Platform, name: str = "s") -> list[tuple[str, str, int]]:
    items = schedules.runs(platform.ctx, "acme", name).items
    return [(item["at"][11:16], item["status"], len(item["jobs"])) for item in items]


def sound(platform: Platform) -> None:
    """A repair would find nothing."""
    now = platform.clock.now_ms()
    rows = rows_in(platform.commits.database)
    jobs = {row.key.pk.removeprefix("JOB#") for row in rows if row.key.pk.startswith("JOB#")}
    assert list(audit.findings(rows, jobs.__contains__, now, platform.ctx.policy)) == []
    for row in rows:
        assert audit.expected_entries(row) == audit._stated_entries(row), row


@pytest.fixture
def platform() -> Platform:
    made = Platform()
    at(made, "12:00:01")
    reconcile.reconcile(made.ctx)
    return made


class TestPut:
    def test_a_schedule_is_shown_with_its_times(self, platform: Platform) -> None:
        put(platform, cron="30  2 * * *", timezone="Europe/Zurich")
        shown = schedules.get(platform.ctx, "acme", "s")
        assert shown["spec"]["cron"] == "30 2 * * *"
        assert [each[:16] for each in shown["upcoming"]][:2] == ["2030-01-02T01:30", "2030-01-03T01:30"]
        assert ScheduleSpec.model_validate(shown["spec"]) == asked(cron="30 2 * * *", timezone="Europe/Zurich")

    def test_the_same_again_changes_nothing(self, platform: Platform) -> None:
        first = put(platform)
        again = schedules.put(platform.ctx, "acme", "s", asked())
        assert (again.schedule, again.created) == (first, False)

    def test_a_revision_is_compared(self, platform: Platform) -> None:
        put(platform)
        ctx = platform.ctx
        with pytest.raises(Conflict, match="has revision 1, and it was to be created"):
            schedules.put(ctx, "acme", "s", asked(), expect=0)
        with pytest.raises(Conflict, match="has revision 1, not 2"):
            schedules.put(ctx, "acme", "s", asked(), expect=2)
        assert schedules.put(ctx, "acme", "s", asked(cron="0 0 * * *"), expect=1).schedule.revision == 2
        with pytest.raises(Conflict, match="there is no schedule t, not 1"):
            schedules.put(ctx, "acme", "t", asked(), expect=1)
        with pytest.raises(Conflict):
            schedules.delete(ctx, "acme", "s", expect=1)

    def test_another_tenants_is_not_found(self, platform: Platform) -> None:
        put(platform)
        for call in (schedules.get, schedules.runs, schedules.delete):
            with pytest.raises(NotFound):
                call(platform.ctx, "globex", "s")
        assert schedules.schedules(platform.ctx, "globex", cursor="", limit=10).items == []

    def test_each_job_is_checked_and_named(self, platform: Platform) -> None:
        blob = "b1-" + "0" * 64
        jobs = [JOB, {**JOB, "input": {"blob": blob}}, {**JOB, "max_price": {"token": "x", "units": "1"}}]
        with pytest.raises(InvalidSpec) as refused:
            put(platform, jobs=jobs)
        assert [problem.field for problem in refused.value.fields] == ["jobs.1.input.blob", "jobs.2.max_price.token"]

    def test_what_is_too_large_together(self, platform: Platform) -> None:
        large = {"source": {"code": "#" * 60_000, "language": "python"}}
        with pytest.raises(InvalidSpec, match="over 399000 bytes as JSON together"):
            put(platform, jobs=[large] * 7)

    @pytest.mark.parametrize("name", ["", "A", "a#b", "-a", "a" * 64])
    def test_a_bad_name(self, platform: Platform, name: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            put(platform, name)
        assert refused.value.fields[0].field == "name"

    @pytest.mark.parametrize(
        ("fields", "place"),
        [
            ({"cron": "x"}, ("cron",)),
            ({"timezone": "Mars/Base"}, ("timezone",)),
            ({"jobs": []}, ("jobs",)),
            ({"jobs": [JOB] * 21}, ("jobs",)),
            ({"jobs": [JOB, {}]}, ("jobs", 1, "source")),
            ({"missed": "some"}, ("missed",)),
            ({"every": 5}, ("every",)),
        ],
    )
    def test_what_the_form_refuses(self, fields: dict[str, Any], place: tuple[str | int, ...]) -> None:
        with pytest.raises(ValidationError) as refused:
            asked(**fields)
        assert refused.value.errors()[0]["loc"] == place

    def test_a_deadline_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="a deadline is one point in time"):
            asked(jobs={**JOB, "deadline": "2040-01-01T00:00:00Z"})

    def test_only_so_many(self, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(bounds, "SCHEDULES_MAX", 2)
        put(platform, "a")
        put(platform, "b")
        put(platform, "b", paused=True)
        with pytest.raises(Conflict, match="you have 2 schedules"):
            put(platform, "c")

    def test_a_list_has_pages(self, platform: Platform) -> None:
        for name in "cab":
            put(platform, name)
        page = schedules.schedules(platform.ctx, "acme", cursor="", limit=2)
        assert [item["name"] for item in page.items] == ["a", "b"]
        rest = schedules.schedules(platform.ctx, "acme", cursor=page.next_cursor or "", limit=2)
        assert ([item["name"] for item in rest.items], rest.next_cursor) == (["c"], None)

    def test_nothing_is_left_of_a_deleted_one(self, platform: Platform) -> None:
        put(platform)
        for minute in range(5, 55, 5):
            at(platform, f"12:{minute:02}:01")
            reconcile.reconcile(platform.ctx)
        schedules.delete(platform.ctx, "acme", "s")
        assert not [row for row in rows_in(platform.commits.database) if row.key.pk.startswith("SCHEDULE#")]
        assert len(made(platform)) == 10
        at(platform, "13:00:01")
        reconcile.reconcile(platform.ctx)
        assert len(made(platform)) == 10


class TestFiring:
    def test_each_time_once(self, platform: Platform) -> None:
        put(platform, jobs=[JOB, {**JOB, "args": ["2"]}])
        for clock in ("12:04:59", "12:05:01", "12:05:02", "12:06:00", "12:10:30", "12:10:31"):
            at(platform, clock)
            reconcile.reconcile(platform.ctx)
        assert made(platform) == [("12:05", "queued")] * 2 + [("12:10", "queued")] * 2
        assert runs(platform) == [("12:10", "submitted", 2), ("12:05", "submitted", 2)]
        sound(platform)

    def test_a_job_says_where_it_comes_from(self, platform: Platform) -> None:
        put(platform)
        at(platform, "12:05:01")
        reconcile.reconcile(platform.ctx)
        (job_id,) = stored(platform).last_jobs
        assert platform.job(job_id).origin == {"kind": "schedule", "schedule": "s", "at": "2030-01-01T12:05:00.000Z"}

    def test_a_function_gives_what_the_job_does_not(self, platform: Platform) -> None:
        source = {"code": "pass", "language": "python"}
        given = {"args": ["a"], "profile": "deterministic", "resources": {"memory_mib": 64, "fuel": 9}}
        capabilities = {"kv": True, "secrets": ["TOKEN"]}
        spec = FunctionSpec.model_validate({"source": source, "capabilities": capabilities} | given)
        functions.deploy(platform.ctx, "acme", "f", spec)
        put(platform, jobs=[{"source": {"function": "f"}, "resources": {"memory_mib": 32}}])
        at(platform, "12:05:01")
        reconcile.reconcile(platform.ctx)
        job = submit.stored_spec(platform.ctx, stored(platform).last_jobs[0])
        assert job["source"]["function"] == "f@1"
        assert (job["args"], job["profile"]) == (["a"], "deterministic")
        assert job["resources"] == {"memory_mib": 32, "timeout_s": 60, "fuel": 9}
        assert job["source"]["capabilities"]["secrets"] == ["TOKEN"]

    @pytest.mark.parametrize("sends", [True, False])
    def test_what_does_not_fit_one_transaction_takes_several(self, platform: Platform, sends: bool) -> None:
        ctx = platform.ctx
        if sends:
            ctx = replace(ctx, store=MemoryStore(platform.commits, platform.queue))
        labels = {f"l{number}": "x" for number in range(8)}
        put(platform, jobs=[{**JOB, "labels": labels, "args": [str(number)]} for number in range(20)])
        at(platform, "12:05:01")
        reconcile.reconcile(ctx)
        assert len(made(platform)) == 20
        assert runs(platform) == [("12:05", "submitted", 20)]
        sound(platform)

    @pytest.mark.parametrize("sends", [True, False])
    @pytest.mark.parametrize("kind", [Fault.BEFORE, Fault.REPLY_LOST, Fault.CONFLICT])
    @pytest.mark.parametrize("number", range(3))
    def test_a_store_that_fails_at_any_write(self, platform: Platform, number: int, kind: Fault, sends: bool) -> None:
        labels = {f"l{number}": "x" for number in range(8)}
        put(platform, jobs=[{**JOB, "labels": labels, "args": [str(number)]} for number in range(20)])
        at(platform, "12:05:01")
        inner = MemoryStore(platform.commits, platform.queue if sends else None)
        calls, struck = itertools.count(), list[Fault]()

        def choose(method: str, possible: Sequence[Fault]) -> Fault | None:
            strikes = method == "transact" and next(calls) >= number and kind in possible and not struck
            struck.extend([kind] * strikes)
            return kind if strikes else None

        ctx = replace(platform.ctx, store=FaultyStore(inner, choose))
        for _ in range(4):
            with suppress(Unavailable):
                reconcile.reconcile(ctx)
            platform.clock.advance(1)
        assert struck or kind is Fault.CONFLICT
        specs = [platform.store.get(keys.spec(job)) for job in stored(platform).last_jobs]
        assert [record.body["args"] for record in specs if record] == [[str(number)] for number in range(20)]
        assert len(made(platform)) == 20
        assert runs(platform) == [("12:05", "submitted", 20)]

    def test_two_passes_at_once_make_one_run(self, platform: Platform) -> None:
        put(platform)
        at(platform, "12:05:01")
        record = schedules.find(platform.ctx, "acme", "s")
        assert [firing.fire(platform.ctx, record) for _ in range(3)] == [1, 0, 0]
        assert made(platform) == [("12:05", "queued")]

    def test_it_waits_for_nothing_while_it_is_paused(self, platform: Platform) -> None:
        put(platform, paused=True, missed="all")
        at(platform, "12:07:00")
        reconcile.reconcile(platform.ctx)
        assert schedules.get(platform.ctx, "acme", "s")["upcoming"] == []
        put(platform, missed="all")
        at(platform, "12:10:01")
        reconcile.reconcile(platform.ctx)
        assert made(platform) == [("12:10", "queued")]
        sound(platform)

    def test_a_put_that_keeps_the_times_loses_none(self, platform: Platform) -> None:
        put(platform)
        at(platform, "12:05:30")
        put(platform, jobs={**JOB, "args": ["new"]})
        reconcile.reconcile(platform.ctx)
        assert made(platform) == [("12:05", "queued")]
        sound(platform)

    def test_runs_are_remembered_up_to_a_bound(self, platform: Platform) -> None:
        put(platform, cron="* * * * *")
        for minute in range(1, 59):
            at(platform, f"12:{minute:02}:01")
            reconcile.reconcile(platform.ctx)
        found = runs(platform)
        assert len(found) == bounds.SCHEDULE_RUNS_KEPT
        assert [found[0][0], found[-1][0]] == ["12:58", "12:09"]


class TestMissed:
    def after_an_hour(self, platform: Platform, missed: str, cron: str = "*/5 * * * *") -> list[tuple[str, str, int]]:
        put(platform, cron=cron, missed=missed)
        at(platform, "13:03:30")
        reconcile.reconcile(platform.ctx)
        reconcile.reconcile(platform.ctx)
        sound(platform)
        return runs(platform)

    def test_skip(self, platform: Platform) -> None:
        assert self.after_an_hour(platform, "skip") == [("12:05", "missed", 0)]
        assert schedules.runs(platform.ctx, "acme", "s").items[0]["until"] == "2030-01-01T13:00:00.000Z"
        at(platform, "13:05:01")
        reconcile.reconcile(platform.ctx)
        assert made(platform) == [("13:05", "queued")]

    def test_once(self, platform: Platform) -> None:
        assert self.after_an_hour(platform, "once") == [("13:00", "submitted", 1), ("12:05", "missed", 0)]
        assert schedules.runs(platform.ctx, "acme", "s").items[1]["until"] == "2030-01-01T12:55:00.000Z"

    def test_all(self, platform: Platform) -> None:
        assert len(self.after_an_hour(platform, "all")) == 12
        assert made(platform) == [(f"{12 + m // 60}:{m % 60:02}", "queued") for m in range(5, 61, 5)]

    def test_all_has_a_bound(self, platform: Platform) -> None:
        put(platform, cron="* * * * *", missed="all")
        at(platform, "14:00:30")
        for _ in range(4):
            reconcile.reconcile(platform.ctx)
        assert len(made(platform)) == bounds.MISSED_MAX
        assert [made(platform)[0][0], made(platform)[-1][0]] == ["12:21", "14:00"]
        sound(platform)

    def test_what_is_late_by_less_than_two_minutes_is_not_missed(self, platform: Platform) -> None:
        put(platform, cron="* * * * *")
        at(platform, "12:02:59")
        reconcile.reconcile(platform.ctx)
        assert made(platform) == [("12:01", "queued"), ("12:02", "queued")]

    def test_what_is_in_time_makes_up_for_what_was_missed(self, platform: Platform) -> None:
        found = self.after_an_hour(platform, "once", "* * * * *")
        assert found == [("13:03", "submitted", 1), ("13:02", "submitted", 1), ("12:01", "missed", 0)]

    def test_a_single_time_that_was_missed(self, platform: Platform) -> None:
        assert self.after_an_hour(platform, "once", "30 12 * * *") == [("12:30", "submitted", 1)]


class TestOverlap:
    def test_no_run_while_the_one_before_goes_on(self, platform: Platform) -> None:
        put(platform, overlap="skip", jobs=[JOB, {**JOB, "args": ["2"]}])
        for clock in ("12:05:01", "12:10:01"):
            at(platform, clock)
            reconcile.reconcile(platform.ctx)
        first, second = stored(platform).last_jobs
        cancel.cancel(platform.ctx, "acme", first)
        at(platform, "12:15:01")
        reconcile.reconcile(platform.ctx)
        cancel.cancel(platform.ctx, "acme", second)
        at(platform, "12:20:01")
        reconcile.reconcile(platform.ctx)
        assert [run[:2] for run in runs(platform)] == [
            ("12:20", "submitted"),
            ("12:15", "overlapped"),
            ("12:10", "overlapped"),
            ("12:05", "submitted"),
        ]
        assert second in schedules.runs(platform.ctx, "acme", "s").items[1]["errors"][0]["message"]
        assert "last_error" not in schedules.get(platform.ctx, "acme", "s")


class TestRefusals:
    def test_a_job_that_is_no_longer_acceptable_does_not_hold_up_the_others(self, platform: Platform) -> None:
        blob = platform.blobs.put("acme", b"x")
        put(platform, jobs=[{**JOB, "input": {"blob": blob}}, JOB])
        platform.blobs._blobs.clear()
        for clock in ("12:05:01", "12:10:01"):
            at(platform, clock)
            reconcile.reconcile(platform.ctx)
        assert runs(platform) == [("12:10", "partial", 1), ("12:05", "partial", 1)]
        error = schedules.get(platform.ctx, "acme", "s")["last_error"]
        assert (error["job"], error["code"], error["at"]) == (0, "invalid_spec", "2030-01-01T12:10:00.000Z")
        assert "you have no blob of this id" in error["message"]
        platform.blobs.put("acme", b"x")
        at(platform, "12:15:01")
        reconcile.reconcile(platform.ctx)
        assert runs(platform)[0] == ("12:15", "submitted", 2)
        assert "last_error" not in schedules.get(platform.ctx, "acme", "s")

    def full(self) -> Platform:
        platform = Platform(Policy(tenant_waiting_max=2))
        at(platform, "12:00:01")
        put(platform, jobs=[{**JOB, "args": [str(number)]} for number in range(3)])
        return platform

    def test_too_many_that_wait_are_tried_again(self) -> None:
        platform = self.full()
        at(platform, "12:05:01")
        reconcile.reconcile(platform.ctx)
        assert len(made(platform)) == 2
        shown = schedules.get(platform.ctx, "acme", "s")
        assert (len(shown["submitting"]["jobs"]), shown["last_error"]["code"]) == (2, "rate_limited")
        sound(platform)
        cancel.cancel(platform.ctx, "acme", shown["submitting"]["jobs"][0])
        for _ in range(8):
            platform.clock.advance(1_000)
            reconcile.reconcile(platform.ctx)
        assert runs(platform) == [("12:05", "submitted", 3)]
        assert "submitting" not in schedules.get(platform.ctx, "acme", "s")

    def test_and_given_up_when_the_next_time_is_due(self) -> None:
        platform = self.full()
        for clock in ("12:05:01", "12:09:59", "12:10:01", "12:10:02"):
            at(platform, clock)
            reconcile.reconcile(platform.ctx)
        assert runs(platform) == [("12:05", "partial", 2)]
        assert schedules.get(platform.ctx, "acme", "s")["submitting"] == {"at": "2030-01-01T12:10:00.000Z", "jobs": []}
        sound(platform)

    def test_a_put_cuts_short_what_waits(self) -> None:
        platform = self.full()
        at(platform, "12:05:01")
        reconcile.reconcile(platform.ctx)
        put(platform, paused=True)
        (run,) = schedules.runs(platform.ctx, "acme", "s").items
        assert run["status"] == "partial"
        assert run["errors"][-1]["message"] == "the schedule was changed: 1 jobs were not submitted"
        sound(platform)

    def test_jobs_that_are_lost_are_told_and_nothing_else_stops(self, platform: Platform) -> None:
        put(platform)
        put(platform, "t")
        platform.store.transact([_delete(platform)])
        at(platform, "12:05:01")
        reconcile.reconcile(platform.ctx)
        assert runs(platform) == [("12:05", "failed", 0)]
        assert runs(platform, "t") == [("12:05", "submitted", 1)]

    def test_no_pool_refuses_the_put(self) -> None:
        platform = Platform(Policy(pools=(Pool("k", frozenset({"kubernetes"})),)))
        with pytest.raises(NoCapacity):
            put(platform)


def _delete(platform: Platform) -> Any:

    return Delete(keys.schedule_spec("acme", "s", stored(platform).spec))


class TestClock:
    def test_set_forward_by_a_day_fires_once_or_not_at_all(self, platform: Platform) -> None:
        put(platform, "skips")
        put(platform, "once", missed="once")
        platform.clock.advance(24 * HOUR + 3 * MINUTE)
        reconcile.reconcile(platform.ctx)
        assert (len(runs(platform, "skips")), stored(platform, "skips").last_jobs) == (1, ())
        assert len(stored(platform, "once").last_jobs) == 1
        assert len(made(platform)) == 1

    def test_set_back_by_an_hour_repeats_no_time(self, platform: Platform) -> None:
        put(platform)
        at(platform, "12:05:01")
        reconcile.reconcile(platform.ctx)
        platform.clock.advance(2 * MINUTE)
        reconcile.reconcile(platform.ctx)
        for clock in ("11:07:01", "11:10:01", "12:05:02", "12:10:01"):
            at(platform, clock)
            reconcile.reconcile(platform.ctx)
        assert [time for time, _ in made(platform)] == ["12:05", "12:10"]

    def test_a_clock_that_was_a_day_ahead_does_not_silence_it_for_a_day(self, platform: Platform) -> None:
        platform.clock.advance(24 * HOUR)
        put(platform)
        platform.clock.advance(5 * MINUTE)
        reconcile.reconcile(platform.ctx)
        platform.clock.advance(2 * MINUTE)
        reconcile.reconcile(platform.ctx)
        at(platform, "12:07:30")
        assert reconcile.reconcile(platform.ctx)["schedules_brought_forward"] == 1
        at(platform, "12:10:01")
        reconcile.reconcile(platform.ctx)
        assert [time for time, _ in made(platform)] == ["12:05", "12:10"]
        assert platform.job(stored(platform).last_jobs[0]).state is State.QUEUED
        sound(platform)

    def test_what_was_refused_does_not_wait_for_a_clock_that_was_set_back(self) -> None:
        platform = TestRefusals().full()
        at(platform, "12:05:01")
        reconcile.reconcile(platform.ctx)
        platform.clock.advance(MINUTE)
        reconcile.reconcile(platform.ctx)
        cancel.cancel(platform.ctx, "acme", stored(platform).firing.jobs[0])  # type: ignore[union-attr]
        at(platform, "11:05:01")
        reconcile.reconcile(platform.ctx)
        platform.clock.advance(9_000)
        reconcile.reconcile(platform.ctx)
        assert runs(platform) == [("12:05", "submitted", 3)]


def test_a_repair_finds_what_broke(platform: Platform) -> None:
    schedule = put(platform)
    jobs = keys.schedule_spec("acme", "s", schedule.spec)

    broken = replace(schedule, due_ms=None)
    platform.store.transact(
        [
            Put(keys.schedule("acme", "s"), broken.record(), index=schedules.index(broken)),
            Put(keys.schedule_spec("acme", "s", "other"), {"jobs": []}),
            Put(keys.schedule_run("acme", "gone", 0), {}),
            Delete(jobs),
        ]
    )
    found = list(audit.findings(rows_in(platform.commits.database), lambda _: True, platform.clock.now_ms(), Policy()))
    assert [(finding.check, finding.found) for finding in found] == [
        ("orphan", "it belongs to no schedule"),
        ("schedule", "its jobs are lost"),
        ("schedule", "it has jobs that are not its own"),
        ("schedule", "nothing looks at it when it is due"),
    ]
    for finding in found:
        if finding.operations:
            platform.store.transact(list(finding.operations))
    assert stored(platform).due_ms == schedule.due_ms
