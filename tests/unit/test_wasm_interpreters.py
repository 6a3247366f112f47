"""Interpreters come into the cache by digest only, and a failure to get one says what to do."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.sandbox import image, interpreters
from hanzo_compute.adapters.sandbox.interpreters import PINS, Pin, ensure
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.errors import Unavailable

WASM = b"\0asm not really"
NAME = "tiny_interpreter-1.0-py3-none-any.whl"


def make_wheel(folder: Path, content: bytes = WASM) -> Path:
    path = folder / NAME
    metadata = "Metadata-Version: 2.1\nName: tiny-interpreter\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("bin/tiny.wasm", content)
        wheel.writestr("tiny_interpreter-1.0.dist-info/METADATA", metadata)
        wheel.writestr("tiny_interpreter-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_interpreter-1.0.dist-info/RECORD", "")
    return path


def pin_of(wheel: Path, content: bytes = WASM) -> Pin:
    return Pin(
        requirement="tiny-interpreter==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="bin/tiny.wasm",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        version="tiny 1.0",
        argv=("tiny", "/in/main.py"),
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(interpreters, "_verified", set())
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_it_is_fetched_once_and_found_afterwards(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = pin_of(make_wheel(index))
    monkeypatch.setitem(PINS, "tiny", pin)
    said: list[str] = []
    found = ensure("tiny", cache, said.append)
    assert found.path.read_bytes() == WASM
    assert (found.digest, found.version, found.argv) == (pin.sha256, "tiny 1.0", ("tiny", "/in/main.py"))
    assert said[0].startswith("downloading tiny-interpreter==1.0")
    (index / NAME).unlink()
    interpreters._verified.clear()
    assert ensure("tiny", cache) == found


def test_a_file_that_was_changed_is_fetched_again(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PINS, "tiny", pin_of(make_wheel(index)))
    path = ensure("tiny", cache).path
    path.write_bytes(b"\0asm something else")
    interpreters._verified.clear()
    assert ensure("tiny", cache).path.read_bytes() == WASM


def test_another_wheel_of_the_same_name_is_refused(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PINS, "tiny", pin_of(make_wheel(index)))
    make_wheel(index, b"\0asm something else")
    with pytest.raises(Unavailable, match="could not be downloaded"):
        ensure("tiny", cache)
    assert list((cache / "interpreters").glob("*.wasm")) == []


@pytest.mark.parametrize("content", [WASM[:-1] + b"X", WASM + b"X", WASM[:-1]])
def test_another_module_in_the_wheel_is_refused(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setitem(PINS, "tiny", pin_of(make_wheel(index, content), WASM))
    with pytest.raises(Unavailable, match="as pinned"):
        ensure("tiny", cache)
    assert list((cache / "interpreters").glob("*.wasm")) == []


def test_without_an_index_the_hint_says_where_to_put_it(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = pin_of(make_wheel(index))
    monkeypatch.setitem(PINS, "tiny", pin)
    (index / NAME).unlink()
    with pytest.raises(Unavailable) as caught:
        ensure("tiny", cache)
    target = cache / "interpreters" / f"{pin.sha256}.wasm"
    assert caught.value.hint is not None
    assert str(target) in caught.value.hint
    target.write_bytes(WASM)
    assert ensure("tiny", cache).path == target


def test_a_progress_callback_that_raises_ends_the_download(
    index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PINS, "tiny", pin_of(make_wheel(index)))

    def stop(_: str) -> None:
        raise Unavailable("stopped")

    with pytest.raises(Unavailable, match="stopped"):
        ensure("tiny", cache, stop)
    assert ensure("tiny", cache).path.exists()


def test_pip_does_not_get_our_credentials(
    index: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    pip = tmp_path / "python"
    pip.write_text(f'#!/bin/sh\nenv > "{seen}"\nexit 1\n')
    pip.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(pip))
    monkeypatch.setenv("HZC_KEY", "hzk_secret")
    with pytest.raises(Unavailable):
        ensure("python", cache)
    assert "PIP_NO_INDEX=1" in seen.read_text()
    assert "hzk_secret" not in seen.read_text()


def test_the_pin_is_the_one_of_the_lock_file() -> None:
    lock = (Path(__file__).parents[2] / "requirements" / "assets.lock").read_text()
    pin = PINS["python"]
    assert f"{pin.requirement} --hash=sha256:{pin.wheel_sha256}" in lock


@pytest.mark.parametrize(
    ("resumes", "fields"),
    [
        (True, {}),
        (True, {"env": {"PYTHONPATH": "/in", "PATH": "x"}, "folders": image.FOLDERS}),
        (True, {"memory_mib": interpreters.SNAPSHOT_MIB}),
        (False, {"env": {"PYTHONHASHSEED": "random"}}),
        (False, {"memory_mib": interpreters.SNAPSHOT_MIB - 1}),
        (False, {"folders": image.FOLDERS + 1}),
        (False, {"profile": Profile.METERED}),
        (False, {"started": None}),
    ],
)
def test_who_goes_on_from_a_snapshot(resumes: bool, fields: dict[str, Any]) -> None:
    call = {"profile": Profile.FAST, "env": {}, "memory_mib": 128, "folders": 2} | fields
    interpreter = interpreters.Interpreter(Path("x"), "", "", (), call.pop("started", 64))
    assert interpreter.resumes(**call) is resumes
