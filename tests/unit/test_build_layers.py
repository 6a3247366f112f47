"""The checks of a layer find what could not run on Lambda."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def layers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_layers", ROOT / "scripts" / "build_layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def elf(machine: int) -> bytes:
    return b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + bytes(44)


def wheel(folder: Path, *tags: str) -> None:
    info = folder / "numpy-2.dist-info"
    info.mkdir()
    (info / "WHEEL").write_text("Wheel-Version: 1.0\n" + "".join(f"Tag: {tag}\n" for tag in tags))


def test_what_is_for_the_target_is_right(layers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(elf(layers.AARCH64))
    wheel(tmp_path, "cp313-cp313-manylinux_2_27_aarch64", "cp313-cp313-manylinux_2_28_aarch64")
    assert list(layers.wrong(tmp_path)) == []


@pytest.mark.parametrize("contents", [elf(62), b"", b"#!/bin/sh\n"])
def test_a_shared_object_of_another_machine(layers: ModuleType, tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "libm.so.6").write_bytes(contents)
    assert list(layers.wrong(tmp_path)) == ["libm.so.6 is not for the target's machine"]


@pytest.mark.parametrize(
    "tag", ["cp312-cp312-manylinux_2_28_aarch64", "cp313-cp313-manylinux_2_28_x86_64", "cp313-cp313-macosx_14_0_arm64"]
)
def test_a_wheel_of_another_python_or_system(layers: ModuleType, tmp_path: Path, tag: str) -> None:
    wheel(tmp_path, tag)
    (problem,) = layers.wrong(tmp_path)
    assert tag in problem


def test_size_and_import(layers: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_bytes(b"#" * 1_100_000)
    assert list(layers.too_large(tmp_path, 2)) == []
    assert list(layers.too_large(tmp_path, 1)) == [f"{tmp_path.name} has 1.1 MB; it may have 1"]
    assert list(layers.unimportable(tmp_path, "module")) == []
    (tmp_path / "other.py").write_text("import numpy")  # which this interpreter has in its site-packages
    (problem,) = layers.unimportable(tmp_path, "other")
    assert "No module named 'numpy'" in problem


def test_the_same_contents_are_the_same_bytes(layers: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "python").mkdir(parents=True)
        (tmp_path / name / "python" / "module.py").write_text("x = 1\n")
    assert layers.pack(tmp_path / "one").read_bytes() == layers.pack(tmp_path / "two").read_bytes()
