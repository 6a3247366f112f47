"""The worker processes of the WASM runner: what they may do, how they die, and that none is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.adapters.sandbox import artefacts, engine, settings, worker
from hanzo_compute.adapters.sandbox.artefacts import Artefacts
from hanzo_compute.adapters.sandbox.cache import ArtefactCache
from hanzo_compute.adapters.sandbox.call import Bounds
from hanzo_compute.adapters.sandbox.process import Template, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.model.outcome import Category
from tests.support.wasm import SLEEP_30_S, SPIN, Runs, alive, children, command, eventually, wat, writes

HELLO = '(data (i32.const 1024) "hello\\n")'
TAG = settings.tag(Profile.FAST)
SECRET = "hzk_not_for_workers"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    monkeypatch.setenv("HZC_KEY", SECRET)
    runner = WasmRunner(tmp_path / "state", tmp_path / "cache", 1, SystemClock())
    yield Runs(runner)
    runner.close()


def only_worker(before: set[int]) -> int:
    (pid,) = children(os.getpid()) - before
    return pid


@pytest.fixture
def before() -> set[int]:
    return children(os.getpid())


def test_a_worker_has_no_secrets_few_rights_and_no_descriptors_of_ours(before: set[int], runs: Runs) -> None:
    with Path(os.devnull).open() as ours:
        os.set_inheritable(ours.fileno(), True)
        runs.run(command(""))
        worker_pid = only_worker(before)
        open_files = {str(path.readlink()) for path in Path(f"/proc/{worker_pid}/fd").iterdir()}
        assert len(open_files) < 12
    environment = Path(f"/proc/{worker_pid}/environ").read_bytes()
    assert SECRET.encode() not in environment
    assert b"HZC_" not in environment
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{worker_pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    limits = Path(f"/proc/{worker_pid}/limits").read_text()
    for name in ("Max core file size", "Max open files", "Max address space"):
        assert "unlimited" not in next(line for line in limits.splitlines() if line.startswith(name))
    assert os.getpgid(worker_pid) == os.getsid(worker_pid) == worker_pid


def test_the_guest_sees_none_of_our_environment(runs: Runs, wasm_cache: Path, tmp_path: Path) -> None:
    runner = WasmRunner(tmp_path / "other", wasm_cache, 1, SystemClock())
    _, stdout = Runs(runner).run("import json, os; print(json.dumps(dict(os.environ)))", env={"A": "b"})
    assert json.loads(stdout) == {"A": "b"}
    runner.close()


def test_a_worker_is_reused_and_replaced_in_time(before: set[int], runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanzo_compute.adapters.runner.wasm.runner.JOBS_PER_WORKER", 3)
    seen = []
    for _ in range(4):
        runs.run(command(""))
        seen.append(eventually(lambda: children(os.getpid()) - before, "a worker"))
    assert seen[0] == seen[1]
    assert seen[3] != seen[0]


def test_a_worker_that_is_killed_is_our_fault_and_replaced(before: set[int], runs: Runs) -> None:
    handle = runs.start(command(writes("hello\n") + SLEEP_30_S, extra=HELLO))
    runs.says(handle, "hello")
    os.kill(only_worker(before), signal.SIGKILL)
    outcome, stdout = runs.end(handle)
    assert (outcome.category, outcome.signal, stdout) == (Category.PLATFORM, 9, b"hello\n")
    assert "SIGKILL" in outcome.detail
    assert runs.run(command(""))[0].category == Category.OK


def test_an_idle_worker_that_is_killed_costs_nothing(before: set[int], runs: Runs) -> None:
    runs.run(command(""))
    pid = only_worker(before)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not alive(pid), "the worker gone")
    assert runs.run(command(""))[0].category == Category.OK


PARENT = """
    import sys, time
    from pathlib import Path
    from hanzo_compute.adapters.local.system import SystemClock
    from hanzo_compute.adapters.runner.wasm import WasmRunner
    from tests.support.wasm import Runs, command

    runs = Runs(WasmRunner(Path(sys.argv[1]), Path(sys.argv[2]), 2, SystemClock()))
    done = runs.start(command({hello!r}, extra={data!r}))
    runs.end(done)
    handle = runs.start(command({hello!r} + {body!r}, extra={data!r}))
    runs.says(handle, "hello")
    print("running", flush=True)
    time.sleep(600)
"""


@pytest.mark.kill
@pytest.mark.parametrize("body", [SPIN, SLEEP_30_S], ids=["busy", "asleep"])
def test_kill_9_of_the_agent_leaves_no_worker_and_its_attempts_are_adopted(tmp_path: Path, body: str) -> None:
    script = textwrap.dedent(PARENT).format(hello=writes("hello\n"), data=HELLO, body=body)
    agent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "state"), str(tmp_path / "cache")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"running\n"
        workers = children(agent.pid)
        assert workers
    finally:
        agent.kill()
        agent.communicate()
    eventually(lambda: not any(alive(pid) for pid in workers), "no worker left")

    heir = WasmRunner(tmp_path / "state", tmp_path / "cache", 1, SystemClock())
    done, interrupted = sorted(heir.adopt(), key=lambda handle: handle.job)
    runs = Runs(heir)
    outcome, stdout = runs.end(done)
    assert (outcome.category, outcome.exit_code, stdout) == (Category.OK, 0, b"hello\n")
    outcome, stdout = runs.end(interrupted)
    assert (outcome.category, stdout) == (Category.PLATFORM, b"hello\n")
    assert "restarted" in outcome.detail
    assert [entry.text for entry in runs.entries(interrupted)] == ["hello\n"]
    assert heir.adopt() == []
    for handle in (done, interrupted):
        heir.reap(handle)
    assert list((tmp_path / "state" / "attempts").iterdir()) == []
    heir.close()


def test_what_a_crash_left_half_made_is_removed(tmp_path: Path) -> None:
    attempts = tmp_path / "state" / "attempts"
    (attempts / ".new-0123").mkdir(parents=True)
    (attempts / "j-unreadable.1").mkdir()
    runner = WasmRunner(tmp_path / "state", tmp_path / "cache", 1, SystemClock())
    (handle,) = runner.adopt()
    assert runner.collect(handle).outcome.category == Category.PLATFORM
    assert runner.logs(handle, 0) == ([], 0)
    runner.reap(handle)
    assert list(attempts.iterdir()) == []
    runner.close()


@pytest.mark.slow
def test_no_worker_aborts_at_its_exit(tmp_path: Path) -> None:
    """wasmtime with Python callbacks for output aborted in 1 of 36 interpreter exits."""
    module = command(writes("hello\n"), extra=HELLO)
    digest = hashlib.sha256(module).hexdigest()
    compiled = Artefacts(tmp_path / "cache", "fast", TAG)
    os.close(compiled.get(digest, lambda: module))
    template = Template(compiled.name(digest), "fast", {"argv": ["module"]}, Bounds(memory_mib=1))

    def one_life(number: int) -> tuple[int, bytes, bytes]:
        process = WorkerProcess()
        answered = process.call(process.prepare(template, lambda: compiled.get(digest, lambda: module)), b"", 30)
        assert answered is not None
        assert answered.report is not None
        code, words = process.leave()
        return code, words, answered.report.output

    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(one_life, range(100))) == {(0, b"", b"hello\n")}


def test_a_worker_ends_when_its_parent_is_another_than_it_was_told(tmp_path: Path) -> None:
    command_line = [sys.executable, "-m", worker.__name__, "1", "0"]
    assert subprocess.run(command_line, stdin=subprocess.DEVNULL, timeout=60, check=False).returncode == 1


def many_functions(count: int) -> bytes:
    body = "".join(f"(func (result i32) (i32.add (i32.const {n}) (i32.const 1)))" for n in range(count))
    return wat(f'(module (func (export "_start")) {body})')


def test_a_module_that_takes_too_long_to_compile_is_an_invalid_program(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artefacts, "COMPILE_S", 0.25)
    monkeypatch.setattr(artefacts, "OWN_SHARE", 0.0)  # however busy the machine is
    module = many_functions(40_000)
    outcome, _ = runs.run(module)
    assert outcome.category == Category.INVALID_PROGRAM
    assert "longer than 0.25 s" in outcome.detail
    assert not ArtefactCache(tmp_path / "cache", TAG).path(hashlib.sha256(module).hexdigest()).exists()


def test_cancel_does_not_wait_for_a_compile(runs: Runs, tmp_path: Path) -> None:
    handle = runs.start(many_functions(40_000))
    eventually(lambda: list((tmp_path / "cache").glob("compile-*/module.wasm")), "the compile has begun")
    runs.runner.cancel(handle, "cancelled")
    outcome, _ = runs.end(handle)
    assert outcome.category == Category.CANCELLED
    assert list((tmp_path / "cache" / "artefacts").glob("*.cwasm")) == []
    assert runs.run(command(""))[0].category == Category.OK


def test_an_interpreter_that_cannot_be_had_is_our_fault(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    outcome, _ = runs.run("print(1)")
    assert outcome.category == Category.PLATFORM
    assert "or put bin/python.wasm of the wheel" in outcome.detail
    assert runs.run(command(""))[0].category == Category.OK


def test_two_workers_that_need_one_module_compile_it_once(tmp_path: Path) -> None:
    runner = WasmRunner(tmp_path / "state", tmp_path / "cache", 2, SystemClock())
    runs = Runs(runner)
    module = many_functions(2_000)
    for handle in [runs.start(module) for _ in range(2)]:
        assert runs.end(handle)[0].category == Category.OK
    assert len(list((tmp_path / "cache" / "artefacts").glob("*.cwasm"))) == 1
    assert list((tmp_path / "cache" / "artefacts").glob("*.tmp")) == []
    runner.close()


def test_an_artefact_signed_with_another_key_never_runs(tmp_path: Path) -> None:
    ok, not_ok = command(""), command("(call $exit (i32.const 7))")
    cache = tmp_path / "cache"
    for module in (ok, not_ok):
        runner = WasmRunner(tmp_path / "state", cache, 1, SystemClock())
        Runs(runner).run(module)
        runner.close()
    artefacts = ArtefactCache(cache, TAG)
    ok_path, not_ok_path = (artefacts.path(hashlib.sha256(module).hexdigest()) for module in (ok, not_ok))
    forged = ArtefactCache(tmp_path / "forger", TAG)
    forged.store(hashlib.sha256(ok).hexdigest(), not_ok_path.read_bytes()[:-32])
    ok_path.write_bytes(forged.path(hashlib.sha256(ok).hexdigest()).read_bytes())
    runner = WasmRunner(tmp_path / "state", cache, 1, SystemClock())
    assert Runs(runner).run(ok)[0].exit_code == 0
    runner.close()


def test_a_corrupted_artefact_is_compiled_anew(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    module = command("(call $exit (i32.const 7))")
    for spoil in (False, True):
        runner = WasmRunner(tmp_path / "state", cache, 1, SystemClock())
        if spoil:
            (artefact,) = (cache / "artefacts").glob("*.cwasm")
            data = bytearray(artefact.read_bytes())
            middle = len(data) // 2
            data[middle : middle + 3000] = b"\xcc" * len(data[middle : middle + 3000])
            artefact.write_bytes(data)
        assert Runs(runner).run(module)[0].exit_code == 7
        runner.close()
    fd = ArtefactCache(cache, TAG).sealed(hashlib.sha256(module).hexdigest())
    assert fd is not None
    os.close(fd)


def test_compiling_in_this_process_does_not_hang_its_workers(runs: Runs) -> None:
    # After a compile, a forked child that compiles waits for ever: workers are new processes.
    import wasmtime

    wasmtime.Module(wasmtime.Engine(), wat('(module (func (export "f")))'))
    assert runs.run(command(""))[0].category == Category.OK


def test_stacks_are_within_what_the_engine_survives() -> None:
    # Over 2 MiB, making an engine aborts the process; under 4 MiB of thread, deep recursion is a SIGSEGV.
    assert 0 < settings.WASM_STACK <= 2 << 20
    assert worker.GUEST_STACK >= 4 << 20


@pytest.mark.parametrize("word", ["stdout_custom", "stderr_custom", "define_func", "_ffi", "wasmtime.Func(", "._c."])
def test_one_module_alone_goes_below_the_public_api(word: str) -> None:
    # Exceptions of host functions reach other threads' calls, and output callbacks run on foreign threads.
    folder = Path(engine.__file__).parent
    found = {path.name for path in folder.glob("*.py") if word in path.read_text()}
    allowed = {"define_func": {"binding.py", "public.py"}, "stdout_custom": set(), "stderr_custom": set()}
    assert found <= allowed.get(word, {"binding.py"})
