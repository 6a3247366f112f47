"""A wall clock that is set by an hour or a day, both ways, under a whole platform and between two starts of it."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from tests.support.live import Platform, until
from tests.support.load import Load, account
from tests.support.wallclock.clock import Clock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HOUR, DAY = 3600, 24 * 3600
SLEEP = {
    "source": {"code": "import time; time.sleep(4)", "language": "python"},
    "retry": {"max_attempts": 2},
}


def seen(platform: Platform) -> int:
    """The time that the reconciler has written down last, in seconds ahead of ours."""
    db = sqlite3.connect(f"file:{platform.home}/db/hanzo.sqlite3?mode=ro", uri=True)
    try:
        row = db.execute("SELECT body FROM records WHERE pk = 'CLOCK'").fetchone()
    finally:
        db.close()
    return round(json.loads(row[0])["seen_ms"] / 1000 - time.time()) if row else -(10**9)


def noticed(platform: Platform, offset: int) -> None:
    until(lambda: abs(seen(platform) - offset) < 90, 120, f"the reconciler has seen the clock at {offset:+}")


def run_slowly(load: Load, number: int) -> str:
    """Submit a job that runs for seconds, for the clock to be set meanwhile."""
    key = f"slow-{number}"
    job: str = load.client.submit(SLEEP, idempotency_key=key).job["id"]
    until(lambda: load.client.get(job)["state"] == "running", 120, "it runs")
    return job


@pytest.mark.parametrize("steps", [(HOUR, 0, -HOUR, 0), (-DAY, DAY, 0)], ids=["hours", "days"])
def test_the_clock_is_set_while_it_runs(tmp_path: Path, steps: tuple[int, ...]) -> None:
    clock = Clock(tmp_path)
    with Platform(tmp_path / "home", slots=3, extra=clock.environment) as platform:
        load = Load(platform, "load")
        load.more(5)
        slow: list[str] = []
        for number, offset in enumerate(steps):
            slow.append(run_slowly(load, number))
            clock.set(offset)
            noticed(platform, offset)
            load.more(5)
        load.end()
        for job in slow:
            view = load.client.wait(job, timeout_s=200)
            assert view["state"] == "succeeded", (view, load.client.events(job))
        load.accepted.update({f"slow-{number}": job for number, job in enumerate(slow)})
        account(load.client, [load], platform.home)
        assert "the clock was set back" in (platform.home / "log" / "pump.log").read_text()
        assert platform.stop() == 0


@pytest.mark.parametrize("offset", [-DAY, DAY])
def test_the_clock_is_set_between_two_starts(tmp_path: Path, offset: int) -> None:
    clock = Clock(tmp_path)
    with Platform(tmp_path / "home", extra=clock.environment, agents=0) as platform:
        load = Load(platform, "load")
        load.more(10)  # nobody runs them
        load.end()
        assert platform.stop() == 0
        clock.set(offset)
        platform.agents = 1
        platform.start()
        account(load.client, [load], platform.home)
        assert platform.stop() == 0
