"""Evidence as files with a manifest, in a folder or an archive: the form that `hzc attest verify --batch` reads."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from hanzo_compute.model.evidence import Evidence
from hanzo_compute.model.spec import format_time

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Pieces of evidence that were collected together."""

    evidence: Sequence[Evidence]
    nonce: bytes
    at_ms: int

    def named(self) -> Iterator[tuple[str, Evidence]]:
        """Each piece with its id: its platform, with a number where there are several."""
        platforms = [each.platform for each in self.evidence]
        for index, each in enumerate(self.evidence):
            number = f"-{platforms[:index].count(each.platform)}" if platforms.count(each.platform) > 1 else ""
            yield f"{each.platform.value}{number}", each

    def manifest(self) -> dict[str, Any]:
        """What there is, with digests, and the time to judge it at."""
        cases = [
            {
                "id": name,
                "platform": each.platform.value,
                "what": f"collected by hzc attest on {format_time(self.at_ms)}",
                "files": {
                    file: {"file": f"{name}/{file}", "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
                    for file, data in each.files.items()
                },
                "verify_at": format_time(self.at_ms),
                "nonce": self.nonce.hex(),
            }
            for name, each in self.named()
        ]
        return {"cases": cases}

    def files(self) -> dict[str, bytes]:
        """All files by their path, the manifest among them."""
        found = {f"{name}/{file}": data for name, each in self.named() for file, data in each.files.items()}
        return {MANIFEST: as_json(self.manifest())} | found


def as_json(value: Any) -> bytes:
    """A document for people and programs."""
    return (json.dumps(value, indent=1) + "\n").encode()


def check_new(path: Path) -> None:
    """Before anything is collected: nothing is written over.

    Raises:
        click.UsageError: there is a file, or a folder with something in it.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise click.UsageError(f"--out: {path} is there already; nothing is written over")


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, the manifest last: where it is, all is."""
    for name in sorted(files, key=lambda each: each == MANIFEST):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])


def write_archive(path: Path, files: Mapping[str, bytes], at_ms: int) -> None:
    """Write files into a new ``.tar.gz``. Raises FileExistsError rather than replace one."""
    with path.open("xb") as target, tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), at_ms // 1000, 0o644
            archive.addfile(member, io.BytesIO(data))
