"""The agent's side of host calls: what it answers a guest, what it asks of the platform, and what it hands in."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from hanzo_compute.adapters.http import ApiClient, HttpLeaseApi
from hanzo_compute.errors import StaleFence, Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.outcome import Category, Outcome, Usage
from hanzo_compute.ports import (
    Completed,
    EgressRequest,
    EgressResponse,
    Handle,
    Lease,
    LogEntry,
    Report,
    RunnerOutcome,
    Seen,
    Touched,
)
from hanzo_compute_agent.carrier import Carrier
from hanzo_compute_agent.granted import INLINE_MAX, LeaseHost, host_of, needs
from hanzo_compute_agent.journal import Shipment
from hanzo_compute_agent.signing import Signer
from tests.support import statements
from tests.support.fake_api import KEY, FakeApi
from tests.support.stepped import Platform

ORIGIN = "https://api.example.com"
GRANTED = {"kv": True, "secrets": ["TOKEN"], "http": [ORIGIN], "input": True, "outputs": True}


class Api:
    """What the platform says; everything that is asked of it is noted."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Seen] = {}
        self.asked: list[tuple[Any, ...]] = []
        self.uploads: list[bytes] = []
        self.reports: list[Report] = []
        self.fails: Exception | None = None
        self.held: Lease | None = None

    def entry(self, job: str, attempt: int, key: bytes, *, fresh: bool) -> Seen:
        self.asked.append(("entry", job, attempt, key, fresh))
        if self.fails is not None:
            raise self.fails
        return self.entries.get(key, Seen(0, 0, None))

    def secret(self, job: str, attempt: int, name: str) -> bytes | None:
        self.asked.append(("secret", job, attempt, name))
        if self.fails is not None:
            raise self.fails
        return b"t0p"

    def upload(self, _job: str, _attempt: int, data: bytes) -> str:
        self.uploads.append(data)
        return f"b1-{len(self.uploads):064d}"

    def again(self, _job: str, _attempt: int) -> Lease:
        assert self.held is not None
        return self.held

    def download(self, _url: str) -> bytes:
        raise AssertionError("nothing to download")

    def complete(self, reports: Sequence[Report], *, want: Any = None) -> Any:
        self.reports += reports
        return Completed(["succeeded" for _ in reports])


class Out:
    """A way out that answers."""

    def __init__(self) -> None:
        self.asked: list[EgressRequest] = []

    def fetch(self, request: EgressRequest) -> EgressResponse:
        self.asked.append(request)
        return EgressResponse(200, [], b"pong", 123)


def leased(capabilities: dict[str, Any] | None = None, **more: Any) -> Lease:
    source: dict[str, Any] = {"code": "pass", "language": "python", "function": "f@3"}
    if capabilities is None:
        capabilities = GRANTED
    source["capabilities"] = capabilities
    spec = {"source": source, "resources": {"memory_mib": 64, "timeout_s": 60}}
    return Lease("j-1", 2, "wasm", spec, 15_000, 60_000, timeout_is_deadline=False, **more)


def host(api: Api, lease: Lease | None = None, out: Out | None = None, stdin: bytes = b"0123") -> LeaseHost:
    made = host_of(api, Platform().clock, out, lease or leased(), stdin)  # type: ignore[arg-type]
    assert made is not None
    return made


def test_a_job_without_capabilities_has_no_host() -> None:
    for capabilities in ({}, {"kv": False, "secrets": []}):
        lease = leased(capabilities)
        assert not needs(lease)
        assert host_of(Api(), Platform().clock, None, lease, b"") is None  # type: ignore[arg-type]


def test_entries_are_asked_for_once_and_kept_until_the_end() -> None:
    api = Api()
    api.entries[b"k"] = Seen(7, 3, b"old")
    made = host(api)
    assert made.ask("kv_get", [b"k"]) == (3, struct.pack("<q", 3) + b"old")
    assert made.ask("kv_put", [b"k", b"new", 3]) == (0, b"")
    assert made.ask("kv_get", [b"k"]) == (3, struct.pack("<q", 4) + b"new")
    assert made.ask("kv_get", [b"only read"]) == (-1, b"")
    assert made.ask("kv_put", [b"k", b"x", 3]) == (-4, b"")
    assert [each for each in api.asked if each[3] == b"k"] == [("entry", "j-1", 2, b"k", True)]
    touched = made.touched(api, leased())  # type: ignore[arg-type]
    assert touched is not None
    assert [(each.key, each.rev, each.changed, each.value) for each in touched] == [
        (b"k", 7, True, b"new"),
        (b"only read", 0, False, None),
    ]


@pytest.mark.parametrize(("attempt", "fresh"), [(1, False), (2, True)])
def test_a_further_attempt_reads_what_is_there_now(attempt: int, fresh: bool) -> None:
    api = Api()
    host(api, replace(leased(), attempt=attempt)).ask("kv_get", [b"k"])
    assert api.asked == [("entry", "j-1", attempt, b"k", fresh)]


def test_a_value_that_was_only_read_does_not_go_back() -> None:
    api = Api()
    api.entries[b"k"] = Seen(7, 3, b"read")
    made = host(api)
    made.ask("kv_get", [b"k"])
    (touched,) = made.touched(api, leased()) or []  # type: ignore[arg-type]
    assert (touched.value, touched.changed) == (None, False)


def test_large_values_are_uploaded_before() -> None:
    api = Api()
    made = host(api)
    for number in range(4):
        assert made.ask("kv_put", [bytes([number]), bytes(100 * 1024), -1]) == (0, b"")
    touched = made.touched(api, leased()) or []  # type: ignore[arg-type]
    inline = sum(len(each.value or b"") for each in touched)
    assert inline <= INLINE_MAX
    assert ([each.blob is None for each in touched], len(api.uploads)) == ([True, True, False, False], 2)


def test_its_bounds_are_those_of_a_call() -> None:
    made = host(Api())
    for number in range(bounds.KV_TOUCHED_MAX):
        assert made.ask("kv_put", [bytes([number + 1]), b"", -1])[0] == 0
    assert made.ask("kv_get", [b"one more"])[0] == -5
    assert made.ask("kv_put", [b"\x01", bytes(bounds.KV_VALUE_MAX + 1), -1])[0] == -3
    assert made.ask("output", [b"a", bytes(bounds.OUTPUT_MAX + 1)])[0] == -5


def test_a_secret_is_asked_for_each_time_and_kept_nowhere() -> None:
    api = Api()
    made = host(api)
    for _ in range(2):
        assert made.ask("secret", [b"TOKEN"]) == (3, b"t0p")
    assert made.ask("secret", [b"OTHER"]) == (-2, b"")
    assert api.asked == [("secret", "j-1", 2, "TOKEN")] * 2
    assert "t0p" not in repr(vars(made)) + repr(made.lines)


def test_requests_are_known_by_the_job_or_by_the_call_that_became_it() -> None:
    for lease, known in ((leased(), "j-1"), (leased(call="i-9"), "i-9")):
        out = Out()
        made = host(Api(), lease, out)
        for _ in range(2):
            status, _ = made.ask("http", [json.dumps({"url": f"{ORIGIN}/x"}).encode(), b""])
            assert status > 0
        assert [each.idempotency_key for each in out.asked] == [f"{known}/1", f"{known}/2"]
        assert {each.origins for each in out.asked} == {frozenset({ORIGIN})}
        assert all(0 < each.timeout_s <= bounds.EGRESS_S_MAX for each in out.asked)
        assert made.egress_bytes == 246


def test_without_a_way_out_none_is_called() -> None:
    assert host(Api()).ask("http", [b'{"url": "https://api.example.com/"}', b""]) == (-2, b"")


def test_its_time_begins_with_its_first_call() -> None:
    clock, out = Platform().clock, Out()
    made = host_of(Api(), clock, out, leased(), b"")  # type: ignore[arg-type]
    assert made is not None
    clock.advance(3_600_000)  # its module was compiled all the while
    head = json.dumps({"url": f"{ORIGIN}/x"}).encode()
    assert made.ask("http", [head, b""])[0] > 0
    clock.advance(60_000)
    assert made.ask("http", [head, b""])[0] == -7


def test_input_and_outputs() -> None:
    made = host(Api())
    assert made.ask("input_size", []) == (4, b"")
    assert made.ask("input_read", [1, 2]) == (2, b"12")
    made.ask("output", [b"a.txt", b"a"])
    assert made.outputs == {"a.txt": b"a"}


@pytest.mark.parametrize("error", [StaleFence("another attempt holds it"), Unavailable("down"), ValueError("defect")])
def test_whatever_the_platform_says_the_guest_goes_on(error: Exception) -> None:
    api = Api()
    api.fails = error
    made = host(api)
    assert made.ask("kv_get", [b"k"]) == (-6, b"")
    assert made.ask("secret", [b"TOKEN"]) == (-6, b"")
    assert made.touched(api, leased()) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["kv_get", "kv_put", "kv_delete", "secret", "http", "output", "input_size"])
def test_what_was_not_granted_is_not_even_asked_for(name: str) -> None:
    api, out = Api(), Out()
    need = {"secret": "secrets", "http": "http", "output": "outputs", "input_size": "input"}.get(name, "kv")
    others = {capability: value for capability, value in GRANTED.items() if capability != need}
    arguments: dict[str, list[bytes | int]] = {
        "kv_put": [b"k", b"v", -1],
        "kv_delete": [b"k", -1],
        "http": [b"{}", b""],
        "output": [b"a", b""],
        "input_size": [],
    }
    made = host(api, leased(others), out)
    assert made.ask(name, arguments.get(name, [b"TOKEN"])) == (-2, b"")
    assert (api.asked, out.asked) == ([], [])


class TestCarried:
    """What an attempt with capabilities comes to, by way of the carrier."""

    class Runner:
        """Runs a guest that asks, and ends as it is told."""

        runtimes = frozenset({"wasm"})

        def __init__(self, category: str = "ok") -> None:
            self.category = category
            self.reaped: list[Handle] = []

        def start(self, lease: Lease, *, module: Any, stdin: bytes, service: Any = None) -> Handle:
            if service is not None:
                service.ask("kv_put", [b"k", b"v", -1])
                service.ask("output", [b"a", b"x" * 20_000])
                service.ask("output", [b"empty", b""])
                service.ask("http", [json.dumps({"url": f"{ORIGIN}/x"}).encode(), b""])
            return Handle(lease.job, lease.attempt)

        def poll(self, _handle: Handle, _wait_s: float) -> bool:
            return True

        def logs(self, _handle: Handle, cursor: int) -> tuple[list[LogEntry], int]:
            return [], cursor

        def collect(self, _handle: Handle) -> RunnerOutcome:
            return RunnerOutcome(Outcome(category=Category(self.category), usage=Usage(wall_ms=1)), b"out")

        def reap(self, handle: Handle) -> None:
            self.reaped.append(handle)

        def cancel(self, _handle: Handle, _reason: str) -> None:
            pass

    class Journal:
        """Remembers nothing."""

        def last(self, _handle: Handle) -> Shipment:
            return Shipment()

        def forget(self, _handle: Handle) -> None:
            pass

    def carrier(self, api: Api, runner: Any) -> Carrier:
        made = Carrier(
            api,  # type: ignore[arg-type]
            runner,
            Platform().clock,
            self.Journal(),  # type: ignore[arg-type]
            lambda task, name: None,
            lambda: None,
            Signer(statements.VAULT, "a"),
        )
        made.egress = Out()
        return made

    def lease(self) -> Lease:
        platform = Platform()
        claim = platform.placed()
        terms = platform.lease().terms
        assert claim
        lease = leased()
        return Lease(**{name: getattr(lease, name) for name in lease.__slots__} | {"terms": terms})

    def test_what_it_left_goes_with_its_outcome(self) -> None:
        api, runner = Api(), self.Runner()
        carrier = self.carrier(api, runner)
        carrier.carry(carrier.attempt(self.lease()))
        (report,) = api.reports
        assert report.touched is not None
        assert [(each.key, each.value) for each in report.touched] == [(b"k", b"v")]
        assert [(each.name, each.size, each.blob is None) for each in report.outcome.outputs] == [
            ("stdout", 3, True),
            ("a", 20_000, False),
            ("empty", 0, True),
        ]
        assert report.outcome.usage.egress_bytes == 123
        assert report.signed is not None

    @pytest.mark.parametrize("category", ["exit", "trap", "timeout"])
    def test_of_one_that_fails_only_what_it_said(self, category: str) -> None:
        api = Api()
        carrier = self.carrier(api, self.Runner(category))
        carrier.carry(carrier.attempt(self.lease()))
        (report,) = api.reports
        assert (report.touched, [each.name for each in report.outcome.outputs]) == (None, ["stdout"])
        assert report.outcome.usage.egress_bytes == 123

    def test_what_an_earlier_process_ran_is_lost_with_it(self) -> None:
        api, runner = Api(), self.Runner()
        api.held = self.lease()
        self.carrier(api, runner).adopted(Handle("j-1", 2))
        (report,) = api.reports
        assert (report.outcome.category, report.touched) == (Category.PLATFORM, None)
        assert "went with the process that had it" in report.outcome.detail
        assert runner.reaped == [Handle("j-1", 2)]


def test_over_http_as_the_platform_reads_it(api: FakeApi) -> None:
    client = ApiClient(api.url, KEY, timeout_s=60)
    leases = HttpLeaseApi(client)
    api.lease_answers = {
        "j-1/entries": {"rev": 4, "version": 2, "value_base64": "AP8="},
        "j-1/secrets": {"value_base64": None},
        "complete": {"results": [{"job": "j-1", "state": "succeeded"}]},
    }
    assert leases.entry("j-1", 2, b"\x00k", fresh=True) == Seen(4, 2, b"\x00\xff")
    assert leases.secret("j-1", 2, "TOKEN") is None
    touched = [
        Touched(b"a", 1),
        Touched(b"b", 2, 3, b"", True),
        Touched(b"c", 3, 1, None, True),
        Touched(b"d", 0, 1, None, True, f"b1-{'0' * 64}"),
    ]
    leases.complete([Report("j-1", 2, Outcome(category=Category.OK), touched=touched)])
    client.close()
    sent = {path: json.loads(body) for _, path, _, body in api.requests}
    assert sent["/v1/leases/j-1/entries"] == {"attempt": 2, "key_base64": "AGs=", "fresh": True}
    assert sent["/v1/leases/j-1/secrets"] == {"attempt": 2, "name": "TOKEN"}
    assert sent["/v1/leases/complete"]["reports"][0]["kv"] == [
        {"key_base64": "YQ==", "rev": 1},
        {"key_base64": "Yg==", "rev": 2, "changed": True, "version": 3, "value_base64": ""},
        {"key_base64": "Yw==", "rev": 3, "changed": True, "version": 1},
        {"key_base64": "ZA==", "rev": 0, "changed": True, "version": 1, "blob": f"b1-{'0' * 64}"},
    ]
