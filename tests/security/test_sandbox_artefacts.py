"""Compiled modules that somebody has changed: none of their code runs, and the module runs all the same."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox import artefacts, settings
from hanzo_compute.adapters.sandbox.cache import ArtefactCache
from hanzo_compute.adapters.sandbox.settings import Profile
from tests.support.sandbox import Lab
from tests.support.wasm import command

RIGHT, WRONG = command("(call $exit (i32.const 7))"), command("(call $exit (i32.const 66))")
NAME = hashlib.sha256(RIGHT).hexdigest()


def runs(cache: Path, module: bytes, profile: str = "fast") -> int | None:
    lab = Lab(cache)
    try:
        return lab.run(module, profile=profile, deterministic=False).exit_code
    finally:
        lab.close()


def entry(cache: Path, module: bytes, profile: Profile = Profile.FAST) -> Path:
    return ArtefactCache(cache, settings.tag(profile)).path(hashlib.sha256(module).hexdigest())


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, min(size, path.stat().st_size - 1))


def flip(part: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int((len(data) - 1) * part)] ^= 0x40
        path.write_bytes(data)

    return spoil


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def of_another_module(path: Path) -> None:
    path.write_bytes(entry(path.parents[1], WRONG).read_bytes())


def of_another_profile(path: Path) -> None:
    path.write_bytes(entry(path.parents[1], WRONG, Profile.METERED).read_bytes())


def of_another_machine(path: Path) -> None:
    forger = ArtefactCache(path.parents[2] / "forger", settings.tag(Profile.FAST))
    forger.store(NAME, entry(path.parents[1], WRONG).read_bytes()[:-32])
    path.write_bytes(forger.path(NAME).read_bytes())


def a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(entry(path.parents[1], WRONG))


def emptied(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"")


TAMPERED: dict[str, Callable[[Path], None]] = {
    **{f"cut to {size}": cut(size) for size in (0, 1, 31, 32, 33, 4096, 1 << 30)},
    **{f"a bit at {part:.0%}": flip(part) for part in (0, 0.01, 0.3, 0.5, 0.9, 0.999, 1)},
    "a byte more": longer,
    "that of another module": of_another_module,
    "that of another profile": of_another_profile,
    "that of another machine": of_another_machine,
    "a link to another": a_link,
    "nothing": emptied,
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("filled") / "cache"
    assert runs(cache, RIGHT) == 7
    assert runs(cache, WRONG) == 66
    assert runs(cache, WRONG, "metered") == 66
    return cache


@pytest.mark.parametrize("what", TAMPERED)
def test_a_changed_artefact_never_runs(tmp_path: Path, filled: Path, what: str) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(filled, cache)
    path = entry(cache, RIGHT)
    good = path.read_bytes()
    TAMPERED[what](path)
    assert path.is_symlink() or path.read_bytes() != good
    assert runs(cache, RIGHT) == 7
    assert not path.is_symlink()
    assert path.stat().st_size == len(good)


def test_a_refusal_that_was_forged_is_not_believed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    forger = ArtefactCache(tmp_path / "forger", settings.tag(Profile.FAST))
    forger.remember_bad(NAME, "not wanted")
    ours = ArtefactCache(cache, settings.tag(Profile.FAST))
    bad = ours.path(NAME).with_suffix(".bad")
    bad.write_bytes(forger.path(NAME).with_suffix(".bad").read_bytes())
    assert runs(cache, RIGHT) == 7


def test_an_artefact_that_another_thread_swaps_is_the_one_that_was_checked(tmp_path: Path) -> None:
    """What is mapped is the copy that the check has read."""
    cache = tmp_path / "cache"
    assert runs(cache, RIGHT) == 7
    lab = Lab(cache)
    fd = lab.opens(RIGHT, "fast")()
    try:
        entry(cache, RIGHT).write_bytes(b"changed after the check")
        assert lab.run(RIGHT).exit_code == 7
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
    finally:
        os.close(fd)
        lab.close()


def test_what_a_compiler_left_that_was_killed_goes_and_what_one_uses_stays(tmp_path: Path) -> None:
    left, used, elsewhere = tmp_path / "compile-left", tmp_path / "compile-used", tmp_path / "elsewhere"
    for folder in (left, used, elsewhere):
        folder.mkdir()
        (folder / "module.wasm").write_bytes(bytes(100))
    link = tmp_path / "compile-link"
    link.symlink_to(elsewhere)
    before = time.time() - artefacts.ABANDONED_S - 60
    for path in (left, link, elsewhere):
        os.utime(path, (before, before), follow_symlinks=False)
    assert runs(tmp_path, RIGHT) == 7
    assert not left.exists()
    assert (used / "module.wasm").exists()
    assert (elsewhere / "module.wasm").exists()
