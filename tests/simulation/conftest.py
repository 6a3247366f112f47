"""Options of the simulation: how many schedules, or which one to replay."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--sim-seed", type=int, help="replay the schedule of this seed")
    group.addoption("--sim-profile", default="crashy", help="profile of --sim-seed")
    group.addoption("--sim-schedules", type=int, default=2400, help="schedules to explore, over all profiles")
