"""Jobs with capabilities against their agent: what a guest, other hosts and a slow platform may do to it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.egress import AddressPolicy
from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.errors import StaleFence, Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.outcome import Category
from hanzo_compute.ports import Egress, Handle, Lease, LoggingService, Seen
from hanzo_compute_agent.granted import LeaseHost, host_of
from tests.support.far_side import FarSide, answering
from tests.support.wasm import Runs, eventually, wat

SECRET = b"tok-9f1c-never-on-disk"
ORIGIN = "https://api.example.com"
ALL = {"kv": True, "secrets": ["TOKEN"], "http": ["http://api.example.com", "http://next.example.com"], "outputs": True}
GRACE_S = 50.0


class Api:
    """A platform that gives what it is asked for; the rest is not called."""

    def __init__(self) -> None:
        self.wait: Callable[[], None] = lambda: None
        self.asked: list[str] = []

    def entry(self, _job: str, _attempt: int, key: bytes, *, fresh: bool) -> Seen:
        self.asked.append(key.decode())
        self.wait()
        return Seen(0, 0, None)

    def secret(self, _job: str, _attempt: int, name: str) -> bytes | None:
        self.asked.append(name)
        return SECRET


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("granted")
    runner = WasmRunner(folder / "state", folder / "cache", 2, SystemClock())
    yield Runs(runner)
    runner.close()


def state(runs: Runs) -> Path:
    return runs.runner._root


def module(body: str, data: str = "key") -> bytes:
    """A command with the host functions of hzc, WASI's exit, and ``data`` at 1024."""
    return wat(f"""(module
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (import "hzc" "kv_get" (func $kv_get (param i32 i32 i32) (result i64)))
      (import "hzc" "kv_put" (func $kv_put (param i32 i32 i32 i32 i64) (result i32)))
      (import "hzc" "secret" (func $secret (param i32 i32) (result i64)))
      (import "hzc" "take" (func $take (param i32 i32) (result i32)))
      (import "hzc" "log" (func $log (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 1024) "{data}")
      (func (export "_start") (local $n i32) {body}))""")


ASKS = "(drop (call $kv_get (i32.const 1024) (i32.const 3) (i32.const 8)))"
EXIT_WITH_STATUS = (
    "(call $exit (i32.wrap_i64 (i64.sub (i64.const 0) (call $kv_get (i32.const 1024) (i32.const 3) (i32.const 8)))))"
)


def leased(runs: Runs, capabilities: dict[str, Any] | None = None, **options: Any) -> Lease:
    source: dict[str, Any] = {"module": "b1-" + "0" * 64, "function": "f@1"}
    if capabilities:
        source["capabilities"] = capabilities
    return runs.lease(source, **options)


def host(api: Api, lease: Lease, egress: Egress | None = None) -> LeaseHost:
    made = host_of(api, SystemClock(), egress, lease, b"")  # type: ignore[arg-type]
    assert made is not None
    return made


def start(runs: Runs, program: bytes, service: LoggingService | None, lease: Lease) -> Handle:
    return runs.runner.start(lease, module=program, stdin=b"", service=service)


def asked(made: LeaseHost, url: str, **head: Any) -> int:
    return made.ask("http", [json.dumps({"url": url} | head).encode(), b""])[0]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "64:ff9b::7f00:1"),
    ],
)
def test_no_name_leads_a_jobs_request_inside(runs: Runs, address: str) -> None:
    """DNS decides after the origin was granted; also where one of several addresses is inside."""
    for found in ([address], ["93.184.216.34", address]):
        far = FarSide(names={"api.example.com": found})
        made = host(Api(), leased(runs, ALL), far.egress())
        assert asked(made, "http://api.example.com/") == -2
        assert far.connected == []
        assert made.egress_bytes == 0


@pytest.mark.parametrize(
    "location",
    [
        "http://inside.example.com/",
        "http://127.0.0.1/",
        "http://next.example.com/",
        "file:///etc/passwd",
        "http://[::1]/",
    ],
)
def test_no_redirect_leads_there_either(runs: Runs, location: str) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    far = FarSide(
        names={"next.example.com": ["169.254.169.254"], "inside.example.com": ["10.0.0.1"]},
        serve={"93.184.216.34": answering(answer)},
    )
    made = host(Api(), leased(runs, ALL), far.egress())
    assert asked(made, "http://api.example.com/", redirect="follow") == -2
    assert far.connected == [("93.184.216.34", 80)]
    assert made.egress_bytes > 0  # what was moved all the same is billed
    far.close()


def test_metadata_services_are_never_called_whatever_the_operator_allows(runs: Runs) -> None:
    from ipaddress import ip_network

    far = FarSide(names={"api.example.com": ["169.254.169.254"]})
    made = host(Api(), leased(runs, ALL), far.egress(AddressPolicy((ip_network("169.254.0.0/16"),))))
    assert asked(made, "http://api.example.com/") == -2
    assert far.connected == []


def test_only_the_versions_own_origins(runs: Runs) -> None:
    far = FarSide()
    made = host(Api(), leased(runs, ALL), far.egress())
    for url in ("http://api.example.com:8080/", "https://api.example.com/", "http://other.example.com/", "http://x@y/"):
        assert asked(made, url) < 0
    assert (far.resolved, far.connected) == ([], [])


def test_a_secret_is_on_no_disk_and_in_no_log(runs: Runs) -> None:
    body = """(drop (call $secret (i32.const 1024) (i32.const 5)))
      (drop (call $take (i32.const 2048) (i32.const 64)))
      (call $exit (i32.load8_u (i32.const 2048)))"""
    api = Api()
    lease = leased(runs, ALL)
    made = host(api, lease)
    handle = start(runs, module(body, "TOKEN"), made, lease)
    outcome, _ = runs.end(handle)
    assert (outcome.exit_code, api.asked) == (ord("t"), ["TOKEN"])  # the guest had it
    for path in state(runs).rglob("*"):
        assert not path.is_file() or SECRET not in path.read_bytes(), path
    told = repr(vars(made)) + "".join(entry.text for entry in runs.entries(handle)) + outcome.detail
    assert SECRET.decode() not in told


def test_without_a_grant_nothing_is_asked_even_of_the_agent(runs: Runs) -> None:
    class Never:
        lines: list[tuple[str, str]] = []  # noqa: RUF012

        def log(self, level: str, text: str) -> None: ...

        def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
            raise AssertionError(f"{name} was asked")

    for capabilities in ({}, {"secrets": ["TOKEN"], "outputs": True}):
        lease = leased(runs, capabilities)
        outcome, _ = runs.end(start(runs, module(EXIT_WITH_STATUS), Never(), lease))
        assert outcome.exit_code == 2  # DENIED


class TestAHostCallThatHangs:
    """Another host, or the platform, takes its time: the attempt ends when it has to, and its worker is no worse."""

    @pytest.fixture
    def slow(self) -> Iterator[tuple[Api, threading.Event]]:
        api, release = Api(), threading.Event()

        def wait() -> None:
            release.wait(60)

        api.wait = wait
        yield api, release
        release.set()

    def test_it_ends_at_its_deadline(self, runs: Runs, slow: tuple[Api, threading.Event]) -> None:
        lease = leased(runs, ALL, timeout_ms=500)
        began = time.monotonic()
        outcome, _ = runs.end(start(runs, module(ASKS), host(slow[0], lease), lease))
        assert outcome.category is Category.TIMEOUT
        assert time.monotonic() - began < GRACE_S

    def test_it_is_cancelled(self, runs: Runs, slow: tuple[Api, threading.Event]) -> None:
        lease = leased(runs, ALL)
        handle = start(runs, module(ASKS + "(loop $l (br $l))"), host(slow[0], lease), lease)
        eventually(lambda: slow[0].asked, "it asks")
        began = time.monotonic()
        runs.runner.cancel(handle, "cancelled")
        outcome, _ = runs.end(handle)
        assert outcome.category is Category.CANCELLED
        assert time.monotonic() - began < GRACE_S

    def test_one_that_asks_again_and_again_is_cancelled(self, runs: Runs, slow: tuple[Api, threading.Event]) -> None:
        lease = leased(runs, ALL)
        service = host(slow[0], lease)
        # Each of another key: none is known before.
        another = "(i32.store (i32.const 1024) (local.tee $n (i32.add (local.get $n) (i32.const 1))))"
        body = f"(loop $l {another} {ASKS} (br $l))"
        handle = start(runs, module(body), service, lease)
        eventually(lambda: slow[0].asked, "it asks")
        runs.runner.cancel(handle, "cancelled")
        assert runs.end(handle)[0].category is Category.CANCELLED

    def test_the_next_attempt_gets_its_own_answers(self, runs: Runs, slow: tuple[Api, threading.Event]) -> None:
        for _ in range(3):
            lease = leased(runs, ALL, timeout_ms=300)
            runs.end(start(runs, module(ASKS), host(slow[0], lease), lease))
        slow[1].set()
        for _ in range(3):
            lease = leased(runs, ALL)
            outcome, _ = runs.end(start(runs, module(EXIT_WITH_STATUS), host(Api(), lease), lease))
            assert outcome.exit_code == 1  # NOT_FOUND, as the platform says

    def test_the_runner_closes(self, tmp_path: Path, slow: tuple[Api, threading.Event]) -> None:
        runner = WasmRunner(tmp_path / "state", tmp_path / "cache", 1, SystemClock())
        own = Runs(runner)
        lease = leased(own, ALL)
        start(own, module(ASKS), host(slow[0], lease), lease)
        eventually(lambda: slow[0].asked, "it asks")
        began = time.monotonic()
        runner.close()
        assert time.monotonic() - began < GRACE_S


@pytest.mark.parametrize("error", [StaleFence("another attempt holds it"), Unavailable("down"), RuntimeError("defect")])
def test_a_platform_that_refuses_ends_no_attempt(runs: Runs, error: Exception) -> None:
    api = Api()

    def wait() -> None:
        raise error

    api.wait = wait
    lease = leased(runs, ALL)
    made = host(api, lease)
    outcome, _ = runs.end(start(runs, module(EXIT_WITH_STATUS), made, lease))
    assert outcome.exit_code == 6  # UNAVAILABLE


def test_a_flood_of_host_calls_has_its_budget_and_its_log_a_bound(runs: Runs) -> None:
    body = """(loop $again
        (drop (call $log (i32.const 1) (i32.const 1024) (i32.const 4096)))
        (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 12000))))"""
    lease = leased(runs, ALL)
    handle = start(runs, module(body), host(Api(), lease), lease)
    outcome, _ = runs.end(handle)
    assert outcome.category is Category.OK
    assert "host_calls" in outcome.detail
    size = (state(runs) / f"{handle.job}.{handle.attempt}" / "stderr").stat().st_size
    assert 0 < size <= bounds.LOG_CHUNK_MAX + bounds.LOG_ENTRIES_MAX * len("warning: \n")


def test_what_is_refused_is_told_in_its_log(runs: Runs) -> None:
    body = "(drop (call $secret (i32.const 1024) (i32.const 3)))"
    lease = leased(runs, ALL)
    handle = start(runs, module(body), host(Api(), lease), lease)
    runs.end(handle)
    assert "".join(entry.text for entry in runs.entries(handle)) == "warning: secret: 'key' was not granted\n"


def test_attempts_at_once_have_each_its_own_host(runs: Runs) -> None:
    hosts, handles = [], []
    body = """(drop (call $kv_put (i32.const 1024) (i32.const 3) (i32.const 1024) (i32.const 3) (i64.const -1)))"""
    for number in range(12):
        lease = leased(runs, ALL)
        made = host(Api(), lease)
        hosts.append(made)
        handles.append(start(runs, module(body, f"{number:03d}"), made, lease))
    for number, (made, handle) in enumerate(zip(hosts, handles, strict=True)):
        assert runs.end(handle)[0].category is Category.OK
        assert [each.key for each in made.buffer.touched()] == [f"{number:03d}".encode()]
