"""The routes by which agents read entries and secrets for a job, and hand in what it left of them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from hanzo_compute.security.authorizer import Role
from hanzo_compute.services import kv, secrets
from hanzo_compute.wiring import Container
from tests.support.handlers import A1, Client, hand_in, place

KEY = base64.b64encode(b"k").decode()
GRANTED = {"kv": True, "secrets": ["TOKEN"]}


def running(container: Container, call: Client, agent: Client, **capabilities: Any) -> str:
    """A job of a function, leased."""
    spec = {"source": {"code": "pass", "language": "python"}, "capabilities": capabilities or GRANTED}
    assert call("PUT", "/v1/functions/f", spec).status == 201
    secrets.put(container, "t1", "TOKEN", b"t0p\xff")
    job = str(call("POST", "/v1/jobs", {"source": {"function": "f"}}).body["id"])
    place(container)
    (lease,) = agent("POST", "/v1/leases", {"pool": "local", "agent": "a1", "key": A1}).body["leases"]
    assert (lease["job"], lease["call"]) == (job, job)
    return job


def test_an_entry_is_read_and_written_with_the_outcome(container: Container, call: Client, agent: Client) -> None:
    job = running(container, call, agent)
    asked = {"attempt": 1, "key_base64": KEY}
    seen = agent("POST", f"/v1/leases/{job}/entries", asked)
    assert (seen.status, seen.body) == (200, {"rev": 0, "version": 0, "value_base64": None})
    left = {"key_base64": KEY, "rev": 0, "changed": True, "version": 1, "value_base64": "AP8="}
    assert hand_in(agent, job, {"category": "ok", "exit_code": 0}, kv=[left]) == {"state": "succeeded"}
    assert call("GET", "/v1/functions/f/kv/k").body["value_base64"] == "AP8="
    assert kv.Session(container, "t1", "f", fresh=True).get(b"k") == (b"\x00\xff", 1)
    refused = agent("POST", f"/v1/leases/{job}/entries", asked)
    assert (refused.status, refused.body["code"]) == (409, "stale_fence")


def test_a_secret_is_given_and_on_record(container: Container, call: Client, agent: Client) -> None:
    job = running(container, call, agent)
    found = agent("POST", f"/v1/leases/{job}/secrets", {"attempt": 1, "name": "TOKEN"})
    assert (found.status, found.body) == (200, {"value_base64": "dDBw/w=="})
    assert found.headers["cache-control"] == "no-store"
    (read,) = call("GET", "/v1/audit").body["items"]
    assert (read["function"], read["secret"], read["call"]) == ("f@1", "TOKEN", job)


def test_who_does_not_hold_the_lease_is_refused(container: Container, call: Client, agent: Client) -> None:
    job = running(container, call, agent)
    thief = Client(container, "someone", Role.RUNNER)
    for path, body in (("entries", {"key_base64": KEY}), ("secrets", {"name": "TOKEN"})):
        for who, attempt in ((thief, 1), (agent, 2)):
            refused = who("POST", f"/v1/leases/{job}/{path}", body | {"attempt": attempt})
            assert (refused.status, refused.body["code"]) == (409, "stale_fence")
        owner = call("POST", f"/v1/leases/{job}/{path}", body | {"attempt": 1})
        assert (owner.status, owner.body["code"]) == (403, "permission_denied")
        assert agent("POST", f"/v1/leases/j-nowhere/{path}", body | {"attempt": 1}).status == 404
    assert call("GET", "/v1/audit").body["items"] == []


def test_what_was_not_granted_is_refused(container: Container, call: Client, agent: Client) -> None:
    job = running(container, call, agent, input=True)
    for path, body in (("entries", {"key_base64": KEY}), ("secrets", {"name": "TOKEN"})):
        refused = agent("POST", f"/v1/leases/{job}/{path}", body | {"attempt": 1})
        assert (refused.status, refused.body["code"]) == (403, "permission_denied")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("entries", {}),
        ("entries", {"key_base64": ""}),
        ("entries", {"key_base64": "a"}),
        ("entries", {"key_base64": "A" * 1000}),
        ("entries", {"key_base64": KEY, "fresh": "yes"}),
        ("entries", {"key_base64": KEY, "function": "g"}),
        ("secrets", {"name": ""}),
        ("secrets", {"name": "../x"}),
        ("secrets", {"name": "a" * 65}),
        ("secrets", {"name": "TOKEN", "tenant": "t2"}),
    ],
)
def test_a_bad_request(container: Container, call: Client, agent: Client, path: str, body: dict[str, Any]) -> None:
    job = running(container, call, agent)
    refused = agent("POST", f"/v1/leases/{job}/{path}", body | {"attempt": 1})
    assert (refused.status, refused.body["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    "left",
    [
        [{"key_base64": KEY, "rev": 0, "value_base64": "AA=="}],
        [{"key_base64": KEY, "rev": 0, "changed": True, "value_base64": "AA==", "blob": f"b1-{'0' * 64}"}],
        [{"key_base64": KEY, "rev": -1}],
        [{"key_base64": KEY, "rev": True}],
        [{"key_base64": KEY, "rev": 0, "changed": True, "value_base64": "A" * 400_000}],
        [{"key_base64": base64.b64encode(bytes([number])).decode(), "rev": 0} for number in range(41)],
    ],
)
def test_bad_entries(container: Container, call: Client, agent: Client, left: list[dict[str, Any]]) -> None:
    job = running(container, call, agent)
    report = {"job": job, "attempt": 1, "outcome": {"category": "ok"}, "kv": left}
    refused = agent("POST", "/v1/leases/complete", {"reports": [report]})
    assert (refused.status, refused.body["code"]) == (400, "invalid_request")


def test_an_agent_of_an_earlier_release_cannot_lose_them(container: Container, call: Client, agent: Client) -> None:
    job = running(container, call, agent)
    refused = hand_in(agent, job, {"category": "ok", "exit_code": 0})["problem"]
    assert (refused["status"], refused["errors"][0]["field"]) == (400, "kv")
    assert call("GET", f"/v1/jobs/{job}").body["state"] == "running"
