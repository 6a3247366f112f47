"""Recorded evidence of real hardware, with the verdicts that are expected of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hanzo_compute.attestation import AttestationResult, Policy, appraise, builtin
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support.engines import need_vectors


@dataclass(frozen=True)
class Case:
    """One piece of evidence and what is expected of it."""

    id: str
    evidence: Evidence
    now_ms: int
    authentic: bool
    verdict: str
    fields: dict[str, Any]
    expected: dict[str, Any]

    def appraise(self, policy: Policy | None = None, **given: Any) -> AttestationResult:
        """The result at the time that the case is to be judged at."""
        return appraise(self.evidence, policy or builtin("baseline"), {}, self.now_ms, **given)

    def changed(self, **files: bytes) -> Evidence:
        """The evidence with other contents of some files."""
        return Evidence(self.evidence.platform, {**self.evidence.files, **files})


def cases(platform: str) -> list[Case]:
    """All cases of a platform. A test that asks is skipped, or fails where all is required, if they are not here."""
    folder = need_vectors(platform)
    manifest = json.loads((folder / "manifest.json").read_text())
    return [_case(folder, platform, entry) for entry in manifest["cases"]]


def case(platform: str, name: str) -> Case:
    """One case by its id."""
    return next(each for each in cases(platform) if each.id == name)


def _case(folder: Path, platform: str, entry: dict[str, Any]) -> Case:
    files = {name: (folder / each["file"]).read_bytes() for name, each in entry["files"].items()}
    expected = entry["expected"]
    return Case(
        entry["id"],
        Evidence(Platform(platform), files),
        round(datetime.fromisoformat(entry["verify_at"]).timestamp() * 1000),
        expected["crypto"] == "accept",
        expected["default_policy"],
        entry["fields"],
        expected,
    )
