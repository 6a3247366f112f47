"""A schedule on a real platform: by the CLI, at its time, and after a time at which the platform was down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Platform, until
from tests.support.wallclock.clock import Clock


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def shifted(tmp_path: Path, clock: Clock) -> Iterator[Platform]:
    with Platform(tmp_path / "home", extra=clock.environment) as started:
        yield started


def runs(platform: Platform, name: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(platform.hzc("schedule", "runs", name, "-o", "json").stdout)["items"]
    return items


def submitted(platform: Platform, name: str) -> list[dict[str, Any]]:
    return [run for run in runs(platform, name) if run["status"] == "submitted"]


@pytest.mark.slow
def test_a_schedule_fires_in_time_and_once_for_what_it_missed(shifted: Platform, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text("print('hello')\n")
    jobs = [{"source": {"code": f"print({number})", "language": "python"}} for number in range(2)]
    (tmp_path / "more.json").write_text(json.dumps(jobs))
    files = (str(tmp_path / "hello.py"), str(tmp_path / "more.json"))
    now = datetime.now(UTC)
    expected = f"{(now + timedelta(minutes=30)).minute:02}"
    # Half an hour from now, where the clocks are half an hour from UTC's.
    options = ("--cron", f"{now.minute} * * * *", "--tz", "Asia/Kolkata", "--missed", "once")
    made = shifted.hzc("schedule", "set", "s", *options, *files)
    assert made.returncode == 0, made

    clock.set(3600)  # its time was within this hour
    (first,) = until(lambda: submitted(shifted, "s"), 120, "it fires")
    client = shifted.client()
    outputs = {client.output(job) for job in first["jobs"] if client.wait(job, timeout_s=200)["state"] == "succeeded"}
    assert outputs == {b"hello\n", b"0\n", b"1\n"}
    assert first["at"][14:16] == expected

    assert shifted.stop() == 0
    clock.set(5 * 3600)
    shifted.start()
    second, again = until(lambda: len(found := submitted(shifted, "s")) > 1 and found, 120, "it makes up")
    assert again == first
    assert client.get(second["jobs"][0])["origin"] == {"kind": "schedule", "schedule": "s", "at": second["at"]}
    assert shifted.hzc("schedule", "rm", "s").returncode == 0
    assert len(client.list_jobs(limit=100).items) == 6
