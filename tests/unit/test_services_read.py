"""What tenants read: pages, cursors, results, outputs, logs, and nothing of each other."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from hanzo_compute.errors import Conflict, InvalidRequest, NotFound
from hanzo_compute.model.outcome import Category, Outcome, Output
from hanzo_compute.model.states import State
from hanzo_compute.services import cancel, complete, lease, read
from tests.support import statements
from tests.support.stepped import Platform, entries


def listed(platform: Platform, tenant: str = "acme", **query: Any) -> tuple[list[str], str | None]:
    asked: dict[str, Any] = {"state": None, "label": None, "cursor": "", "limit": 100} | query
    page = read.jobs(platform.ctx, tenant, **asked)
    return [item["id"] for item in page.items], page.next_cursor


def test_a_list_is_newest_first_and_goes_on_at_its_cursor() -> None:
    platform = Platform()
    jobs = []
    for _ in range(5):
        jobs.append(platform.submitted())
        platform.clock.advance(1)
    platform.submitted("globex")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        ids, cursor = listed(platform, limit=2, cursor=cursor)
        assert len(ids) <= 2
        seen += ids
    assert seen == jobs[::-1]


def test_a_list_by_state_and_by_label() -> None:
    platform = Platform()
    red, blue = platform.submitted(labels={"team": "red"}), platform.submitted(labels={"team": "blue"})
    other = platform.submitted("globex", labels={"team": "red"})
    cancel.cancel(platform.ctx, "acme", blue)
    assert listed(platform, state=State.QUEUED) == ([red], None)
    assert listed(platform, state=State.CANCELLED) == ([blue], None)
    assert listed(platform, label="team=red") == ([red], None)
    assert listed(platform, label="team=red", state=State.CANCELLED) == ([], None)
    assert listed(platform, "globex", label="team=red") == ([other], None)


def test_a_page_by_label_may_be_short_and_still_go_on() -> None:
    platform = Platform()
    for number in range(3):
        job_id = platform.submitted(labels={"team": "red"})
        platform.clock.advance(1)
        if number:
            cancel.cancel(platform.ctx, "acme", job_id)
    ids, cursor = listed(platform, label="team=red", state=State.QUEUED, limit=2)
    assert ids == []
    assert cursor is not None
    assert len(listed(platform, label="team=red", state=State.QUEUED, cursor=cursor)[0]) == 1


@pytest.mark.parametrize("label", ["", "team", "Team=red", "team=red=blue", "team=a b"])
def test_a_label_filter_must_look_like_one(label: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        listed(Platform(), label=label)
    assert refused.value.fields[0].field == "label"


@pytest.mark.parametrize("cursor", ["!", "x", "ÿ", base64.urlsafe_b64encode(b"j-1").decode(), "A" * 500])
def test_a_cursor_that_no_list_gave_is_refused(cursor: str) -> None:
    platform = Platform()
    job_id = platform.submitted()
    for call in (lambda: listed(platform, cursor=cursor), lambda: events(platform, job_id, cursor=cursor)):
        with pytest.raises(InvalidRequest) as refused:
            call()
        assert refused.value.fields[0].field == "cursor"


def events(platform: Platform, job_id: str, cursor: str = "", limit: int = 100) -> read.Page:
    return read.events(platform.ctx, "acme", job_id, cursor=cursor, limit=limit)


def test_events_come_oldest_first_in_pages() -> None:
    platform = Platform()
    claim = platform.running()
    platform.end(claim)
    first = events(platform, claim.job, limit=3)
    assert first.next_cursor is not None
    rest = events(platform, claim.job, cursor=first.next_cursor)
    assert [item["type"] for item in first.items + rest.items] == ["submitted", "placed", "running", "succeeded"]
    assert [item["seq"] for item in first.items + rest.items] == [1, 2, 3, 4]
    assert first.items[2] == {
        "seq": 3,
        "at": "2023-11-14T22:13:20.000Z",
        "type": "running",
        "attempt": 1,
        "data": {"agent": "agent-0"},
    }
    assert rest.next_cursor is None


def test_a_job_shows_its_spec_and_the_outcome_of_its_last_attempt() -> None:
    platform = Platform()
    claim = platform.running(args=["a"])
    assert "outcome" not in read.job(platform.ctx, "acme", claim.job)
    platform.end(claim, exit_code=0)
    shown = read.job(platform.ctx, "acme", claim.job)
    assert (shown["spec"]["args"], shown["outcome"]["category"], shown["exit_code"]) == (["a"], "ok", 0)


def test_a_result_is_there_when_the_job_has_ended() -> None:
    platform = Platform()
    claim = platform.running()
    for ask in (read.result, read.outputs, read.ended):
        with pytest.raises(Conflict) as refused:
            ask(platform.ctx, "acme", claim.job)  # type: ignore[operator]
        assert refused.value.data["state"] == "running"
    platform.end(claim, Category.TRAP, trap="unreachable", detail="wasm trap")
    found = read.result(platform.ctx, "acme", claim.job)
    assert (found["state"], found["reason"], found["outcome"]["trap"]) == ("failed", "wasm trap", "unreachable")


def test_a_job_that_never_ran_has_a_reason_and_no_outcome() -> None:
    platform = Platform()
    job_id = platform.submitted()
    cancel.cancel(platform.ctx, "acme", job_id)
    assert read.result(platform.ctx, "acme", job_id) == {
        "id": job_id,
        "state": "cancelled",
        "outcome": None,
        "reason": "cancelled before it ran",
    }
    assert read.outputs(platform.ctx, "acme", job_id).items == []


def test_large_outputs_are_behind_urls_and_small_ones_inline() -> None:
    platform = Platform()
    claim = platform.running()
    blob = platform.blobs.put("acme", b"large")
    outputs = [Output(name="stdout", size=2, inline_base64="aGk="), Output(name="big", size=5, blob=blob)]
    complete.complete(
        platform.ctx, statements.ended(platform.ctx, claim, Outcome(category=Category.OK, outputs=outputs))
    )
    small, large = read.outputs(platform.ctx, "acme", claim.job).items
    assert small == {"name": "stdout", "size": 2, "inline_base64": "aGk="}
    assert platform.blobs.download(large["url"]) == b"large"
    assert large["url_expires_at"] > "2023"


def test_a_log_is_read_to_its_end_and_is_done_when_the_job_is() -> None:
    platform = Platform()
    claim = platform.running()
    lease.append_logs(platform.ctx, claim, 1, entries("a", "b"))
    first = read.logs(platform.ctx, "acme", claim.job, cursor="", follow=True)
    assert ([entry.text for entry in first.page.entries], first.done) == (["a", "b"], False)
    again = read.logs(platform.ctx, "acme", claim.job, cursor=first.page.cursor, follow=True)
    assert (again.page.entries, again.page.cursor, again.done) == ([], first.page.cursor, False)
    complete.complete(
        platform.ctx, statements.ended(platform.ctx, claim, Outcome(category=Category.OK), 2, entries("c"))
    )
    last = read.logs(platform.ctx, "acme", claim.job, cursor=again.page.cursor, follow=True)
    assert ([entry.text for entry in last.page.entries], last.done) == (["c"], False)
    assert read.logs(platform.ctx, "acme", claim.job, cursor=last.page.cursor, follow=True).done


def test_following_marks_a_job_now_and_then_and_never_one_that_has_ended() -> None:
    platform = Platform()
    claim = platform.running()

    def follow() -> int | None:
        read.logs(platform.ctx, "acme", claim.job, cursor="", follow=True)
        return platform.job(claim.job).followed_until_ms

    first = follow()
    platform.clock.advance(10_000)
    assert follow() == first
    platform.clock.advance(6_000)
    marked = follow()
    assert marked == platform.clock.now_ms() + 30_000
    platform.end(claim)
    platform.clock.advance(20_000)
    assert follow() == marked


@pytest.mark.parametrize(
    "ask",
    [
        lambda ctx, job: read.job(ctx, "acme", job),
        lambda ctx, job: read.events(ctx, "acme", job, cursor="", limit=9),
        lambda ctx, job: read.result(ctx, "acme", job),
        lambda ctx, job: read.outputs(ctx, "acme", job),
        lambda ctx, job: read.logs(ctx, "acme", job, cursor="", follow=True),
    ],
)
def test_nothing_of_another_tenants_job_can_be_read(ask: Callable[..., Any]) -> None:
    platform = Platform()
    claim = platform.running("globex")
    platform.end(claim)
    with pytest.raises(NotFound) as theirs:
        ask(platform.ctx, claim.job)
    with pytest.raises(NotFound) as nobodys:
        ask(platform.ctx, "j-00000000000000000000000000")
    assert theirs.value.message.replace(claim.job, "") == nobodys.value.message.replace(
        "j-00000000000000000000000000", ""
    )
