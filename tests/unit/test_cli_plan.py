"""`hzc plan` against the real functions on memory twins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Hzc
from tests.support.handlers import Client
from tests.support.served import served

EXAMPLE = Path(__file__).parents[2] / "examples" / "plans" / "drain.json"


@pytest.fixture
def hzc(call: Client, tmp_path: Path) -> Iterator[Hzc]:
    with served(call) as url:
        yield Hzc({"HZC_URL": url, "HZC_KEY": call.key, "HZC_HOME": str(tmp_path)})


def test_a_plan_is_told_and_explained(hzc: Hzc) -> None:
    lines = hzc("plan", str(EXAMPLE)).stdout.splitlines()
    assert lines[0].split() == ["ACTION", "EFE", "UTILITY", "CURIOSITY", "PROBABILITY", "PLAN"]
    document = hzc.json("plan", str(EXAMPLE))
    assert document["action"]["monitor"] == "probe"  # it costs nothing, and tells something
    assert [" ".join(line.split()[:2]) for line in lines[1:5]] == [
        ", ".join(f"{factor}={choice}" for factor, choice in each["action"].items())
        for each in document["trace"]["candidates"]
    ]
    said = {line.split("  ")[0]: line.rstrip() for line in lines[5:]}
    assert said["next"].endswith(" ".join(lines[1].split()[:2]))
    assert "64 compared" in said["plans"]
    assert {"if node=healthy", "if monitor=on", "if curiosity=0", "if horizon=1"} <= set(said)


def test_files_that_hold_no_problem(hzc: Hzc, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text("{")
    assert "is not JSON" in hzc("plan", str(file), code=2).stderr
    for text in ("[" * 100_000, '{"horizon": NaN}', '{"horizon": 1e400}'):
        file.write_text(text)
        assert "is not JSON" in hzc("plan", str(file), code=2).stderr
    file.write_text("[]")
    assert "must be a JSON object" in hzc("plan", str(file), code=2).stderr
    file.write_text(json.dumps(json.loads(EXAMPLE.read_text()) | {"goal": {"price": {}}}))
    assert "there is no 'price'" in hzc("plan", str(file), code=2).stderr
    assert "does not exist" in hzc("plan", str(tmp_path / "none.json"), code=2).stderr
