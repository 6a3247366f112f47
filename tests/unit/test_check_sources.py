"""The source checker finds what it is for, and does not find itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
HASH = "--hash=sha256:" + "0" * 64


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_sources", ROOT / "scripts" / "check_sources.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def findings(checker: ModuleType, tmp_path: Path):
    def run(name: str, text: str) -> list[str]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return [f"{line}: {what}" for line, what in checker.check(tmp_path, name)]

    return run


@pytest.mark.parametrize("word", ["TO" + "DO", "FIX" + "ME", "X" + "XX", "NotImplemented" + "Error"])
def test_unfinished_work_is_found_outside_tests(findings, word: str) -> None:
    assert findings("layers/a.py", f"a = 1\nraise {word}  # {word}: later\n") == [f"2: unfinished: {word}"]
    assert findings("tests/a.py", f"# {word}\n") == []


def test_words_that_only_contain_one_are_fine(findings) -> None:
    assert findings("a.py", "mkstemp('aXX" + "XXXX')\nmasto" + "dont = 1\nTO" + "DOS = 2\n") == []


@pytest.mark.parametrize("host", ["files.python" + "hosted.org", "py" + "pi.org", "registry.npm" + "js.org"])
def test_registry_addresses_are_found_in_tests_too(findings, host: str) -> None:
    assert len(findings("tests/a.txt", f"see https://{host}/simple\n")) == 1


@pytest.mark.parametrize(
    "line", ["/wo" + "rk/main/x", "'/ro" + "ot/.cache'", "cwd=/ho" + "me/someone/src", '"/wo' + 'rk/shared"']
)
def test_paths_of_one_machine_are_found(findings, line: str) -> None:
    assert len(findings("a.py", line)) == 1


@pytest.mark.parametrize(
    "line", ["tests/ro" + "ot/x", "$HZC_HOME/ro" + "ot/x", "/v1/wo" + "rk/main", "/wo" + "rk/input"]
)
def test_other_paths_are_fine(findings, line: str) -> None:
    assert findings("a.py", line) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pytest\npytest.{}('no')\n".format("skip"),
        "import pytest\n@pytest.mark.{}\ndef test(): ...\n".format("xfail"),
        "import pytest\nx = pytest.{}('numpy')\n".format("importorskip"),
        "from pytest import {}\n".format("skip"),
        "import pytest\npytestmark = [pytest.mark.{}(True, reason='')]\n".format("skipif"),
        "import unittest\n@unittest.{}('no')\ndef test(): ...\n".format("skip"),
        "class T:\n    def test(self): self.{}('no')\n".format("skipTest"),
    ],
)
def test_tests_cannot_be_passed_over(findings, code: str) -> None:
    assert len(findings("tests/unit/test_a.py", code)) == 1


def test_methods_that_happen_to_be_called_so_are_fine(findings) -> None:
    assert findings("tests/unit/test_a.py", "reader.skip(4)\n'pytest.skip'\n") == []


def test_files_stay_short(findings) -> None:
    assert findings("a.py", "\n" * 600) == []
    assert findings("a.py", "\n" * 601) == ["601: longer than 600 lines"]
    assert findings("a.json", "\n" * 601) == []
    assert findings("static/vendor/a.js", "\n" * 601) == []


def test_locks_pin_version_and_hash(findings) -> None:
    pinned = f"# made by\na-b==1.0 ; sys_platform == 'win32' \\\n    {HASH} \\\n    {HASH}\nc[d]==2 {HASH}\n"
    assert findings("requirements/x.lock", pinned) == []
    assert findings("requirements/x.lock", f"{pinned}e>=2 {HASH}\n") == ["6: not pinned to a version: e>=2"]
    assert findings("requirements/x.lock", "a==1\nb==2.* " + HASH) == [
        "1: pinned without a hash: a==1",
        "2: not pinned to a version: b==2.*",
    ]


def test_files_that_are_not_text_are_passed_over(checker: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.wasm").write_bytes(b"\0asm\xff\xfe")
    assert list(checker.check(tmp_path, "a.wasm")) == []


@pytest.mark.parametrize("name", ["scripts/check_sources.py", "tests/unit/test_check_sources.py"])
def test_it_does_not_find_itself(checker: ModuleType, name: str) -> None:
    assert list(checker.check(ROOT, name)) == []
