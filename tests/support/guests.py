"""The guests that `make guests` builds, and the conformance cases of tests/guests/manifest.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "guests"
BUILT = ROOT / "build" / "guests"

Ends = Literal["exit", "trap", "exit or trap", "never"]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is opened for the guest, with what lies in it at the start."""

    writable: bool
    files: Mapping[str, str]
    links: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a guest: what it is given, and how it must end."""

    name: str
    guest: Path
    ends: Ends
    args: list[str] = field(default_factory=list)
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    folders: Mapping[str, Folder] = field(default_factory=dict)
    memory_mib: int | None = None
    exit_code: int | None = None
    stdout: bytes | None = None

    def module(self) -> bytes:
        """The guest as WebAssembly, whatever it is written in."""
        if self.guest.suffix == ".wat":
            import wasmtime

            return bytes(wasmtime.wat2wasm(self.guest.read_text()))
        return self.guest.read_bytes()

    def lay_out(self, root: Path) -> dict[str, Path]:
        """Makes the folders under `root`, and beside them what must stay out of reach: guest path → host path."""
        outside = root / "outside.txt"
        outside.write_text("out of reach\n")
        paths = {}
        for guest_path, folder in self.folders.items():
            path = root / guest_path.strip("/")
            path.mkdir()
            for name, text in folder.files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_text(text)
            for name, target in folder.links.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).symlink_to(target.replace("{outside}", str(outside)))
            paths[guest_path] = path
        return paths


def cases() -> list[Case]:
    """All cases of the manifest."""
    return [_case(entry) for entry in json.loads((SOURCES / "manifest.json").read_text())["cases"]]


def _case(entry: dict[str, Any]) -> Case:
    known = {"name", "guest", "args", "env", "stdin", "preopens", "memory_mib", "ends", "exit", "stdout"}
    if unknown := entry.keys() - known:
        raise ValueError(f"{entry['name']}: the manifest has no {', '.join(sorted(unknown))}")
    guest = entry["guest"]
    return Case(
        name=entry["name"],
        guest=SOURCES / guest if guest.endswith(".wat") else BUILT / "tests" / f"{guest}.wasm",
        ends=entry["ends"],
        args=entry.get("args", []),
        env=entry.get("env", {}),
        stdin=_bytes(entry.get("stdin", "")),
        folders={
            path: Folder(folder.get("writable", False), folder.get("files", {}), folder.get("links", {}))
            for path, folder in entry.get("preopens", {}).items()
        },
        memory_mib=entry.get("memory_mib"),
        exit_code=entry.get("exit"),
        stdout=_bytes(entry["stdout"]) if "stdout" in entry else None,
    )


def _bytes(form: str | list[str] | dict[str, Any]) -> bytes:
    """Text, lines, or a text that is repeated."""
    match form:
        case str():
            return form.encode()
        case list():
            return "".join(line + "\n" for line in form).encode()
        case {"repeat": str() as text, "times": int() as times}:
            return (text * times).encode()
    raise ValueError(f"text, a list of lines or {{repeat, times}} was expected, not {form!r}")
