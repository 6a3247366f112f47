"""Evidence in files: named on the command line, or listed by a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from pydantic_core import PydanticCustomError

from hanzo_compute.errors import ComputeError, InvalidRequest
from hanzo_compute.model.evidence import EVIDENCE_FILE_MAX, Evidence, Platform
from hanzo_compute.model.spec import parse_time

MANIFEST_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Presented:
    """Evidence to judge, or why it is none."""

    id: str
    platform: Platform
    evidence: Evidence | None
    problem: str = ""
    at_ms: int | None = None
    """The time to judge it at, if it came with one."""


def named(platform: Platform, given: Sequence[str]) -> Presented:
    """Evidence of ``NAME=PATH`` each.

    Raises:
        click.UsageError: one has not that form, or a file is not there.
    """
    paths: dict[str, Path] = {}
    for each in given:
        name, separator, path = each.partition("=")
        if not separator or not name:
            raise click.UsageError(f"--file: {each!r} is not NAME=PATH")
        if name in paths:
            raise click.UsageError(f"--file: {name} is given twice")
        if not Path(path).is_file():
            raise click.UsageError(f"--file: there is no file {path}")
        paths[name] = Path(path)
    if not paths:
        raise click.UsageError("--file is needed: NAME=PATH of each file of the evidence")
    return _presented(None, platform, paths, None)


def manifest(path: Path) -> Iterator[Presented]:
    """Each of the ``cases`` of a manifest: ``id``, ``files`` by name, and perhaps ``verify_at``.

    Raises:
        InvalidRequest: the file is no manifest.
    """
    with path.open("rb") as source:
        text = source.read(MANIFEST_MAX + 1)
    try:
        document = json.loads(text)
        given, cases = document.get("platform"), document["cases"]
        entries = [(str(case["id"]), Platform(case.get("platform", given)), case) for case in cases]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidRequest(
            f"{path} is no manifest ({type(error).__name__}: {str(error)[:200]})",
            hint='it is JSON: {"platform": …, "cases": [{"id": …, "files": {NAME: {"file": …}}, "verify_at": …}]}',
        ) from None
    for name, platform, case in entries:
        try:
            paths = {key: path.parent / _file(value) for key, value in case["files"].items()}
            at_ms = None if case.get("verify_at") is None else parse_time(case["verify_at"])
        except (KeyError, TypeError, AttributeError, PydanticCustomError) as error:
            yield Presented(name, platform, None, f"the manifest's entry cannot be read: {error}")
            continue
        yield _presented(name, platform, paths, at_ms)


def _file(value: Any) -> str:
    return value if isinstance(value, str) else str(value["file"])


def _presented(name: str | None, platform: Platform, paths: Mapping[str, Path], at_ms: int | None) -> Presented:
    """What is too large, or not there, is no evidence: the judgement says so."""
    files: dict[str, bytes] = {}
    try:
        for key, path in paths.items():
            with path.open("rb") as source:
                files[key] = source.read(EVIDENCE_FILE_MAX + 1)
        evidence = Evidence(platform, files)
    except ComputeError as error:
        return Presented(name or platform.value, platform, None, error.message, at_ms)
    except OSError as error:
        return Presented(name or platform.value, platform, None, f"{error.filename}: {error.strerror}", at_ms)
    return Presented(name or evidence.digest(), platform, evidence, at_ms=at_ms)
