"""`hzc schedule` against the real functions on memory twins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.memory import ManualClock
from hanzo_compute.services import reconcile
from hanzo_compute.wiring import Container
from tests.support.cli import Hzc
from tests.support.handlers import SPEC, Client
from tests.support.served import served


@pytest.fixture
def hzc(call: Client, tmp_path: Path) -> Iterator[Hzc]:
    with served(call) as url:
        yield Hzc({"HZC_URL": url, "HZC_KEY": call.key, "HZC_HOME": str(tmp_path)})


@pytest.fixture
def job(tmp_path: Path) -> str:
    (tmp_path / "job.json").write_text(json.dumps(SPEC))
    return str(tmp_path / "job.json")


def test_set_show_ls(hzc: Hzc, job: str, tmp_path: Path) -> None:
    (tmp_path / "report.py").write_text("print(2)\n")
    (tmp_path / "two.json").write_text(json.dumps([SPEC, SPEC | {"args": ["x"]}]))
    files = (job, str(tmp_path / "report.py"), str(tmp_path / "two.json"))
    said = hzc("schedule", "set", "nightly", "--cron", "30 3 * * *", "--tz", "Europe/Zurich", *files).stderr
    assert "schedule nightly, next " in said
    assert "03:30 +0" in said
    shown = hzc("schedule", "show", "nightly").stdout
    assert shown.count("03:30 +0") == 5
    assert "nightly, revision 1" in shown
    document = hzc.json("schedule", "show", "nightly")
    assert [entry["source"]["code"] for entry in document["spec"]["jobs"]] == ["print(1)", "print(2)\n"] + [
        "print(1)"
    ] * 2
    assert (document["spec"]["missed"], document["spec"]["overlap"]) == ("skip", "allow")
    lines = hzc("schedule", "ls").stdout.splitlines()
    assert lines[1].split()[:8] == ["nightly", "30", "3", "*", "*", "*", "Europe/Zurich", "4"]


def test_pause_resume_rm(hzc: Hzc, job: str) -> None:
    hzc("schedule", "set", "s", "--cron", "0 * * * *", "--missed", "once", "--overlap", "skip", job)
    assert "hzc schedule resume s" in hzc("schedule", "pause", "s").stderr
    assert "paused" in hzc("schedule", "ls").stdout
    assert hzc.json("schedule", "resume", "s")["revision"] == 3
    spec = hzc.json("schedule", "show", "s")["spec"]
    assert (spec["missed"], spec["overlap"], spec["paused"]) == ("once", "skip", False)
    assert hzc.json("schedule", "rm", "s") == {"name": "s", "deleted": True}
    assert "there is no schedule s" in hzc("schedule", "rm", "s", code=2).stderr
    assert hzc("schedule", "ls").stderr == "no schedules\n"


def test_runs(hzc: Hzc, job: str, container: Container, call: Client) -> None:
    assert isinstance(container.clock, ManualClock)
    hzc("schedule", "set", "s", "--cron", "* * * * *", job)
    assert hzc("schedule", "runs", "s").stderr == "no runs yet\n"
    container.clock.advance(60_001)
    reconcile.reconcile(container)
    container.clock.advance(3_600_000)
    reconcile.reconcile(container)
    items = hzc.json("schedule", "runs", "s")["items"]
    assert [item["status"] for item in items] == ["submitted", "submitted", "missed", "submitted"]
    table = hzc("schedule", "runs", "s").stdout.splitlines()
    assert items[0]["jobs"][0] in table[1]
    assert f"{items[2]['at']} … {items[2]['until']}" in table[3]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cron", "0 0 * *"), "cron: must have five fields"),
        (("--cron", "0 0 * * *", "--tz", "europe/zurich"), "did you mean Europe/Zurich?"),
    ],
)
def test_what_is_refused_says_why(hzc: Hzc, job: str, arguments: tuple[str, ...], says: str) -> None:
    assert says in hzc("schedule", "set", "s", *arguments, job, code=2).stderr


def test_a_file_that_is_no_job(hzc: Hzc, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    assert (
        "is not JSON" in hzc("schedule", "set", "s", "--cron", "0 0 * * *", str(tmp_path / "bad.json"), code=2).stderr
    )
