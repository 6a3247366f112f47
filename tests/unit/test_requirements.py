"""The requirement files and the distributions say the same, so that a lock leaves nothing out."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = ["layers/hllm", "layers/core", "functions", "infra/agent", "infra/host"]


def dependencies_of_the_workspace() -> set[str]:
    found: set[str] = set()
    for member in MEMBERS:
        document = tomllib.loads((ROOT / member / "pyproject.toml").read_text())
        project = document["project"]
        found.update(project["dependencies"], document["build-system"]["requires"])
        for extra in project.get("optional-dependencies", {}).values():
            found.update(extra)
    return {requirement for requirement in found if not requirement.startswith("hanzo-compute-")}


def listed(name: str) -> set[str]:
    lines = (ROOT / "requirements" / f"{name}.in").read_text().splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-"))}


def locked(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.lock").read_text()
    return {project.lower(): version for project, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def test_runtime_lists_what_the_distributions_need() -> None:
    # hatchling asks for editables only when it is about to make an editable install.
    assert listed("runtime") - {"editables"} == dependencies_of_the_workspace()


def test_every_listed_requirement_is_locked() -> None:
    for name in ("runtime", "dev", "bench", "sam", "hllm"):
        names = {re.split(r"[\[=<>~!; ]", requirement)[0].lower() for requirement in listed(name)}
        assert names <= set(locked(name))


def test_the_layer_of_the_engine_has_the_versions_of_the_runtime() -> None:
    found = locked("hllm")
    assert found == {project: locked("runtime")[project] for project in found}


@pytest.mark.parametrize(("larger", "smaller"), [("dev", "runtime"), ("bench", "dev")])
def test_a_larger_set_has_the_versions_of_the_smaller(larger: str, smaller: str) -> None:
    found = locked(larger)
    assert {project: found.get(project) for project in locked(smaller)} == locked(smaller)
