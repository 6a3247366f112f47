"""Builds a Lambda layer for the target's platform, and for this machine, and proves both.

    python scripts/build_layers.py hllm

Dependencies come from ``requirements/<layer>.lock`` as wheels (hashes, nothing is compiled), our own code from the
checkout. The layer for Lambda (Python 3.13, aarch64) is looked through file by file: every shared object is for that
machine and every wheel for that Python. The layer for this machine is imported from its folder alone, without any
site-packages. Both are in ``build/layers``; the first as a zip whose bytes depend on its contents only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "layers"
PYTHON = "3.13"
"""Of Lambda's runtime."""
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
AARCH64 = 183
"""``e_machine`` of an ELF file (ELF for the Arm 64-bit Architecture)."""
SIZE_MAX = {"hllm": 80}
"""MB unzipped; Lambda allows 250 for all layers and the function together."""
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in SIZE_MAX:
        print(f"usage: python scripts/build_layers.py {'|'.join(SIZE_MAX)}", file=sys.stderr)
        return 2
    name = sys.argv[1]
    target, here = BUILD / f"{name}-aarch64", BUILD / f"{name}-here"
    install(name, target, ["--python-version", PYTHON, *(f"--platform={each}" for each in PLATFORMS)])
    install(name, here, [])
    problems = [
        *wrong(target / "python"),
        *too_large(target, SIZE_MAX[name]),
        *unimportable(here / "python", name),
    ]
    archive = pack(target)
    size = f"{megabytes(target):.1f} MB unzipped, {archive.stat().st_size / 1e6:.1f} MB zipped"
    print(f"{archive.relative_to(ROOT)}: {size}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def install(name: str, folder: Path, platform: list[str]) -> None:
    """The layer's folder: what Lambda puts under /opt. Raises CalledProcessError."""
    if folder.exists():
        shutil.rmtree(folder)
    print(f"installing {name} into {folder.relative_to(ROOT)}", flush=True)
    inside = folder / "python"
    locked = ["--require-hashes", "--only-binary=:all:", "-r", str(ROOT / "requirements" / f"{name}.lock")]
    pip(inside, [*locked, *platform])
    pip(inside, ["--no-build-isolation", "--no-index", str(ROOT / "layers" / name)])
    for each in (inside / "bin", *inside.rglob("__pycache__")):
        shutil.rmtree(each, ignore_errors=True)


def pip(folder: Path, arguments: list[str]) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile", "--upgrade"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), *arguments]
    subprocess.run(command, check=True)


def wrong(folder: Path, machine: int = AARCH64) -> Iterator[str]:
    """What cannot run on the target: shared objects of another machine, wheels of another Python or system."""
    for path in sorted(folder.rglob("*.so*")):
        head = path.read_bytes()[:20]
        if head[:4] != b"\x7fELF" or int.from_bytes(head[18:20], "little") != machine:
            yield f"{path.relative_to(folder)} is not for the target's machine"
    for path in sorted(folder.glob("*.dist-info/WHEEL")):
        tags = [line.split(": ")[1].strip() for line in path.read_text().splitlines() if line.startswith("Tag: ")]
        if not any(fits(tag) for tag in tags):
            yield f"{path.parent.name} has the tags {', '.join(tags)}; none fits Python {PYTHON} on aarch64"


def fits(tag: str) -> bool:
    """Whether a wheel's tag is of the target."""
    python, _, platform = tag.split("-")
    return python in ("py3", "py2.py3", f"cp{PYTHON.replace('.', '')}") and (platform == "any" or platform in PLATFORMS)


def too_large(folder: Path, most: int) -> Iterator[str]:
    if megabytes(folder) > most:
        yield f"{folder.name} has {megabytes(folder):.1f} MB; it may have {most}"


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def unimportable(folder: Path, package: str) -> Iterator[str]:
    """What goes wrong when all of it is imported, with the standard library beside it and nothing else."""
    code = f"""
import importlib, pkgutil, sys
sys.path.insert(0, {str(folder)!r})
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(getattr(package, "__path__", []), {package!r} + "."):
    importlib.import_module(module.name)
"""
    found = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    if found.returncode:
        yield f"{folder.parent.name} cannot be imported: {found.stderr.strip().splitlines()[-1]}"


def pack(folder: Path) -> Path:
    """A zip of the folder; the same contents are the same bytes."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, path.read_bytes())
    return archive


if __name__ == "__main__":
    raise SystemExit(main())
