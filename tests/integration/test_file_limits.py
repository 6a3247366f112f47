"""The limits of files and output that docs/jobs.md promises: the errno, and what the outcome says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.model.outcome import Category
from tests.support.wasm import Runs

DOCS = Path(__file__).resolve().parents[2] / "docs" / "jobs.md"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, wasm_cache: Path) -> Iterator[Runs]:
    runner = WasmRunner(tmp_path_factory.mktemp("state"), wasm_cache, 1, SystemClock())
    yield Runs(runner)
    runner.close()


CASES = {
    "scratch": (
        "file = open('/tmp/a', 'wb', 0)\nn = 0\nwhile True: n += file.write(bytes(1 << 20))",
        "ENOSPC",
        64 << 20,
    ),
    "deleted": (
        "import os\nn = 0\nwhile True:\n  with open('/tmp/a', 'wb', 0) as f: n += f.write(bytes(1 << 20))\n"
        "  os.unlink('/tmp/a')",
        "ENOSPC",
        64 << 20,
    ),
    "scratch_files": ("n = 0\nwhile True:\n  open(f'/tmp/{n}', 'w').close()\n  n += 1", "ENOSPC", 1000),
    "folders": ("import os\nn = 0\nwhile True:\n  os.mkdir(f'/tmp/{n}')\n  n += 1", "ENOSPC", 1000),
    "open_files": ("kept, n = [], 0\nwhile True:\n  kept.append(open('/in/main.py'))\n  n += 1", "EMFILE", 32),
}
SAID = {"deleted": "scratch", "folders": "scratch_files"}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("profile", ["fast", "deterministic"])
def test_a_budget_that_is_used_up(runs: Runs, name: str, profile: str) -> None:
    code, errno, most = CASES[name]
    inside = "\n  ".join(code.splitlines())
    program = f"import errno\ntry:\n  {inside}\nexcept OSError as error:\n  print(errno.errorcode[error.errno], n)"
    outcome, stdout = runs.run(program, profile=profile)
    said, number = stdout.split()
    assert (outcome.category, said) == (Category.OK, errno.encode())
    # The interpreter has a file of its own open while it starts.
    assert most - 2 <= int(number) <= most
    assert f"({SAID.get(name, name)})" in outcome.detail
    assert outcome.detail in DOCS.read_text(encoding="utf-8")


def test_output_is_cut_and_named(runs: Runs) -> None:
    writes = "import errno, os\ntry:\n  while True: os.write({}, bytes(1 << 20))\nexcept OSError as error:\n  {}"
    outcome, stdout = runs.run(writes.format(2, "print(errno.errorcode[error.errno])"))
    assert stdout == b"ENOSPC\n"
    assert outcome.detail == "what it wrote to stderr was cut at its bound"
    assert outcome.detail in DOCS.read_text(encoding="utf-8")
    outcome, stdout = runs.run(writes.format(1, "pass"))
    assert (len(stdout), "stdout" in outcome.truncated) == (8 << 20, True)
