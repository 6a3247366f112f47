"""Programs of several files: as jobs in the runner, as functions in the pool."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.adapters.sandbox import layout
from hanzo_compute.adapters.sandbox.pool import Pool
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.outcome import Category, Outcome
from hanzo_compute.model.package import InvalidPackage, environment, unpack
from hanzo_compute.model.spec import Source, sha256
from hanzo_compute.ports import Handle
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram
from tests.support.packages import archive, javascript_package, python_package, raw_entry, wheel, zipped
from tests.support.wasm import Runs

# An interpreter may have to be compiled for a profile first.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def runs(state: Path, wasm_cache: Path) -> Iterator[Runs]:
    runner = WasmRunner(state, wasm_cache, 1, SystemClock())
    yield Runs(runner)
    runner.close()


def source(data: bytes, language: str = "python", **fields: Any) -> dict[str, str]:
    given = {"package": f"b1-{sha256(data)}", "language": language, **fields}
    return Source.model_validate(given).model_dump(exclude_none=True)


def start(runs: Runs, data: bytes, language: str = "python", stdin: bytes = b"", **options: Any) -> Handle:
    entry = {"entry": options.pop("entry")} if "entry" in options else {}
    lease = runs.lease(source(data, language, **entry), **options)
    return runs.runner.start(lease, module=data, stdin=stdin)


def run(runs: Runs, *given: Any, **options: Any) -> tuple[Outcome, bytes]:
    return runs.end(start(runs, *given, **options))


def test_a_program_of_several_files_with_a_wheel(runs: Runs) -> None:
    outcome, stdout = run(runs, python_package(), stdin=b"you")
    assert (outcome.category, stdout) == (Category.OK, b"hello you\n"), outcome


def test_relative_imports_of_javascript(runs: Runs) -> None:
    outcome, stdout = run(runs, javascript_package(), "javascript")
    assert (outcome.category, stdout) == (Category.OK, b"42\n"), outcome


def test_another_file_to_begin_with_and_its_own_search_path(runs: Runs) -> None:
    program = (
        "import importlib.metadata, sys, top, mine, greet\n"
        "print(sys.argv, top.TOP, mine.MINE, importlib.metadata.version('greet'))\n"
        "print([path for path in sys.path if path.startswith('/in')], __file__)\n"
    )
    more = {"app/begin.py": program, "top.py": "TOP = 1", "own/mine.py": "MINE = 2"}
    outcome, stdout = run(runs, python_package(**more), entry="app/begin.py", args=["x"], env={"PYTHONPATH": "/in/own"})
    assert stdout.decode().splitlines() == [
        "['/in/app/begin.py', 'x'] 1 2 1.0",
        "['/in/app', '/in', '/in/site', '/in/own'] /in/app/begin.py",
    ], outcome
    outcome, stdout = run(runs, zipped({"lib/x.js": "console.log(1)"}), "javascript", entry="lib/x.js")
    assert (outcome.category, stdout) == (Category.OK, b"1\n")


def test_the_program_sees_its_folder_read_only(runs: Runs) -> None:
    program = (
        "import os\n"
        "for name in ('/in/main.py', '/in/app/new', '/in/site/greet/words.py'):\n"
        "    try:\n        open(name, 'w')\n        print('wrote', name)\n    except OSError:\n        pass\n"
        "print(sorted(os.listdir('/in')))\n"
    )
    outcome, stdout = run(runs, zipped({"main.py": program, "app/x": b"", "wheels/g-1-py3-none-any.whl": wheel()}))
    assert stdout == b"['app', 'main.py', 'site']\n", outcome


def test_deterministic_runs_are_the_same_and_depend_on_all_that_is_in_the_package(runs: Runs) -> None:
    dice = (
        "import os, random\nprint(random.random(), os.urandom(4), sorted(os.walk('/in')), os.stat('/in/a').st_mtime)\n"
    )
    one, other = (zipped({"main.py": dice, "a": text}) for text in ("1", "2"))
    options: dict[str, Any] = {"profile": "deterministic", "fuel": 10**10}
    first, again, changed = (run(runs, data, **options) for data in (one, one, other))
    assert first[0].category == Category.OK, first
    assert (first[1], first[0].usage.fuel) == (again[1], again[0].usage.fuel)
    assert first[1].split()[0] != changed[1].split()[0]


def test_a_bad_package_is_the_programs_fault_and_leaves_nothing(runs: Runs, state: Path) -> None:
    local, central = raw_entry(b"../../../slipped", b"x", offset=0)
    bad = {
        "no file 'main.py'": zipped({"other.py": ""}),
        "no ZIP archive": b"not an archive",
        "rename it": archive(local, central, 1),
        "over 200 times": zipped({"main.py": "", "zeros": bytes(8 << 20)}),
        "manylinux": zipped({"main.py": "", "wheels/n-1-cp312-cp312-manylinux_x86_64.whl": wheel()}),
    }
    for why, data in bad.items():
        handle = start(runs, data)
        outcome, stdout = runs.end(handle)
        assert (outcome.category, stdout) == (Category.INVALID_PROGRAM, b""), why
        assert why in outcome.detail
        # The next agent would know, too.
        kept = state / "attempts" / f"{handle.job}.1"
        assert why in Outcome.model_validate_json((kept / "result.json").read_bytes()).detail
        assert list((kept / "in").iterdir()) == []
    assert not list(state.rglob("slipped"))
    assert not [path for path in (state / "attempts").iterdir() if path.name.startswith(".new")]
    with pytest.raises(InvalidRequest, match="not handed over"):
        runs.runner.start(runs.lease(source(b"")), module=None, stdin=b"")


def test_files_are_laid_out_inside_their_folder_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    layout.write(root, [("a/b/c", b"1"), ("a/d", b"2")])
    assert ((root / "a/b/c").read_bytes(), (root / "a/d").read_bytes()) == (b"1", b"2")
    for name in ("../x", "/x", str(tmp_path / "x"), "a/../../x", ""):
        with pytest.raises(InvalidPackage):
            layout.write(root, [(name, b"")])
    (root / "link").symlink_to(tmp_path / "x")
    with pytest.raises(FileExistsError):
        layout.write(root, [("link", b"")])
    assert not (tmp_path / "x").exists()


def program(key: str, data: bytes, asked: list[int], **fields: Any) -> GuestProgram:
    def files() -> Mapping[str, bytes]:
        asked.append(threading.get_ident())
        return dict(unpack(data, "python", "main.py"))

    env = environment("python", {})
    made = GuestProgram(key, "command", "fast", bytes, "", "python", files, "main.py", env=env)
    return replace(made, **fields)


def test_a_function_is_unpacked_once_and_not_on_the_loop(tmp_path: Path, wasm_cache: Path) -> None:
    asked: list[int] = []
    greets = program("t/greet@1", python_package(), asked)
    bad = program("t/bad@1", python_package()[:-1], [])
    escapes = program("t/escapes@1", b"", [], files=lambda: {"main.py": b"", "../../escaped": b""})
    rng = random.Random(4)

    async def calls() -> None:
        pool = Pool(tmp_path, wasm_cache, 1)
        try:
            for who in (f"{rng.random()}" for _ in range(3)):
                result = await pool.call(GuestCall(greets, "t", who.encode(), 60.0))
                assert (result.category, result.output) == ("ok", f"hello {who}\n".encode()), result
            result = await pool.call(GuestCall(bad, "t", b"", 60.0))
            assert (result.category, "ZIP archive" in result.detail) == ("invalid_program", True)
            result = await pool.call(GuestCall(escapes, "t", b"", 60.0))
            assert (result.category, "has a part" in result.detail) == ("invalid_program", True)
            (folder,) = (tmp_path / "functions").glob("*/*")
            assert {path.name for path in folder.iterdir()} == {"main.py", "app", "site", "hzc.py"}
        finally:
            await pool.close()

    asyncio.run(calls())
    assert len(asked) == 1
    assert asked[0] != threading.get_ident()
    assert not list(tmp_path.rglob("escaped"))
    assert not list((tmp_path / "functions").iterdir())
