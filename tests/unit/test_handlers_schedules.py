"""The routes of schedules: real events in, real responses out."""

from __future__ import annotations

from typing import Any

import pytest

from hanzo_compute.adapters.memory import ManualClock
from hanzo_compute.wiring import Container
from schedule.app import handler
from tests.support.handlers import CONTEXT, SPEC, Client

DAILY = {"cron": "0 3 * * *", "timezone": "Europe/Zurich", "jobs": SPEC}


def test_a_schedule_is_created_shown_and_deleted(call: Client) -> None:
    made = call("PUT", "/v1/schedules/nightly", DAILY)
    assert (made.status, made.headers["etag"]) == (201, '"1"')
    assert made.headers["location"] == "/v1/schedules/nightly"
    shown = call("GET", "/v1/schedules/nightly")
    assert shown.headers["etag"] == '"1"'
    assert shown.body["spec"]["jobs"][0]["source"] == SPEC["source"]
    assert len(shown.body["upcoming"]) == 5
    assert shown.body["next_at"] == shown.body["upcoming"][0]
    assert call("PUT", "/v1/schedules/nightly", shown.body["spec"]).headers["etag"] == '"1"'
    listed = call("GET", "/v1/schedules?limit=1").body
    assert [item["name"] for item in listed["items"]] == ["nightly"]
    assert call("DELETE", "/v1/schedules/nightly").body == {"name": "nightly", "deleted": True}
    assert call("DELETE", "/v1/schedules/nightly").status == 404
    assert call("GET", "/v1/schedules").body == {"items": [], "next_cursor": None}


def test_a_revision_is_asked_for(call: Client) -> None:
    assert call("PUT", "/v1/schedules/s", DAILY, if_none_match="*").status == 201
    again = call("PUT", "/v1/schedules/s", DAILY, if_none_match="*")
    assert (again.status, again.body["code"], again.body["revision"]) == (409, "conflict", 1)
    changed = DAILY | {"paused": True}
    assert call("PUT", "/v1/schedules/s", changed, if_match='"1"').body["revision"] == 2
    assert call("PUT", "/v1/schedules/s", DAILY, if_match='"1"').status == 409
    assert call("DELETE", "/v1/schedules/s", if_match='"1"').status == 409
    assert call("DELETE", "/v1/schedules/s", if_match="2").status == 200


@pytest.mark.parametrize(
    ("headers", "field"),
    [({"if_match": "x"}, "If-Match"), ({"if_none_match": "3"}, "If-None-Match")],
)
def test_a_revision_that_is_none(call: Client, headers: dict[str, str], field: str) -> None:
    refused = call("PUT", "/v1/schedules/s", DAILY, **headers)
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, field)


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"cron": "0 25 * * *"}, "invalid_request", "cron"),
        ({"timezone": "Europe/Bern"}, "invalid_request", "timezone"),
        ({"jobs": [SPEC, {**SPEC, "agrs": []}]}, "invalid_request", "jobs.1.agrs"),
        ({"jobs": {**SPEC, "webhook": "x"}}, "not_supported", "jobs.0.webhook"),
        ({"jobs": {**SPEC, "deadline": "2040-01-01T00:00:00Z"}}, "invalid_request", "jobs.0.deadline"),
        ({"jobs": {**SPEC, "input": {"blob": "b1-" + "0" * 64}}}, "invalid_spec", "jobs.0.input.blob"),
        ({"every": 1}, "invalid_request", "every"),
    ],
)
def test_what_is_refused_names_its_field(call: Client, change: dict[str, Any], code: str, field: str) -> None:
    refused = call("PUT", "/v1/schedules/s", DAILY | change)
    assert (refused.status, refused.body["code"]) == (400, code)
    assert refused.body["errors"][0]["field"] == field


def test_an_unknown_field_of_a_job_is_guessed(call: Client) -> None:
    refused = call("PUT", "/v1/schedules/s", DAILY | {"jobs": [{**SPEC, "agrs": []}]})
    assert refused.body["errors"][0]["hint"] == "did you mean jobs.0.args?"


def test_another_tenants_name_is_not_found(call: Client, other: Client) -> None:
    call("PUT", "/v1/schedules/s", DAILY)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/runs")):
        assert other(method, f"/v1/schedules/s{path}").status == 404
    assert other("PUT", "/v1/schedules/s", DAILY | {"paused": True}).status == 201
    assert call("GET", "/v1/schedules/s").body["paused"] is False


def test_an_agent_may_not(agent: Client) -> None:
    assert agent("PUT", "/v1/schedules/s", DAILY).status == 403


def test_the_scheduled_function_submits_what_is_due(call: Client, container: Container) -> None:
    assert isinstance(container.clock, ManualClock)
    call("PUT", "/v1/schedules/s", DAILY | {"cron": "* * * * *"})
    container.clock.advance(61_000)
    handler({}, CONTEXT)
    (run,) = call("GET", "/v1/schedules/s/runs").body["items"]
    assert run["status"] == "submitted"
    job = call("GET", f"/v1/jobs/{run['jobs'][0]}").body
    assert job["origin"] == {"kind": "schedule", "schedule": "s", "at": run["at"]}
