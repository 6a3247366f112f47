"""The routes of functions on memory twins: real events in, real responses out."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from hanzo_compute.wiring import Container
from tests.support.handlers import A1, Client, hand_in, place

F = "/v1/functions/f"


def of(code: str = "print(1)", **fields: Any) -> dict[str, Any]:
    return {"source": {"code": code, "language": "python"}} | fields


def test_deploy_and_look(call: Client) -> None:
    made = call("PUT", F, of(concurrency=3, public=True))
    assert (made.status, made.headers["location"]) == (201, f"{F}/versions/1")
    assert (made.body["reference"], made.body["aliases"]) == ("f@1", {"live": {"1": 100}})
    shown = call("GET", made.headers["location"]).body
    assert shown == {name: value for name, value in made.body.items() if name != "aliases"}
    assert (shown["spec"]["concurrency"], shown["spec"]["public"]) == (3, True)
    assert call("PUT", F, of(concurrency=3, public=True)).status == 200
    assert call("PUT", f"{F}?publish=false", of("2")).status == 201
    found = call("GET", F).body
    assert (found["newest"], found["versions"], found["aliases"]) == (2, [1, 2], {"live": {"1": 100}})
    assert [(each["alias"], each["weights"], each["by"]) for each in found["history"]] == [
        ("live", {"1": 100}, "deploy")
    ]
    assert [each["version"] for each in call("GET", f"{F}/versions").body["items"]] == [2, 1]
    (listed,) = call("GET", "/v1/functions").body["items"]
    assert (listed["name"], listed["newest"]) == ("f", 2)


def test_aliases(call: Client) -> None:
    for code in "12":
        call("PUT", F, of(code))
    made = call("PUT", f"{F}/aliases/canary", {"weights": {"1": 90, "2": 10}})
    assert (made.status, made.body["weights"], made.body["previous"]) == (200, {"1": 90, "2": 10}, [])
    call("PUT", f"{F}/aliases/canary", {"version": 2})
    assert call("GET", f"{F}/aliases/canary").body["previous"] == [{"1": 90, "2": 10}]
    assert call("POST", f"{F}/rollback", {"alias": "canary"}).body["weights"] == {"1": 90, "2": 10}
    assert call("POST", f"{F}/rollback", {"alias": "canary"}).status == 409
    assert call("POST", f"{F}/rollback", {}).body["weights"] == {"1": 100}
    assert call("DELETE", f"{F}/aliases/canary").status == 200
    assert call("GET", f"{F}/aliases/canary").status == 404
    assert call("DELETE", f"{F}/aliases/live").status == 409


def test_remove(call: Client) -> None:
    call("PUT", F, of())
    assert call("DELETE", F).body == {"name": "f", "removed": True}
    assert [call(*each).status for each in (("DELETE", F), ("GET", F), ("GET", f"{F}/versions/1"))] == [404] * 3
    assert call("PUT", F, of()).body["version"] == 2


def test_another_tenant_gets_the_same_answer_as_for_what_is_not_there(call: Client, other: Client) -> None:
    call("PUT", F, of())
    calls: list[tuple[Any, ...]] = [
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/versions"),
        ("GET", "/versions/1"),
        ("GET", "/aliases/live"),
        ("PUT", "/aliases/live", {"version": 1}),
        ("DELETE", "/aliases/live"),
        ("POST", "/rollback", {}),
    ]
    for method, path, *body in calls:
        theirs, nothing = other(method, F + path, *body), call(method, f"/v1/functions/g{path}", *body)
        assert (theirs.status, nothing.status) == (404, 404)
        assert theirs.body["detail"] == nothing.body["detail"].replace("function g", "function f")
    assert other("GET", "/v1/functions").body["items"] == []
    assert call("GET", F).body["aliases"] == {"live": {"1": 100}}
    refused = other("POST", "/v1/jobs", {"source": {"function": "f"}})
    assert (refused.status, refused.body["errors"][0]["code"]) == (400, "unknown_function")


@pytest.mark.parametrize(
    ("method", "path", "body", "code", "field"),
    [
        ("PUT", "/v1/functions/F", of(), "invalid_request", "name"),
        ("PUT", F, of() | {"sauce": {}}, "invalid_request", "sauce"),
        ("PUT", F, of(capabilities={"http": ["https://10.0.0.1"]}), "invalid_request", "capabilities.http.0"),
        ("PUT", F, of(profile="turbo"), "invalid_request", "profile"),
        ("PUT", F, {"source": {"module": "b1-" + "0" * 64}}, "invalid_request", "source.module"),
        ("PUT", F, [], "invalid_request", "(body)"),
        ("PUT", f"{F}?publish=perhaps", of(), "invalid_request", "publish"),
        ("PUT", f"{F}/aliases/a", {"weights": {"1": 99}}, "invalid_request", "weights"),
        ("PUT", f"{F}/aliases/a", {"version": 9}, "invalid_request", "version"),
        ("GET", f"{F}/versions/live", None, "invalid_request", "version"),
        ("GET", f"{F}/versions?cursor=x", None, "invalid_request", "cursor"),
        ("GET", "/v1/functions?cursor=x", None, "invalid_request", "cursor"),
        ("POST", f"{F}/rollback", {"to": 3}, "invalid_request", "to"),
    ],
)
def test_a_bad_request_names_its_field(call: Client, method: str, path: str, body: Any, code: str, field: str) -> None:
    call("PUT", F, of())
    refused = call(method, path, body)
    assert (refused.status, refused.body["code"], refused.body["errors"][0]["field"]) == (400, code, field)


def test_agents_deploy_nothing(agent: Client) -> None:
    for method, path, body in (("PUT", F, of()), ("GET", F, None), ("DELETE", F, None)):
        assert agent(method, path, body).status == 403


def test_a_function_as_a_job_from_check_to_receipt(call: Client, agent: Client, container: Container) -> None:
    call("PUT", F, of("print(7)", args=["x"]))
    wanted = {"source": {"function": "f"}}
    checked = call("POST", "/v1/validate", wanted).body
    assert checked["spec"]["source"] == of("print(7)")["source"] | {"function": "f@1"}
    assert call("POST", "/v1/quotes", wanted).body["units"] == call("POST", "/v1/quotes", of("print(7)")).body["units"]
    job = call("POST", "/v1/jobs", wanted).body
    assert job["spec_digest"] == checked["digest"]
    place(container)
    (lease,) = agent("POST", "/v1/leases", {"pool": "local", "agent": "a1", "key": A1}).body["leases"]
    assert (lease["spec"]["source"]["code"], lease["spec"]["args"]) == ("print(7)", ["x"])
    outcome = {
        "category": "ok",
        "exit_code": 0,
        "outputs": [{"name": "stdout", "size": 2, "inline_base64": b64(b"7\n")}],
    }
    assert hand_in(agent, job["id"], outcome)["state"] == "succeeded"
    refused = call("POST", "/v1/jobs", {"source": lease["spec"]["source"]})
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, "source")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
