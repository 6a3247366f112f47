"""The conformance guests and those of the SDKs in our workers: in every profile, and with both ways to use wasmtime."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox.artefacts import CannotCompile
from hanzo_compute.adapters.sandbox.call import Bounds, Folder, Report
from tests.support import guests
from tests.support.engines import need_guests
from tests.support.guest_host import http_request, http_response
from tests.support.host_service import HostService
from tests.support.sandbox import Lab

# Building may have to install the tools first.
pytestmark = pytest.mark.timeout(900)

CASES = {case.name: case for case in guests.cases()}
MODES = {
    "fast": ("fast", False),
    "metered": ("metered", False),
    "deterministic": ("metered", True),
}
BACKENDS = ("raw", "public")
LOGICAL = {"clocks-wall": "FAIL the time of day"}
"""What holds in real time only: every deterministic run is in the year 2000."""
REFUSED = "wat-many-locals"
LIMITED = {"wat-fd-write": ["stdout"]}
"""It writes a GiB; as much as may be kept is."""
NEVER_S = 1.0


@pytest.fixture(scope="session", autouse=True)
def built() -> Path:
    need_guests()
    return guests.BUILT


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=BACKENDS)
def lab(request: pytest.FixtureRequest, cache: Path) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HZC_WASMTIME_PUBLIC", raising=False)
        if request.param == "public":
            patch.setenv("HZC_WASMTIME_PUBLIC", "1")
        made = Lab(cache)
        yield made
        environment = Path(f"/proc/{made.worker().pid}/environ").read_bytes()
        assert (b"HZC_WASMTIME_PUBLIC=1" in environment) == (request.param == "public")
        made.close()


def run(lab: Lab, case: guests.Case, mode: str, root: Path) -> Report:
    profile, deterministic = MODES[mode]
    folders = [Folder(str(path), at, case.folders[at].writable) for at, path in case.lay_out(root).items()]
    return lab.run(
        case.module(),
        case.stdin,
        profile=profile,
        deterministic=deterministic,
        timeout_s=NEVER_S if case.ends == "never" else 60,
        argv=[case.name, *case.args],
        env=dict(case.env),
        folders=folders,
        bounds=Bounds(memory_mib=case.memory_mib or 256),
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_a_conformance_guest_holds(lab: Lab, mode: str, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    if name == REFUSED:
        with pytest.raises(CannotCompile, match="over 10000 locals"):
            run(lab, case, mode, tmp_path)
        return
    report = run(lab, case, mode, tmp_path)
    failed = [line for line in report.stdout.decode(errors="replace").splitlines() if line.startswith("FAIL")]
    if mode == "deterministic" and name in LOGICAL:
        assert failed == [LOGICAL[name]]
        return
    assert failed == []
    assert report.limits == LIMITED.get(name, [])
    if case.ends == "never":
        assert (report.kind, report.trap) == ("trap", "interrupt")
    elif report.kind == "exit":
        assert "exit" in case.ends
        assert report.exit_code == case.exit_code
    else:
        assert "trap" in case.ends
        assert report.kind in ("trap", "oom")
        assert report.detail
    if case.stdout is not None:
        assert report.stdout == case.stdout
    assert (tmp_path / "outside.txt").read_text() == "out of reach\n"
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "made.txt").exists()


COUNTED = {
    "big-output": {"fd_write": 2},
    "small-writes": {"fd_write": 100},
    "stdin-large": {"fd_read": 2, "fd_write": 2},
    "clocks": {"clock_time_get": 2000},
    "randomness": {"random_get": 4},
    "poll": {"poll_oneoff": 8, "clock_time_get": 4, "fd_read": 2},
    "wat-sleep": {"poll_oneoff": 1},
    "files": {"path_open": 30, "fd_write": 10},
}
"""Functions of WASI that are ours, and how often at least each guest calls them."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", COUNTED)
def test_calls_went_through_our_part_of_wasi(lab: Lab, mode: str, name: str, tmp_path: Path) -> None:
    counters = run(lab, CASES[name], mode, tmp_path).counters
    assert {each: count for each, count in counters.items() if count < COUNTED[name].get(each, 0)} == {}
    assert counters.keys() >= COUNTED[name].keys()


@pytest.mark.parametrize("name", ["args", "clocks", "randomness", "files", "poll", "errors", "recursion", "big-output"])
def test_a_deterministic_run_is_the_same_with_both_ways(cache: Path, name: str, tmp_path: Path) -> None:
    reports = []
    for backend in ("", "1", ""):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HZC_WASMTIME_PUBLIC", backend)
            lab = Lab(cache)
            root = tmp_path / f"run-{len(reports)}"
            root.mkdir()
            report = run(lab, CASES[name], "deterministic", root)
            lab.close()
        report.wall_ms = report.cpu_ms = 0
        reports.append(report)
    assert reports[0] == reports[1] == reports[2]
    assert reports[0].fuel


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["hostcalls.wasm", "hostcalls-as.wasm"])
def test_every_host_call(lab: Lab, mode: str, name: str) -> None:
    profile, deterministic = MODES[mode]
    service = HostService(secrets={b"token": b"opensesame"}, input=bytes(i * 7 % 251 for i in range(100_000)))
    heard: list[tuple[int, bytes]] = []
    lab.service, lab.output = service, lambda stream, data: heard.append((stream, data))
    report = lab.run(
        (guests.BUILT / "tests" / name).read_bytes(),
        entry="reactor",
        profile=profile,
        deterministic=deterministic,
        granted=["kv", "secrets", "http", "input", "outputs"],
    )
    lines = report.output.decode().splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert len(lines) == 32
    assert heard == [(0, "info\0a line: üñï".encode()), (0, b"debug\0")]
    assert service.outputs == {b"part": b"some more"}
    assert service.values == {}
    assert report.counters["hzc.kv_put"] == service.calls.count("kv_put")


@pytest.mark.parametrize("mode", MODES)
def test_the_reactors_of_the_sdks(lab: Lab, mode: str) -> None:
    profile, deterministic = MODES[mode]
    service = lab.service = HostService()

    def ask(name: str, data: bytes) -> bytes:
        module = (guests.BUILT / f"{name}.wasm").read_bytes()
        options = {"profile": profile, "deterministic": deterministic, "granted": ["kv", "secrets", "http"]}
        return lab.run(module, data, entry="reactor", **options).output

    numbers = [random.Random(mode).getrandbits(64) for _ in range(1000)]
    assert ask("sum", struct.pack("<1000Q", *numbers)) == struct.pack("<Q", sum(numbers) % 2**64)
    large = random.Random(mode).randbytes(5_000_000)
    assert ask("echo", large) == large
    for name in ("counter", "counter-as"):
        assert [ask(name, name.encode()) for _ in range(3)] == [b"1", b"2", b"3"]
    assert service.values == {b"counter": (3, b"3"), b"counter-as": (3, b"3")}
    for name in ("site", "site-as"):
        status, _, body = http_response(ask(name, http_request("GET", "/hello/Ada")))
        assert (status, body) == (200, b"Hello, Ada!\n")
    for name in ("fetch", "fetch-as"):
        status, _, body = http_response(ask(name, b"https://example.test/"))
        assert (status, body) == (502, b"fetch: the secret token: not found\n")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["wordcount", "wordcount-as"])
def test_the_commands_of_the_sdks(lab: Lab, mode: str, name: str) -> None:
    profile, deterministic = MODES[mode]
    text = "üñï → 😀\r\n".encode() * 9999
    report = lab.run((guests.BUILT / f"{name}.wasm").read_bytes(), text, profile=profile, deterministic=deterministic)
    assert report.stdout == b"%d %d %d\n" % (text.count(b"\n"), len(text.split()), len(text))
