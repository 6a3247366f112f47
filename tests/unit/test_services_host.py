"""What a guest's host calls do: by capability, within bounds, and never with an exception."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from hanzo_compute.adapters.sandbox import hostcalls
from hanzo_compute.errors import Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.capabilities import HOST_FUNCTIONS, Capabilities
from hanzo_compute.ports import (
    Egress,
    EgressRequest,
    EgressResponse,
    GuestRefusal,
    GuestService,
    Status,
)
from hanzo_compute.services import host, kv, secrets
from hanzo_compute.services.host import CallOf, FunctionHost
from tests.support.faults import FaultyStore, scripted
from tests.support.stepped import Platform

ALL = {
    "kv": True,
    "secrets": ["TOKEN", "NONE"],
    "http": ["https://api.example.com"],
    "input": True,
    "outputs": True,
}
CALLS: dict[str, list[bytes | int]] = {
    "kv_get": [b"k"],
    "kv_put": [b"k", b"v", -1],
    "kv_delete": [b"k", -1],
    "secret": [b"TOKEN"],
    "http": [b'{"url": "https://api.example.com/"}', b""],
    "input_size": [],
    "input_read": [0, 10],
    "output": [b"out", b"chunk"],
}


class Answering:
    """A way out that answers, and remembers what it was asked for."""

    def __init__(self, *answers: EgressResponse | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[EgressRequest] = []

    def fetch(self, request: EgressRequest) -> EgressResponse:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def platform() -> Platform:
    made = Platform()
    secrets.put(made.ctx, "acme", "TOKEN", b"t0p\xff")
    return made


def of(
    platform: Platform, grant: dict[str, Any] | None = None, egress: Egress | None = None, **more: Any
) -> FunctionHost:
    call = CallOf("acme", "f", 3, "c-1", platform.clock.monotonic() + 5)
    capabilities = Capabilities.model_validate(ALL if grant is None else grant)
    ctx = more.pop("ctx", platform.ctx)
    return FunctionHost(ctx, call, capabilities, egress, **more)


def test_it_is_what_the_sandbox_asks(platform: Platform) -> None:
    service: hostcalls.Service = of(platform)
    assert isinstance(service, GuestService)
    assert set(host._WORK) == set().union(*HOST_FUNCTIONS.values())
    assert {name: need for name, (need, _) in host._WORK.items()} == {
        name: shape.capability for name, shape in hostcalls.FUNCTIONS.items() if shape.capability
    }
    for status in Status:
        if status:
            assert getattr(hostcalls, status.name) == status
    assert (bounds.KV_KEY_MAX, bounds.KV_VALUE_MAX) == (hostcalls.KEY_MAX, hostcalls.VALUE_MAX)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_granted_is_denied_and_told(platform: Platform, name: str) -> None:
    need = host._WORK[name][0]
    others = {capability: value for capability, value in ALL.items() if capability != need}
    for grant in ({}, others):
        made = of(platform, grant, Answering(), input_data=b"x")
        assert made.ask(name, CALLS[name]) == (-2, b"")
        assert made.lines == [("warning", f"{name}: the function was not granted {need}")]
        assert (made.operations(), made.outputs) == ([], {})


def test_through_the_sandboxs_own_part(platform: Platform) -> None:
    """As a guest meets it: names, order of arguments, encodings of results."""
    answer = EgressResponse(201, [("a", "1"), ("b", "x"), ("a", "2")], b"\x00body", 300)
    egress = Answering(answer)
    made = of(platform, None, egress, input_data=b"0123456789")
    calls = hostcalls.HostCalls(frozenset(ALL), made, made.log)
    calls.begin(hostcalls.Bounds(), None, None)
    assert calls.call("kv_get", [b"k"]) == (-1, b"")
    assert calls.version == 0
    assert calls.call("kv_put", [b"k", b"v\x00", 0]) == (0, b"")
    assert calls.call("kv_get", [b"k"]) == (2, b"")
    assert (calls.call("take", [9]), calls.version) == ((2, b"v\x00"), 1)
    assert calls.call("kv_delete", [b"k", 7]) == (-4, b"")
    assert calls.call("kv_delete", [b"k", 1]) == (0, b"")
    assert calls.call("secret", [b"TOKEN"]) == (4, b"")
    assert calls.call("take", [9]) == (4, b"t0p\xff")
    size, _ = calls.call(
        "http", [b'{"url": "https://api.example.com/x", "method": "PUT", "headers": {"A": "b"}}', b"in"]
    )
    head, _, body = calls.call("take", [size])[1].partition(b"\n")
    assert (json.loads(head), body) == ({"status": 201, "headers": {"a": "1, 2", "b": "x"}}, b"\x00body")
    assert calls.call("input_size", []) == (10, b"")
    assert calls.call("input_read", [8, 5]) == (2, b"89")
    assert calls.call("input_read", [99, 5]) == (0, b"")
    assert calls.call("output", [b"out", b"ab"]) == (2, b"")
    assert calls.call("output", [b"out", b"c"]) == (3, b"")
    assert calls.call("log", [1, b"hello"]) == (0, b"")
    assert made.outputs == {"out": b"abc"}
    assert ("info", "hello") in made.lines
    assert made.egress_bytes == 300
    assert made.counts["kv_get"] == 2
    (asked,) = egress.asked
    assert (asked.method, asked.body, list(asked.headers), asked.idempotency_key) == (
        "PUT",
        b"in",
        [("A", "b")],
        "c-1/1",
    )
    assert (asked.origins, asked.follow, asked.timeout_s) == (frozenset({"https://api.example.com"}), False, 5.0)


def test_entries_are_committed_with_the_outcome(platform: Platform) -> None:
    made = of(platform)
    made.ask("kv_put", [b"k", b"v", -1])
    other = of(platform)
    assert other.ask("kv_get", [b"k"]) == (-1, b"")
    platform.store.transact(made.operations())
    assert of(platform).ask("kv_get", [b"k"])[1] == (1).to_bytes(8, "little") + b"v"
    assert kv.Session(platform.ctx, "acme", "f").get(b"k") == (b"v", 1)


def test_a_secret_is_given_once_its_read_is_written_down(platform: Platform) -> None:
    made = of(platform)
    for _ in range(3):
        assert made.ask("secret", [b"TOKEN"]) == (4, b"t0p\xff")
    assert made.ask("secret", [b"NONE"])[0] == -1
    assert made.ask("secret", [b"OTHER"])[0] == made.ask("secret", [b"\xff\xff"])[0] == -2
    found = secrets.reads(platform.ctx, "acme", secret=None, cursor="", limit=9).items
    assert sorted((each["secret"], each["function"], each["call"]) for each in found) == [
        ("NONE", "f@3", "c-1"),
        ("TOKEN", "f@3", "c-1"),
    ]
    ctx = replace(platform.ctx, store=FaultyStore(platform.store, scripted("transact:before")))
    unsure = of(platform, ctx=ctx)
    assert unsure.ask("secret", [b"TOKEN"]) == (-6, b"")
    assert unsure.ask("secret", [b"TOKEN"]) == (4, b"t0p\xff")
    assert "t0p" not in str(made.lines + unsure.lines)


HEADS: list[Any] = [
    b"",
    b"\xff",
    b"{",
    b"[]",
    b'"x"',
    b"{}",
    b'{"url": 1}',
    b'{"url": "x", "extra": 1}',
    b'{"url": "x", "headers": []}',
    b'{"url": "x", "headers": {"a": 1}}',
    b'{"url": "x", "method": 1}',
    b'{"url": "x", "redirect": "perhaps"}',
    b'{"url": "x", "redirect": []}',
    b'{"url": "x", "redirect": null}',
    b"[" * 100_000,
    b'{"url": NaN}',
]


@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_is_none(platform: Platform, head: bytes) -> None:
    egress = Answering()
    made = of(platform, None, egress)
    assert made.ask("http", [head, b""]) == (-3, b"")
    assert egress.asked == []


def test_http_ends_as_it_ends(platform: Platform) -> None:
    refusals = [GuestRefusal(status, "why", moved=7) for status in Status if status]
    egress = Answering(*refusals, RuntimeError("defect"), Unavailable("x"))
    made = of(platform, None, egress)
    ends = [made.ask("http", CALLS["http"])[0] for _ in range(len(refusals) + 2)]
    assert ends == [*(each.status for each in refusals), -6, -6]
    assert made.egress_bytes == 7 * len(refusals)
    assert [each.idempotency_key for each in egress.asked] == [f"c-1/{n + 1}" for n in range(len(ends))]
    assert "defect" not in str(made.lines)
    assert of(platform).ask("http", CALLS["http"])[0] == -2
    platform.clock.advance(6000)
    late = FunctionHost(
        platform.ctx, CallOf("acme", "f", 3, "c", platform.clock.monotonic()), Capabilities.model_validate(ALL), egress
    )
    assert late.ask("http", CALLS["http"])[0] == -7


def test_a_redirect_is_asked_for(platform: Platform) -> None:
    egress = Answering(EgressResponse(200, [], b"", 1))
    of(platform, None, egress).ask("http", [b'{"url": "https://api.example.com", "redirect": "follow"}', b""])
    assert egress.asked[0].follow


def test_input_is_bytes_or_a_blob_of_the_tenant(platform: Platform) -> None:
    blob = platform.blobs.put("acme", b"0123456789")
    made = of(platform, input_blob=blob)
    assert made.ask("input_size", []) == (10, b"")
    assert made.ask("input_read", [3, 4]) == (4, b"3456")
    assert made.ask("input_read", [-1, 4])[0] == made.ask("input_read", [0, -4])[0] == -3
    assert of(platform).ask("input_size", [])[0] == -1
    theirs = platform.blobs.put("other", b"secret")
    assert of(platform, input_blob=theirs).ask("input_read", [0, 9]) == (-1, b"")
    nowhere = "b1-" + hashlib.sha256(b"x").hexdigest()
    assert of(platform, input_blob=nowhere).ask("input_size", [])[0] == -1


def test_outputs_are_bounded(platform: Platform) -> None:
    made = of(platform)
    for name in (b"", b"../x", b"a/b", b"\xff", b"stdout", b"response", b".x", b"a" * 256, b"a\n"):
        assert made.ask("output", [name, b"x"]) == (-3, b"")
    assert made.ask("output", [b"big", bytes(bounds.OUTPUT_MAX - 100)])[0] == bounds.OUTPUT_MAX - 100
    assert made.ask("output", [b"big", bytes(101)])[0] == -5
    for number in range(bounds.CALL_OUTPUTS_MAX - 1):
        assert made.ask("output", [b"o%d" % number, b"x"])[0] == 1
    assert made.ask("output", [b"more", b"x"])[0] == -5
    assert made.ask("output", [b"o1", b"y"])[0] == 2
    assert (made.outputs["o1"], len(made.outputs)) == (b"xy", 16)


def test_a_log_is_bounded(platform: Platform) -> None:
    made = of(platform)
    for _ in range(bounds.LOG_ENTRIES_MAX + 10):
        made.log("info", "x")
    assert len(made.lines) == bounds.LOG_ENTRIES_MAX
    large = of(platform)
    for _ in range(40):
        large.log("info", "é" * 4096)
    assert len(large.lines) == 32


NONSENSE: list[tuple[str, list[Any]]] = [
    ("exec", [b"ls"]),
    ("", []),
    ("__init__", []),
    ("kv_get", []),
    ("kv_get", [1]),
    ("kv_get", [b""]),
    ("kv_get", [b"x" * 513]),
    ("kv_put", [b"k", b"v"]),
    ("kv_put", [b"k", b"v", -9]),
    ("kv_put", [b"k", bytes(bounds.KV_VALUE_MAX + 1), -1]),
    ("secret", [b"TOKEN", b"TOKEN"]),
    ("http", [1, 2]),
    ("input_read", ["a", None]),
    ("output", [b"x"]),
]


@pytest.mark.parametrize(("name", "args"), NONSENSE)
def test_nothing_raises(platform: Platform, name: str, args: list[Any]) -> None:
    status, result = of(platform, None, Answering()).ask(name, args)
    assert (status in (-3, -6), result) == (True, b"")


def test_a_store_that_does_not_answer_is_unavailable(platform: Platform) -> None:
    class Down(FaultyStore):
        def get(self, key, *, fresh=False):  # type: ignore[no-untyped-def]
            raise Unavailable("the disk is at /secret/path")

    made = of(platform, ctx=replace(platform.ctx, store=Down(platform.store, scripted())))
    for name in ("kv_get", "kv_put", "kv_delete", "secret"):
        assert made.ask(name, CALLS[name]) == (-6, b"")
    assert "path" not in str(made.lines)


def test_two_tenants_see_nothing_of_each_other(platform: Platform) -> None:
    secrets.put(platform.ctx, "other", "TOKEN", b"theirs")
    theirs = FunctionHost(platform.ctx, CallOf("other", "f", 1, "c-2", 1e9), Capabilities.model_validate(ALL))
    theirs.ask("kv_put", [b"k", b"theirs", -1])
    platform.store.transact(theirs.operations())
    mine = of(platform)
    assert mine.ask("kv_get", [b"k"])[0] == -1
    assert mine.ask("secret", [b"TOKEN"])[1] == b"t0p\xff"
    assert theirs.ask("secret", [b"TOKEN"])[1] == b"theirs"
