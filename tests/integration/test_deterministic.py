"""The deterministic profile: the same program and input give the same output and the same fuel, wherever they run."""

from __future__ import annotations

import platform
import random
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.adapters.sandbox import interpreters
from hanzo_compute.adapters.sandbox.call import EPOCH_NS, Bounds, Report
from hanzo_compute.adapters.sandbox.settings import LEVELS, SANDBOX_VERSION, Profile, cpu_level, version
from tests.support import steady
from tests.support.steady import OUT, Way, command, in_process
from tests.support.wasm import Runs

# The interpreters may have to be compiled for this profile first.
pytestmark = pytest.mark.timeout(600)

PROGRAMS = steady.programs()
MODULES = {
    name: program.code
    for name, program in PROGRAMS.items()
    if isinstance(program.code, bytes) and name not in ("out of fuel", "grow")
}


@pytest.fixture(scope="module")
def cache(wasm_cache: Path) -> Path:
    """The cache, with the interpreters compiled for this profile."""
    for language in interpreters.PINS:
        interpreters.precompile(language, Profile.METERED, wasm_cache, print)
    return wasm_cache


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[list[Runs]]:
    """Two runners with one worker each."""
    runners = [WasmRunner(tmp_path_factory.mktemp("state"), cache, 1, SystemClock()) for _ in range(2)]
    yield [Runs(runner) for runner in runners]
    for runner in runners:
        runner.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_fuel_and_output_are_as_committed_in_each_of_two_workers_and_again(name: str, workers: list[Runs]) -> None:
    told = steady.golden()
    again = f"if that is meant, let settings.SANDBOX_VERSION be another, and run {told['made by']}"
    assert (told["engine"], told["sandbox"]) == (version(), SANDBOX_VERSION), again
    program = PROGRAMS[name]
    for runs in (workers[0], workers[0], workers[1]):
        found = {"program": program.digest, **steady.through(runs, program)}
        assert found == told["runs"][name], f"{name} is not what is committed: {again}"


def test_every_program_that_is_committed_is_run() -> None:
    assert set(steady.golden()["runs"]) == set(PROGRAMS)


def end(report: Report) -> tuple[object, ...]:
    return (report.kind, report.exit_code, report.trap, report.fuel, report.memory_bytes, report.limits, report.stdout)


def levels() -> list[str]:
    """The levels of this processor."""
    known = list(LEVELS.get(platform.machine(), {"": ()}))
    return known[known.index(cpu_level()) :]


@pytest.mark.parametrize("name", MODULES)
def test_it_is_the_same_in_this_process_on_every_level_with_both_bindings_and_on_another_file_system(
    name: str, tmp_path: Path, memory_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(way: Way, base: Path = tmp_path) -> tuple[object, ...]:
        folder = base / f"{len(list(base.iterdir()))}"
        folder.mkdir()
        return end(in_process(MODULES[name], folder, way))

    first = run(Way())
    ways = [Way(level) for level in levels()] + [Way(stdin="memory"), Way(pooled=False)]
    assert [run(way) for way in ways] == [first] * len(ways)
    assert run(Way(), memory_folder) == first
    monkeypatch.setenv("HZC_WASMTIME_PUBLIC", "1")
    assert [run(way) for way in ways] == [first] * len(ways)


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    """A folder on a file system of another kind: in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="hzc-test-") as name:
        assert Path(name).stat().st_dev != Path(__file__).stat().st_dev, "/dev/shm is no file system of its own"
        yield Path(name)


@pytest.mark.parametrize("name", ["hello.js", "world.js"])
def test_javascript_is_the_same_on_every_level(name: str, tmp_path: Path, cache: Path) -> None:
    interpreter = interpreters.ensure("javascript", cache)
    ends = []
    for number, level in enumerate(levels()):
        folder = tmp_path / str(number)
        folder.mkdir()
        code = PROGRAMS[name].code
        assert isinstance(code, str)
        inputs = (("main.js", code.encode()),)
        report = in_process(
            interpreter.path.read_bytes(), folder, Way(level), argv=(*interpreter.argv, "x"), inputs=inputs
        )
        ends.append(end(report))
    assert ends[0][:2] == ("exit", 0)
    assert ends == ends[:1] * len(ends)


def test_nans_are_canonical_whatever_made_them(tmp_path: Path) -> None:
    report = in_process(steady.nans(), tmp_path, Way())
    words = [word for (word,) in struct.iter_unpack("<Q", report.stdout)]
    wanted = {"f32": 0x7FC00000, "f64": 0x7FF8000000000000}
    wrong = [
        (expression, hex(word))
        for (kind, expression), word in zip(steady.NAN_OPERATIONS, words, strict=True)
        if word != wanted[kind]
    ]
    assert wrong == []


def test_clocks_are_logical_and_sleeps_return_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    report = in_process(steady.clocks(), tmp_path, Way())
    assert time.monotonic() - began < 60, "it asked for four days"
    looks = [struct.unpack_from("<Q24s32s", report.stdout, at) for at in range(0, len(report.stdout), 64)]
    day, look = 86_400_000_000_000, 1000
    assert [look_at[0] for look_at in looks] == [
        EPOCH_NS + look,
        day + 2 * look,
        2 * day + 3 * look,
        EPOCH_NS + 3 * day + 4 * look,
    ]
    assert len({look_at[1] for look_at in looks}) == 4, "randomness does not repeat"
    other = tmp_path / "other"
    other.mkdir()
    assert in_process(steady.clocks(), other, Way(), seed=b"another").stdout != report.stdout


def test_a_read_gives_all_that_there_is(tmp_path: Path) -> None:
    report = in_process(steady.reads(), tmp_path, Way())
    sizes, at = [], 0
    while at < len(report.stdout):
        sizes.append(struct.unpack_from("<I", report.stdout, at)[0])
        at += 4 + sizes[-1]
    assert sizes == [150_000, len(steady.STDIN) - 150_000, 0]


def test_standard_input_can_be_closed_but_not_written_to(tmp_path: Path) -> None:
    extra = '(import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))'
    body = f"""
      (i32.store (i32.const 16) (i32.const {OUT + 64})) (i32.store (i32.const 20) (i32.const 10))
      (i32.store (i32.const {OUT}) (call $fd_write (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
      (drop (call $fd_close (i32.const 0)))
      (i32.store (i32.const {OUT + 4}) (call $fd_read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))
      (call $emit (i32.const 8))"""
    report = in_process(command(body, more_imports=extra), tmp_path, Way())
    assert (report.kind, struct.unpack("<2I", report.stdout)) == ("exit", (8, 8))


NAMES = [f"{number:0230d}" for number in range(900)]


def listing(data: bytes) -> list[str]:
    """The names in what ``lists`` wrote: buffers of 4096 bytes, whose last entry is cut and comes again."""
    found = []
    for begin in range(0, len(data), 4096):
        buffer, at = data[begin : begin + 4096], 0
        while at + 24 <= len(buffer):
            (size,) = struct.unpack_from("<I", buffer, at + 16)
            if at + 24 + size <= len(buffer):
                found.append(buffer[at + 24 : at + 24 + size].decode())
            at += 24 + size
    return found


def test_directories_are_read_in_order_of_names_for_the_same_fuel(tmp_path: Path, memory_folder: Path) -> None:
    reports = []
    for seed, base in enumerate([tmp_path, tmp_path, memory_folder, memory_folder]):
        names = NAMES.copy()
        random.Random(seed).shuffle(names)
        inputs = tuple((name, b"") for name in names)
        reports.append(in_process(steady.lists(), _new(base), Way(), inputs=inputs))
    assert listing(reports[0].stdout) == [".", "..", *NAMES]
    assert [end(report) for report in reports] == [end(reports[0])] * 4


def test_a_guest_is_stopped_while_it_reads_directories(tmp_path: Path) -> None:
    inputs = tuple((name, b"") for name in NAMES)
    for number in range(5):
        report = in_process(steady.lists_forever(), _new(tmp_path), Way(), inputs=inputs, stop_s=0.2 + number / 500)
        assert (report.kind, report.trap) == ("trap", "interrupt")


def test_a_guest_that_reads_directories_runs_out_of_its_own_fuel_alone(tmp_path: Path) -> None:
    inputs = tuple((name, b"") for name in NAMES[:40])
    whole = in_process(steady.lists(), _new(tmp_path), Way(), inputs=inputs)
    assert (whole.kind, whole.exit_code) == ("exit", 0)
    assert whole.fuel is not None
    for fuel in (1, 30, 60, 90, 150, 300, whole.fuel // 2):
        cut = in_process(steady.lists(), _new(tmp_path), Way(), inputs=inputs, bounds=Bounds(fuel=fuel))
        assert (cut.kind, cut.trap, cut.fuel) == ("trap", "out_of_fuel", fuel)
    just = in_process(steady.lists(), _new(tmp_path), Way(), inputs=inputs, bounds=Bounds(fuel=whole.fuel))
    assert end(just) == end(whole)


def _new(base: Path) -> Path:
    folder = base / str(len(list(base.iterdir())))
    folder.mkdir()
    return folder
