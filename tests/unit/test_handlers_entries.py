"""The routes of key-value entries, of secrets, and of who read them."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest

from hanzo_compute.services import secrets
from hanzo_compute.wiring import Container
from tests.support.handlers import Client

F = "/v1/functions/f"
CODE = {"source": {"code": "print(1)", "language": "python"}}


@pytest.fixture(autouse=True)
def function(call: Client) -> None:
    call("PUT", F, CODE)


def test_write_read_list_and_remove_an_entry(call: Client) -> None:
    made = call("PUT", f"{F}/kv/k", {"value": "ä"})
    assert (made.status, made.body) == (200, {"key": "k", "key_base64url": "aw", "version": 1, "size": 2})
    again = call("PUT", f"{F}/kv/aw?encoding=base64url", {"value_base64": "/w==", "expect": 1})
    assert again.body["version"] == 2
    found = call("GET", f"{F}/kv/k").body
    assert {name: found[name] for name in ("value_base64", "version", "size")} == {
        "value_base64": "/w==",
        "version": 2,
        "size": 1,
    }
    raw = base64.urlsafe_b64encode(b"a/\xff").decode().rstrip("=")
    call("PUT", f"{F}/kv/{raw}?encoding=base64url", {"value": ""})
    listed = call("GET", f"{F}/kv?limit=1").body
    assert ([each["key"] for each in listed["items"]], listed["next_cursor"] is None) == ([None], False)
    rest = call("GET", f"{F}/kv?limit=1&cursor={listed['next_cursor']}").body
    assert ([each["key"] for each in rest["items"]], rest["next_cursor"]) == (["k"], None)
    assert [each["key"] for each in call("GET", f"{F}/kv?prefix=k").body["items"]] == ["k"]
    assert call("DELETE", f"{F}/kv/k?expect=1").status == 409
    assert call("DELETE", f"{F}/kv/k?expect=2").body == {"name": "f", "removed": True}
    assert [call(*each).status for each in (("GET", f"{F}/kv/k"), ("DELETE", f"{F}/kv/k"))] == [404, 404]


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", "/kv/k", {}, "value"),
        ("PUT", "/kv/k", {"value": "a", "value_base64": "YQ=="}, "value"),
        ("PUT", "/kv/k", {"value_base64": "?"}, "value_base64"),
        ("PUT", "/kv/k", {"value": 1}, "value"),
        ("PUT", "/kv/k", {"value": "a", "expect": -2}, "expect"),
        ("PUT", "/kv/k", {"value": "a", "ttl": 1}, "ttl"),
        ("PUT", "/kv/k", {"value": "x" * (256 * 1024 + 1)}, "value"),
        ("PUT", "/kv/k?encoding=hex", {"value": "a"}, "encoding"),
        ("PUT", "/kv/!?encoding=base64url", {"value": "a"}, "key"),
        ("GET", f"/kv/{'k' * 513}", None, "key"),
        ("DELETE", "/kv/k?expect=-2", None, "expect"),
        ("GET", "/kv?cursor=x", None, "cursor"),
        ("GET", "/kv?limit=0", None, "limit"),
    ],
)
def test_a_bad_entry_names_its_field(call: Client, method: str, path: str, body: Any, field: str) -> None:
    refused = call(method, F + path, body)
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, field)


def test_entries_of_another_tenant_are_not_there(call: Client, other: Client, agent: Client) -> None:
    call("PUT", f"{F}/kv/k", {"value": "v"})
    for method, body in (("GET", None), ("PUT", {"value": "x"}), ("DELETE", None)):
        assert other(method, f"{F}/kv/k", body).status == 404
        assert agent(method, f"{F}/kv/k", body).status == 403
    assert other("GET", f"{F}/kv").body["items"] == []
    assert call("GET", f"{F}/kv/k").body["value"] == "v"


def test_a_secret_goes_in_and_never_comes_out(call: Client, other: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = call("PUT", "/v1/secrets/TOKEN", {"value": "hunter2"})
    assert (made.status, made.body["name"], made.body["version"]) == (200, "TOKEN", 1)
    assert call("PUT", "/v1/secrets/TOKEN", {"value_base64": "aHVudGVyMg=="}).body["version"] == 2
    listed = call("GET", "/v1/secrets")
    assert set(listed.body["items"][0]) == {"name", "version", "created_at", "updated_at"}
    assert call("GET", "/v1/secrets/TOKEN").status in (404, 405)
    bad = [
        call("PUT", "/v1/secrets/TOKEN", {"value": "hunter2", "more": "hunter2"}),
        call("PUT", "/v1/secrets/TOKEN", {"value_base64": "hunter2?"}),
        call("PUT", "/v1/secrets/TO-KEN#", {"value": "hunter2"}),
        call("PUT", "/v1/secrets/TOKEN", {"value": ["hunter2"]}),
        call("PUT", "/v1/secrets/TOKEN", {"value": "hunter2" * 10_000}),
        call("PUT", "/v1/secrets/TOKEN", "hunter2"),
    ]
    assert [each.status for each in bad] == [400] * len(bad)
    assert all(each.body["errors"] for each in bad)
    assert "hunter2" not in "".join(each.text for each in (made, listed, *bad)) + caplog.text
    assert other("GET", "/v1/secrets").body["items"] == []
    assert other("DELETE", "/v1/secrets/TOKEN").status == 404
    assert call("DELETE", "/v1/secrets/TOKEN").body == {"name": "TOKEN", "removed": True}
    assert call("DELETE", "/v1/secrets/TOKEN").status == 404


def test_agents_neither_set_nor_list(agent: Client) -> None:
    for method, path, body in (
        ("PUT", "/v1/secrets/A", {"value": "x"}),
        ("GET", "/v1/secrets", None),
        ("DELETE", "/v1/secrets/A", None),
        ("GET", "/v1/audit", None),
    ):
        assert agent(method, path, body).status == 403


def test_reads_are_told_to_their_tenant(call: Client, other: Client, container: Container) -> None:
    for name in ("A", "B"):
        secrets.record_read(container, "t1", "f@1", name, "c-1")
    found = call("GET", "/v1/audit?secret=A").body
    assert [(each["function"], each["secret"], each["call"]) for each in found["items"]] == [("f@1", "A", "c-1")]
    assert len(call("GET", "/v1/audit").body["items"]) == 2
    assert other("GET", "/v1/audit").body["items"] == []
    assert call("GET", "/v1/audit?cursor=x").status == 400
