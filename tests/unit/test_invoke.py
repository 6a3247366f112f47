"""Calls of functions on memory twins: how many at a time, what each end becomes, whose function it is."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

import invoke.app
from hanzo_compute.errors import (
    ComputeError,
    Conflict,
    FunctionFailed,
    FunctionTimedOut,
    NoCapacity,
    NotFound,
    RateLimited,
    Unavailable,
)
from hanzo_compute.front.calls import calls
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.function import AliasSetting, FunctionSpec
from hanzo_compute.ports.sandboxes import GuestCall, GuestResult
from hanzo_compute.services import functions
from hanzo_compute.services import invoke as invoking
from hanzo_compute.services.invoke import SYNC_S, Pending
from hanzo_compute.wiring import Container
from tests.support.handlers import Client
from tests.support.stepped import Platform
from tests.support.wasm import wat

CONTEXT = SimpleNamespace(
    function_name="f", memory_limit_in_mb=128, invoked_function_arn="arn:aws:lambda:x", aws_request_id="r"
)
REACTOR = """(module (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 0))
  (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))"""


def deploy(platform: Platform, code: str = "1", name: str = "f", tenant: str = "acme", **fields: Any) -> int:
    spec = FunctionSpec.model_validate({"source": {"code": code, "language": "python"}} | fields)
    return functions.deploy(platform.ctx, tenant, name, spec).version.number


def begin(platform: Platform, data: bytes = b"in", ref: str | None = None, tenant: str = "acme") -> Pending:
    return invoking.begin(platform.ctx, tenant, "f", ref, data)


def end(platform: Platform, result: GuestResult, data: bytes = b"in") -> Any:
    pending = begin(platform, data)
    try:
        return pending.finish(result)
    finally:
        pending.close()


class TestConcurrency:
    """A count that leaks would lock a function out for good."""

    def test_as_many_as_may_and_no_more(self) -> None:
        platform = Platform()
        deploy(platform, concurrency=2)
        running = [begin(platform), begin(platform)]
        with pytest.raises(RateLimited) as refused:
            begin(platform)
        assert refused.value.data["retry_after_s"] == 1
        running[0].close()
        running[0].close()  # twice is once
        running.append(begin(platform))
        with pytest.raises(RateLimited):
            begin(platform)
        for each in running:
            each.close()
        assert platform.ctx.calls == {}

    def test_of_each_tenant_and_function(self) -> None:
        platform = Platform()
        deploy(platform, concurrency=1)
        deploy(platform, concurrency=1, name="g")
        deploy(platform, concurrency=1, tenant="other")
        kept = [begin(platform), invoking.begin(platform.ctx, "acme", "g", None, b""), begin(platform, tenant="other")]
        assert sorted(platform.ctx.calls) == [("acme", "f"), ("acme", "g"), ("other", "f")]
        for each in kept:
            each.close()

    def test_versions_share_it(self) -> None:
        platform = Platform()
        deploy(platform, "1", concurrency=1)
        deploy(platform, "2", concurrency=1)
        kept = begin(platform, ref="1")
        with pytest.raises(RateLimited):
            begin(platform, ref="2")
        kept.close()

    def test_what_does_not_begin_is_not_counted(self) -> None:
        platform = Platform()
        deploy(platform)
        with pytest.raises(NotFound):
            begin(platform, ref="7")
        nowhere = replace(platform.ctx, policy=replace(platform.ctx.policy, pools=()))
        with pytest.raises(NoCapacity):
            invoking.begin(nowhere, "acme", "f", None, b"")
        assert platform.ctx.calls == {}


def test_what_runs_is_the_version() -> None:
    platform = Platform()
    deploy(platform, "print(1)", args=["a"], env={"K": "V"}, resources={"memory_mib": 128, "timeout_s": 7, "fuel": 9})
    pending = begin(platform)
    program = pending.call.program
    assert (program.key, program.language, program.files(), list(program.args), program.env) == (
        "acme/f@1",
        "python",
        {"main.py": b"print(1)"},
        ["a"],
        {"K": "V"},
    )
    assert (program.memory_mib, program.fuel, program.output_max) == (128, 9, bounds.RESPONSE_MAX)
    assert (pending.call.tenant, pending.call.data, pending.call.timeout_s) == ("acme", b"in", 7)
    pending.close()


def test_a_module_is_read_as_its_tenant() -> None:
    platform = Platform()
    blob = platform.blobs.put("acme", wat(REACTOR))
    functions.deploy(
        platform.ctx, "acme", "f", FunctionSpec.model_validate({"source": {"module": blob}, "abi": "reactor"})
    )
    program = begin(platform).call.program
    assert (program.entry, program.module(), f"b1-{program.digest}") == ("reactor", wat(REACTOR), blob)


def test_a_good_end() -> None:
    platform = Platform()
    deploy(platform)
    answered = end(platform, GuestResult("ok", b"out", wall_us=5))
    assert (answered.reference, answered.result.output, answered.job) == ("f@1", b"out", None)
    assert answered.id.startswith("i-")


@pytest.mark.parametrize("category", ["exit", "trap", "oom", "fuel", "invalid_program"])
def test_a_bad_end_is_the_functions(category: str) -> None:
    platform = Platform()
    deploy(platform)
    result = GuestResult(category, b"half", b"Traceback\nValueError: no\n", "", 1, None, ("scratch",))
    with pytest.raises(FunctionFailed) as failed:
        end(platform, result)
    error = failed.value
    assert (error.code, error.status) == ("function_failed", 502)
    assert error.message == f"f@1 failed ({category}): it ended with exit code 1: ValueError: no"
    assert (error.data["category"], error.data["exit_code"], error.data["limits"]) == (category, 1, ["scratch"])
    assert error.hint == "hzc fn logs f"


def test_an_answer_that_is_cut_is_none() -> None:
    platform = Platform()
    deploy(platform)
    with pytest.raises(FunctionFailed, match=str(bounds.RESPONSE_MAX)):
        end(platform, GuestResult("ok", b"x" * 10, limits=("stdout",)))
    assert end(platform, GuestResult("ok", b"x", limits=("stderr", "host_bytes"))).result.output == b"x"


def test_a_failed_sandbox_is_the_platforms() -> None:
    platform = Platform()
    deploy(platform)
    with pytest.raises(Unavailable, match="SIGKILL"):
        end(platform, GuestResult("platform", detail="SIGKILL"))


@pytest.mark.parametrize("data", [b"", b"short\xff\0", b"x" * (bounds.INLINE_MAX + 1)])
def test_a_call_that_may_run_longer_becomes_a_job_with_its_input(data: bytes) -> None:
    platform = Platform()
    deploy(platform, "print(1)", resources={"timeout_s": 600})
    pending = begin(platform, data)
    assert pending.call.timeout_s == SYNC_S
    answered = pending.finish(GuestResult("timeout"))
    assert answered.job is not None
    job = platform.job(answered.job.id)
    found = platform.store.get(keys.spec(job.id))
    assert found is not None
    spec = found.body
    assert (spec["source"]["function"], spec["source"]["code"], spec["resources"]["timeout_s"]) == (
        "f@1",
        "print(1)",
        600,
    )
    given = spec.get("input") or {}
    if "blob" in given:
        assert platform.blobs.get("acme", given["blob"]) == data
    else:
        assert given == {"inline_base64": base64.b64encode(data).decode()}
    pending.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"resources": {"timeout_s": 25}},
        {"resources": {"timeout_s": 3}},
    ],
)
def test_a_call_that_cannot_become_a_job_is_over(fields: dict[str, Any]) -> None:
    platform = Platform()
    deploy(platform, **fields)
    with pytest.raises(FunctionTimedOut) as failed:
        end(platform, GuestResult("timeout"))
    assert (failed.value.status, failed.value.code) == (504, "function_timed_out")
    assert f"{min(25, fields['resources']['timeout_s'])} s" in failed.value.message


def test_a_long_call_with_capabilities_goes_on_as_a_job_known_by_the_same_id() -> None:
    platform = Platform()
    deploy(platform, resources={"timeout_s": 600}, capabilities={"kv": True, "http": ["https://api.example.com"]})
    answered = end(platform, GuestResult("timeout"))
    assert answered is not None
    assert answered.job is not None
    assert answered.job.origin == {"kind": "invocation", "invocation": answered.id}
    platform.dispatch()
    assert platform.lease().call == answered.id


def test_aliases_by_weight() -> None:
    platform = Platform()
    deploy(platform, "1")
    deploy(platform, "2")
    functions.set_alias(platform.ctx, "acme", "f", "live", AliasSetting(weights={"1": 80, "2": 20}))
    found = []
    for _ in range(500):
        pending = begin(platform)
        found.append(pending.version.number)
        pending.close()
    assert 350 < found.count(1) < 450


@pytest.mark.parametrize("ref", ["9", "nowhere", "0", "1.5", "../x", "x" * 5000, ""])
def test_no_such_version(ref: str) -> None:
    platform = Platform()
    deploy(platform)
    if ref == "":
        assert begin(platform, ref="").version.number == 1
        return
    with pytest.raises(NotFound):
        begin(platform, ref=ref)


def test_another_tenants_function_is_not_there() -> None:
    platform = Platform()
    deploy(platform)
    with pytest.raises(NotFound):
        begin(platform, tenant="other")


class TestPublicNames:
    def test_one_of_each_in_the_whole_platform(self) -> None:
        platform = Platform()
        deploy(platform, public=True)
        assert functions.public_tenant(platform.ctx, "f") == "acme"
        deploy(platform, "2", public=True)
        with pytest.raises(Conflict, match="taken"):
            deploy(platform, tenant="other", public=True)
        assert functions.read(platform.ctx, "other", "f") is None
        assert deploy(platform, tenant="other") == 1
        assert functions.public_tenant(platform.ctx, "f") == "acme"

    def test_removing_the_function_frees_it_for_others(self) -> None:
        platform = Platform()
        deploy(platform, public=True)
        deploy(platform, tenant="other")
        functions.delete(platform.ctx, "other", "f")
        assert functions.public_tenant(platform.ctx, "f") == "acme"
        functions.delete(platform.ctx, "acme", "f")
        assert functions.public_tenant(platform.ctx, "f") is None
        deploy(platform, tenant="other", public=True)
        assert functions.public_tenant(platform.ctx, "f") == "other"
        deploy(platform)
        functions.delete(platform.ctx, "acme", "f")
        assert functions.public_tenant(platform.ctx, "f") == "other"

    @pytest.mark.parametrize("name", ["", "../x", "F", "a" * 9000, "a#b", "é"])
    def test_what_is_no_name_is_nobodys(self, name: str) -> None:
        assert functions.public_tenant(Platform().ctx, name) is None


@dataclass
class Guests:
    """Answers calls as the test says."""

    result: GuestResult | ComputeError | Exception
    seen: list[GuestCall]

    async def call(self, call: GuestCall) -> GuestResult:
        self.seen.append(call)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    async def close(self) -> None:
        pass


@pytest.fixture
def guests(container: Container, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guests]:
    made = Guests(GuestResult("ok", b"out"), [])
    monkeypatch.setattr(calls, "_inline", None)
    monkeypatch.setattr(calls, "deferred", False)
    monkeypatch.setattr("invoke.app.guests", lambda _: made)
    yield made
    inline = calls._inline
    if inline is not None:
        inline[0].close()
    assert container.calls == {}, "a call is counted for ever"


def http(method: str, path: str, key: str | None, body: str = "", **more: Any) -> SimpleNamespace:
    """As the API gateway calls the function."""
    _, kind, name, *rest = path.split("/")
    if kind == "fn":
        route = "ANY /fn/{name}/{path+}" if rest else "ANY /fn/{name}"
        values = {"name": name} | ({"path": "/".join(rest)} if rest else {})
    else:
        route, values = "POST /v1/functions/{name}/invoke", {"name": rest[0]}
    event = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": path,
        "rawQueryString": "",
        "pathParameters": values,
        "headers": {} if key is None else {"authorization": f"Bearer {key}"},
        "requestContext": {"requestId": "req-1", "http": {"method": method, "path": path}},
        "body": body,
        "isBase64Encoded": False,
        **more,
    }
    answer = invoke.app.handler(event, CONTEXT)
    return SimpleNamespace(
        status=answer["statusCode"],
        headers={name.lower(): value for name, value in answer["headers"].items()},
        body=answer["body"],
        problem=json.loads(answer["body"]) if "problem" in answer["headers"]["Content-Type"] else None,
    )


def put(client: Client, name: str = "f", **fields: Any) -> None:
    made = client("PUT", f"/v1/functions/{name}", {"source": {"code": "1", "language": "python"}} | fields)
    assert made.status in (200, 201), made


CALL = "/v1/functions/f/invoke"


def test_bytes_in_and_bytes_out(call: Client, guests: Guests) -> None:
    put(call)
    guests.result = GuestResult("ok", b"\xff\0", wall_us=7, fuel=3)
    found = http(
        "POST",
        CALL,
        call.key,
        "/w==",
        isBase64Encoded=True,
        headers={"authorization": f"Bearer {call.key}", "content-type": "text/weird"},
    )
    assert (found.status, found.body, found.headers["content-type"]) == (200, "/wA=", "application/octet-stream")
    assert (found.headers["x-function"], found.headers["x-wall-us"], found.headers["x-fuel"]) == ("f@1", "7", "3")
    assert guests.seen[0].data == b"\xff"


def test_errors_have_their_status_and_the_count_goes_down(call: Client, guests: Guests) -> None:
    put(call, concurrency=1)
    for result, status, code in (
        (GuestResult("exit", exit_code=3), 502, "function_failed"),
        (Unavailable("no worker"), 503, "unavailable"),
        (NoCapacity("too many", retry_after_s=2), 503, "no_capacity"),
        (RuntimeError("a defect"), 500, "internal"),
        (GuestResult("nonsense"), 500, "internal"),
        (GuestResult("platform", detail="killed"), 503, "unavailable"),
        (GuestResult("ok", b"x"), 200, None),
    ):
        guests.result = result
        found = http("POST", CALL, call.key)
        assert (found.status, found.problem and found.problem["code"]) == (status, code), result


def test_too_many_at_a_time_is_told_with_when_to_come_back(call: Client, guests: Guests, container: Container) -> None:
    put(call, concurrency=1)
    container.calls["t1", "f"] = 1
    found = http("POST", CALL, call.key)
    assert (found.status, found.headers["retry-after"], found.problem["code"]) == (429, "1", "rate_limited")
    assert not guests.seen
    container.calls.clear()


def test_a_long_call_answers_with_a_job(call: Client, guests: Guests) -> None:
    put(call, resources={"timeout_s": 600})
    guests.result = GuestResult("timeout")
    found = http("POST", CALL, call.key)
    job = json.loads(found.body)
    assert (found.status, found.headers["location"]) == (202, f"/v1/jobs/{job['id']}")
    assert call("GET", found.headers["location"]).body["state"] == "queued"


class TestSites:
    def test_who_may_call_what(self, call: Client, other: Client, guests: Guests) -> None:
        put(call, public=True)
        put(call, "private")
        assert http("GET", "/fn/f", None).status == 200
        assert http("GET", "/fn/f/", call.key).status == 200
        assert http("GET", "/fn/private/a/b", call.key).status == 200
        assert http("GET", "/fn/private", None).status == 401
        assert http("GET", "/fn/nowhere", None).status == 401
        assert http("GET", "/fn/nowhere", call.key).status == 404
        # With a credential, its own tenant's functions are meant: what goes to one must not reach a stranger's.
        assert http("GET", "/fn/f", other.key).status == 404
        assert http("GET", "/fn/private", other.key).status == 404
        assert [each.program.key for each in guests.seen] == ["t1/f@1", "t1/f@1", "t1/private@1"]

    def test_a_version_that_is_not_public_any_more(self, call: Client, guests: Guests) -> None:
        put(call, public=True)
        put(call, public=False)
        assert http("GET", "/fn/f", None).status == 401
        assert http("GET", "/fn/f", call.key).status == 200

    def test_an_unknown_credential_is_nobody(self, call: Client, guests: Guests) -> None:
        put(call, public=True)
        wrong = call.key[:-1] + ("A" if call.key[-1] != "A" else "B")
        assert http("GET", "/fn/f", wrong).status == 200
        assert wrong.encode() not in guests.seen[0].data

    def test_a_stranger_hears_nothing_of_why_it_failed(self, call: Client, guests: Guests) -> None:
        put(call, public=True, resources={"timeout_s": 600})
        guests.result = GuestResult("exit", errors=b"the password is 1234", detail="secret", exit_code=1)
        found = http("GET", "/fn/f", None)
        assert (found.status, found.problem["code"]) == (502, "function_failed")
        assert "1234" not in found.body
        assert "secret" not in found.body
        assert "1234" in http("GET", "/fn/f", call.key).body
        guests.result = GuestResult("timeout")
        assert http("GET", "/fn/f", None).status == 504, "a stranger has made a job"
        assert http("GET", "/fn/f", call.key).status == 202

    def test_logs_are_for_the_owner(self, call: Client, other: Client, guests: Guests) -> None:
        put(call, public=True)
        put(other)
        guests.result = GuestResult("ok", b"", b"said\n")
        http("GET", "/fn/f", None)
        (line,) = call("GET", "/v1/functions/f/logs").body["items"]
        assert (line["text"], line["function"]) == ("said\n", "f@1")
        assert other("GET", "/v1/functions/f/logs").body["items"] == []
