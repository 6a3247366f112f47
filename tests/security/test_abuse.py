"""What a tenant, an agent or a stranger tries, and what the others notice of it: nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3

from hanzo_compute import wiring
from hanzo_compute.security.authorizer import Role
from tests.support import statements
from tests.support.live import Platform, until

SOURCE = {"code": "print(1)", "language": "python"}


class Caller:
    """Raw HTTP with a key."""

    def __init__(self, platform: Platform, key: str | None = None) -> None:
        self._url = platform.url
        self._pool = urllib3.PoolManager(retries=False)
        self._headers = {"Authorization": f"Bearer {key or platform.key}", "Content-Type": "application/json"}

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = self._pool.request(method, self._url + path, body=data, headers=self._headers | headers, timeout=60)
        return answer.status, answer.json()


@pytest.fixture
def call(platform: Platform) -> Caller:
    return Caller(platform)


@pytest.mark.parametrize(
    "spec",
    [
        {"source": SOURCE, "env": {str(n): 1 for n in range(60_000)}},
        {"source": SOURCE, "labels": {f"A{n}": 1 for n in range(60_000)}},
        {"source": SOURCE, "args": [1] * 90_000},
        {"source": SOURCE} | {f"unknown{n}": 1 for n in range(40_000)},
    ],
    ids=["env", "labels", "args", "unknown"],
)
def test_a_refusal_is_small(call: Caller, spec: dict[str, Any]) -> None:
    """What is refused must not cost more than what is accepted: neither its answer nor its time for others."""
    status, problem = call("POST", "/v1/validate", spec)
    assert status == 400
    assert len(problem["errors"]) <= 20
    assert len(json.dumps(problem)) < 20_000


def test_many_mistakes_are_told_to_a_bound(call: Caller) -> None:
    status, problem = call("POST", "/v1/validate", {"source": SOURCE} | {f"unknown{n}": 1 for n in range(500)})
    assert (status, len(problem["errors"])) == (400, 20)


def test_refused_requests_do_not_make_others_lose_their_jobs(platform: Platform, call: Caller) -> None:
    client = platform.client()
    sleeper = {"code": "import time\nfor _ in range(60): time.sleep(0.1)\n", "language": "python"}
    job = client.submit({"source": sleeper}).job["id"]
    bomb = {"source": SOURCE, "env": {str(n): 1 for n in range(60_000)}}
    stranger = Caller(platform, platform.tenant("noisy"))
    noise = [threading.Thread(target=stranger, args=("POST", "/v1/validate", bomb)) for _ in range(16)]
    for each in noise:
        each.start()
    for each in noise:
        each.join(60)
    assert client.wait(job, timeout_s=200)["state"] == "succeeded"
    assert [event["type"] for event in client.events(job)] == ["submitted", "placed", "running", "succeeded"]


def test_a_spec_that_grows_when_it_is_stored_is_refused(call: Caller) -> None:
    full = "\x01" * 65_536
    body = {"source": {"code": full, "language": "python"}, "input": {"inline": full}}
    for path in ("/v1/validate", "/v1/jobs"):
        status, problem = call("POST", path, body)
        assert (status, problem["errors"][0]["code"]) == (400, "too_large")


def test_a_key_that_comes_twice_is_refused(call: Caller) -> None:
    body = b'{"source": {"code": "1", "language": "python"}, "log_limit": 2048, "log_limit": 4096}'
    status, problem = call("POST", "/v1/jobs", body)
    assert (status, problem["errors"][0]["field"]) == (400, "(body)")
    assert "twice" in problem["detail"]


@pytest.mark.parametrize(
    "deadline", ["20301122T140000Z", "2030-11-22 14:00:00+00:00", "2030-11-22T14:00:00+00:00:30", "2030-11-22T14:00:00"]
)
def test_a_deadline_is_rfc_3339(call: Caller, deadline: str) -> None:
    status, problem = call("POST", "/v1/validate", {"source": SOURCE, "deadline": deadline})
    assert (status, problem["errors"][0]["field"]) == (400, "deadline")


def test_an_encoded_slash_reaches_no_other_route(platform: Platform, call: Caller) -> None:
    job = platform.client().submit({"source": SOURCE}).job["id"]
    for path in ("result", "events", "logs"):
        assert call("GET", f"/v1/jobs/{job}%2F{path}")[0] == 404


def lease_holder(platform: Platform, job: str) -> str:
    """The name of the agent that has the job."""
    return str(platform.client().get(job)["agent"])


class TestAgents:
    """A runner credential is trusted to run, not to break what others read."""

    @pytest.fixture
    def held(self, platform: Platform) -> Iterator[tuple[Caller, str]]:
        """An agent that holds a job in the platform's own pool, whose slots are all busy."""
        agent = Caller(platform, platform.tenant("platform", Role.RUNNER))
        client = platform.client()
        busy = {"code": "import time\nwhile True: time.sleep(0.05)", "language": "python"}
        keepers = [client.submit({"source": busy}).job["id"] for _ in range(2)]
        until(lambda: all(client.get(keeper)["state"] == "running" for keeper in keepers), 120, "both slots are busy")
        job = client.submit({"source": SOURCE}).job["id"]
        request = {"pool": "local", "agent": "test", "key": statements.want("test").key, "wait_s": 5}
        leases = until(lambda: agent("POST", "/v1/leases", request)[1]["leases"], 120, "it is leased")
        assert leases[0]["job"] == job
        yield agent, job
        for keeper in keepers:
            client.cancel(keeper)

    def test_what_it_hands_in_is_checked(self, held: tuple[Caller, str], platform: Platform) -> None:
        agent, job = held
        good = {"name": "stdout", "size": 1, "inline_base64": "eA=="}
        for outcome in (
            {"category": "ok", "exit_code": 10**30},
            {"category": "ok", "signal": -1},
            {"category": "ok", "outputs": [{**good, "inline_base64": "!!!!"}]},
            {"category": "ok", "outputs": [{**good, "size": 2}]},
            {"category": "ok", "outputs": [{**good, "name": "../../x"}]},
            {"category": "ok", "outputs": [{"name": "stdout", "size": 1}]},
            {"category": "nonsense"},
        ):
            body = {"reports": [{"job": job, "attempt": 1, "outcome": outcome}]}
            status, problem = agent("POST", "/v1/leases/complete", body)
            assert status == 400, outcome
            assert problem["errors"][0]["field"].startswith("reports.0.outcome")
        late = {"at_ms": 2**53, "stream": "stdout", "text": "x"}
        assert agent("POST", f"/v1/leases/{job}/logs", {"attempt": 1, "seq": 1, "entries": [late]})[0] == 400
        assert agent("POST", f"/v1/leases/{job}/heartbeat", {"attempt": True})[0] == 400
        outcome = {"category": "ok", "exit_code": 0, "outputs": [good]}
        report: dict[str, Any] = {"job": job, "attempt": 1, "outcome": outcome}
        lease = agent("GET", f"/v1/leases/{job}?attempt=1", None)[1]
        statement = statements.of_report(lease, outcome, lease_holder(platform, job))
        for wrong in (
            None,
            {"key": "00", "signature": statement["signature"]},
            {"key": statement["key"], "signature": "00" * 64},
            statements.of_report(lease, outcome | {"usage": {"wall_ms": 1}}, lease_holder(platform, job)),
            statements.of_report(lease, outcome, "another"),
            statements.of_report(lease | {"attempt": 2}, outcome, lease_holder(platform, job)),
        ):
            (refused,) = agent("POST", "/v1/leases/complete", {"reports": [report | {"statement": wrong}]})[1][
                "results"
            ]
            assert refused["problem"]["errors"][0]["field"].startswith("statement"), wrong
        for wrong in ({"key": "", "signature": ""}, {"key": statement["key"]}, "x", {**statement, "signature": "x"}):
            assert agent("POST", "/v1/leases/complete", {"reports": [report | {"statement": wrong}]})[0] == 400, wrong
        body = {"reports": [report | {"statement": statement}]}
        assert agent("POST", "/v1/leases/complete", body)[1]["results"] == [{"job": job, "state": "succeeded"}]
        assert platform.client().output(job) == b"x"


def test_complete_twenty_times_at_once_is_one_outcome(platform: Platform) -> None:
    client = platform.client()
    job = client.submit({"source": {"code": "import time\ntime.sleep(3)", "language": "python"}}).job["id"]
    calls = [threading.Thread(target=client.cancel, args=(job,)) for _ in range(20)]
    for each in calls:
        each.start()
    for each in calls:
        each.join(30)
    ended = client.wait(job, timeout_s=200)
    ends = [event["type"] for event in client.events(job) if event["type"] == "cancelled"]
    assert (ended["state"], ends) == ("cancelled", ["cancelled"])
    assert wiring.jobs_client(platform.url, platform.key).get(job)["state"] == "cancelled"
