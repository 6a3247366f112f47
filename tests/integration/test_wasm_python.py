"""Python source as a job: CPython in the WASM runner, on real input."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.adapters.sandbox import interpreters
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.errors import NotSupported
from hanzo_compute.model.outcome import Category
from tests.support.wasm import Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, wasm_cache: Path) -> Iterator[Runs]:
    runner = WasmRunner(tmp_path_factory.mktemp("state"), wasm_cache, 2, SystemClock())
    yield Runs(runner)
    runner.close()


SALES = """
import csv, json, sys
from collections import Counter

total = Counter()
rows = 0
for row in csv.DictReader(sys.stdin):
    total[row["city"]] += int(row["amount"])
    rows += 1
print(f"{rows} rows", file=sys.stderr)
print(json.dumps(dict(sorted(total.items()))))
"""


def test_a_table_of_some_hundred_kilobytes_is_summed_up(runs: Runs) -> None:
    rng = random.Random(7)
    cities = ["Zürich", "São Paulo", "東京", "Łódź"]
    rows = [(rng.choice(cities), rng.randrange(1000)) for _ in range(20_000)]
    table = io.StringIO()
    csv.writer(table).writerows([("city", "amount"), *rows])
    data = table.getvalue().encode()
    assert len(data) > 200_000

    handle = runs.start(SALES, stdin=data)
    outcome, stdout = runs.end(handle)
    assert (outcome.category, outcome.exit_code, outcome.truncated) == (Category.OK, 0, [])
    assert outcome.runtime_version == "wasmtime 50.0.1 hzc-wasi 1 cpython 3.12.0"
    assert json.loads(stdout) == {city: sum(amount for name, amount in rows if name == city) for city in sorted(cities)}
    assert ("stderr", "20000 rows\n") in {(entry.stream, entry.text) for entry in runs.entries(handle)}
    assert outcome.usage.fuel is None  # the profile fast counts none
    assert outcome.usage.memory_peak_bytes > 1 << 20


def test_lines_can_be_followed_while_it_runs(runs: Runs) -> None:
    handle = runs.start("print('first')\nwhile True: pass")
    runs.says(handle, "first\n")
    assert not runs.runner.poll(handle, 0)
    runs.runner.cancel(handle, "cancelled")
    assert runs.end(handle)[0].category == Category.CANCELLED


def test_arguments_and_environment_are_the_jobs_own(runs: Runs) -> None:
    code = "import os, sys; print(sys.argv[1:], dict(os.environ))"
    _, stdout = runs.run(code, args=["a b", "", "ü"], env={"GREETING": "hej"})
    assert stdout.decode() == "['a b', '', 'ü'] {'GREETING': 'hej'}\n"


@pytest.mark.parametrize("code", [1, 3, 127, 255])
def test_the_exit_code_is_the_programs_own(runs: Runs, code: int) -> None:
    outcome, _ = runs.run(f"import sys; sys.exit({code})")
    assert (outcome.category, outcome.exit_code) == (Category.EXIT, code)


def test_an_exception_is_shown_in_the_detail_and_in_full_in_the_log(runs: Runs) -> None:
    handle = runs.start("def f():\n    return 1 / 0\nf()")
    outcome, _ = runs.end(handle)
    assert outcome.detail == "exit code 1: ZeroDivisionError: division by zero"
    log = "".join(entry.text for entry in runs.entries(handle))
    assert 'File "/in/main.py", line 2, in f' in log


def test_a_syntax_error_is_the_programs_fault(runs: Runs) -> None:
    outcome, _ = runs.run("def f(:")
    assert (outcome.category, outcome.exit_code) == (Category.EXIT, 1)
    assert "SyntaxError" in outcome.detail


@pytest.mark.parametrize(
    "code", ["x = []\nwhile True: x.append(b'x' * 100_000)", "x = b'x' * 500_000_000"], ids=["bit by bit", "at once"]
)
def test_running_out_of_memory_is_oom(runs: Runs, code: str) -> None:
    outcome, _ = runs.run(code, memory_mib=32)
    assert (outcome.category, outcome.oom, outcome.exit_code) == (Category.OOM, True, 1)
    assert outcome.usage.memory_peak_bytes <= 32 << 20


def test_deep_recursion_is_pythons_own_error(runs: Runs) -> None:
    outcome, _ = runs.run("def f(n): return f(n + 1)\nf(0)")
    assert (outcome.category, outcome.trap) == (Category.EXIT, None)
    assert "RecursionError" in outcome.detail


def test_a_sleeping_program_is_killed_at_its_timeout(runs: Runs) -> None:
    outcome, stdout = runs.run("import time; print('zzz'); time.sleep(60)", timeout_ms=5000)
    assert (outcome.category, stdout) == (Category.TIMEOUT, b"zzz\n")


ESCAPES = """
import os
os.listdir("/in")
attempts = [
    lambda: open("/in/new", "w"),
    lambda: open("/in/main.py", "a"),
    lambda: open("/in/../lease.json"),
    lambda: open("/lease.json"),
    lambda: open("/etc/passwd"),
    lambda: open("../../../etc/passwd"),
    lambda: os.mkdir("/in/d"),
    lambda: os.unlink("/in/main.py"),
    lambda: os.symlink("/etc/passwd", "/in/link"),
    lambda: os.open("/in", os.O_RDONLY | os.O_DIRECTORY) and open("/proc/self/environ"),
]
for number, attempt in enumerate(attempts):
    try:
        attempt()
    except OSError:
        continue
    print(number, "worked")
"""


def test_files_outside_and_writes_inside_the_input_folder_are_refused(runs: Runs) -> None:
    outcome, stdout = runs.run(ESCAPES)
    assert (outcome.category, stdout) == (Category.OK, b"")


def test_one_job_leaves_nothing_to_the_next(runs: Runs) -> None:
    leave = "import builtins, os; builtins.left = os.environ['LEFT'] = '1'; print(dict(os.environ))"
    runs.run(leave)
    for _ in range(2):
        _, stdout = runs.run("import builtins, os; print(hasattr(builtins, 'left'), dict(os.environ))")
        assert stdout == b"False {}\n"


def test_precompile_says_what_it_does_and_is_quick_the_second_time(wasm_cache: Path) -> None:
    said: list[str] = []
    interpreters.precompile("python", Profile.FAST, wasm_cache, said.append)
    assert said[-1] == "cpython 3.12.0 is ready (compiled earlier)"


def test_another_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotSupported):
        interpreters.ensure("cobol", tmp_path)
