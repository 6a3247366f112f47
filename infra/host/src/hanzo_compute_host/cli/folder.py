"""From a folder to a package: what it holds, packed, and where it begins."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from hanzo_compute import errors
from hanzo_compute.model.bounds import PACKAGE_ENTRIES_MAX, PACKAGE_SIZE_MAX
from hanzo_compute.model.package import MAIN, InvalidPackage, check, pack

LANGUAGES: Final = {".py": "python", ".js": "javascript", ".mjs": "javascript"}
_LEFT_OUT: Final = frozenset({"__pycache__"})


@dataclass(frozen=True, slots=True)
class Packed:
    """A package, checked by the rules that it will be unpacked by."""

    data: bytes
    language: str
    entry: str


def packed(folder: Path, entry: str | None) -> Packed:
    """The program in a folder, without what begins with a dot and ``__pycache__``; the same files, the same bytes.

    Raises:
        InvalidRequest: it is no package that is accepted; the message says why.
    """
    entry = entry or _entry(folder)
    language = LANGUAGES.get(Path(entry).suffix)
    if language is None:
        raise click.BadParameter(f"{entry!r} must end in {', '.join(LANGUAGES)}", param_hint="--entry")
    try:
        data = pack(dict(_files(folder)))
        check(data, language, entry)
    except InvalidPackage as error:
        raise errors.InvalidRequest(f"{folder} is no package that runs: {error}") from None
    return Packed(data, language, entry)


def _entry(folder: Path) -> str:
    found = [name for name in MAIN.values() if (folder / name).is_file()]
    if len(found) != 1:
        has = "has both" if found else "has neither"
        raise click.UsageError(f"{folder} {has} of {' and '.join(MAIN.values())}: say with --entry what it begins with")
    return found[0]


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    left, count = PACKAGE_SIZE_MAX, 0
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LEFT_OUT)
        for name in [*names, *(each for each in folders if (Path(at) / each).is_symlink())]:
            path = Path(at) / name
            if name.startswith("."):
                continue
            if path.is_symlink() or not path.is_file():
                raise InvalidPackage(f"{path} is a link or another special file: put a copy of the file there")
            left, count = left - path.stat().st_size, count + 1
            if left < 0 or count > PACKAGE_ENTRIES_MAX:  # a folder chosen by mistake is not read to its end
                raise InvalidPackage(
                    f"it has over {PACKAGE_SIZE_MAX} bytes or {PACKAGE_ENTRIES_MAX} files: leave some out, "
                    "or give data as the input"
                )
            yield path.relative_to(folder).as_posix(), path.read_bytes()
