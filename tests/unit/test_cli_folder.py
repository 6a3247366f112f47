"""A folder as FILE: packed, uploaded, run; or refused with what to do."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from hanzo_compute.model.package import unpack
from tests.support.cli import Hzc
from tests.support.fake_api import FakeApi
from tests.support.packages import GREET, wheel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "program"
    for name, data in {
        "main.py": b"import app.core\n",
        "app/core.py": b"",
        "app/__pycache__/core.pyc": b"x",
        ".git/config": b"x",
        ".env": b"SECRET",
        f"wheels/{GREET}": wheel(),
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(data)
    return made


def test_a_folder_is_packed_the_same_each_time(api: FakeApi, hzc: Hzc, folder: Path) -> None:
    hzc("submit", str(folder))
    os.utime(folder / "main.py", (1, 1))
    (folder / "main.py").chmod(0o755)
    hzc("run", str(folder), "-d", "--entry", "app/core.py")
    first, second = (job["spec"]["source"] for job in api.jobs.values())
    assert (first["language"], first["entry"], second["entry"]) == ("python", "main.py", "app/core.py")
    assert first["package"] == second["package"]
    found = dict(unpack(api.blobs[first["package"]], "python", "main.py"))
    assert {name for name in found if not name.startswith("site/")} == {"main.py", "app/core.py"}
    assert "site/greet/words.py" in found
    assert first["package"][:20] in hzc("show", "last").stdout


def test_a_folder_becomes_a_function(api: FakeApi, hzc: Hzc, folder: Path) -> None:
    assert hzc("fn", "deploy", "f", str(folder)).stdout == "f@1\n"
    source = hzc.json("fn", "show", "f@1")["spec"]["source"]
    assert (source["language"], source["entry"]) == ("python", "main.py")
    assert f"python, {source['package']}, main.py" in hzc("fn", "show", "f@1").stdout.replace("\n", " ")


@pytest.mark.parametrize("words", ["run {dir}", "submit {dir}", "fn deploy f {dir}", "run --local {dir}"])
def test_what_is_no_package_is_refused_before_anything_is_sent(
    api: FakeApi, hzc: Hzc, folder: Path, words: str
) -> None:
    def refused(*more: str) -> str:
        result = hzc(*words.format(dir=folder).split(), *more, code=2)
        return " ".join(result.stderr.split())

    assert "must end in .py, .js" in refused("--entry", "main.txt")
    (folder / "main.js").write_text("")
    assert "say with --entry" in refused()
    (folder / "main.js").unlink()
    (folder / "link").symlink_to("/etc/passwd")
    assert "link is a link or another special file: put a copy" in refused()
    (folder / "link").unlink()
    (folder / "all").symlink_to("/usr")
    assert "all is a link" in refused()
    (folder / "all").unlink()
    os.mkfifo(folder / "pipe")
    assert "special file" in refused()
    (folder / "pipe").unlink()
    (folder / "data").write_bytes(random.Random(1).randbytes(9 << 20))
    assert "over 8388608: leave some out, or give data as the input" in refused()
    with (folder / "data").open("wb") as file:
        file.truncate(1 << 40)
    assert "over 33554432 bytes or 2000 files" in refused()
    (folder / "data").unlink()
    (folder / "wheels/numpy-2.0-cp312-cp312-macosx_14_0_arm64.whl").write_bytes(wheel())
    assert "only pure Python" in refused()
    assert api.jobs == {}


def test_an_entry_is_of_a_folder(hzc: Hzc, folder: Path) -> None:
    for words in (("run",), ("run", "--local"), ("fn", "deploy", "f")):
        assert "names a file of a folder" in hzc(*words, str(folder / "main.py"), "--entry", "x.py", code=2).stderr
    assert "--function is none" in hzc("run", "--function", "f", "--entry", "x.py", code=2).stderr
