"""Thousands of schedules of the whole way of a job: nothing that must hold is ever broken.

A failure prints its seed; ``pytest tests/simulation --sim-seed=N --sim-profile=P`` shows the same schedule again.
"""

from __future__ import annotations

import pytest

from tests.simulation.explore import Pool
from tests.simulation.profiles import PROFILES
from tests.simulation.world import run


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_schedule_breaks_a_rule_and_a_crash_is_tried_at_every_call_site(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = pytestconfig.getoption("sim_seed", default=None)
    if seed is not None:
        report = run(seed, pytestconfig.getoption("sim_profile"))
        assert report.failure is None, report.describe(last=1000)
        return
    monkeypatch.syspath_prepend(pytestconfig.rootpath)  # the pool's processes import this package by its name
    pool = Pool()
    try:
        found = pool.explore(list(PROFILES), pytestconfig.getoption("sim_schedules", default=2400))
        assert not found.failures, found.failures[0]
        for _ in range(3):  # a crash leads to sites that no schedule before had come to
            more = pool.cover(found)
            assert not more.failures, more.failures[0]
            found.merge(more)
            if not found.uncovered:
                break
    finally:
        pool.close()
    print(found)
    assert found.uncovered == []
    assert len(found.reached) > 60
    assert {site.file.split("/")[0] for site in found.reached} == {"services", "hanzo_compute_agent"}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_seed_replays_exactly(profile: str) -> None:
    first, again = run(11, profile), run(11, profile)
    assert first.failure is None
    assert first.trace == again.trace
    assert first.trace != run(12, profile).trace


def test_a_failure_tells_how_to_see_it_again() -> None:
    report = run(3, "crashy")
    report.failure = "something broke"
    text = report.describe(last=5)
    assert "pytest tests/simulation --sim-seed=3 --sim-profile=crashy" in text
    assert str(report.trace[-1]) in text
    assert len(text.splitlines()) == 5 + 4
