"""The soak in short: under more than the platform takes, nothing accepted is lost and what waits stays bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import soak
from tests.support.live import Platform

CLIENTS = 24
TENANT_MAX, MAX = 10, 16  # few, for the slowest machine to come there in so short a time


@pytest.mark.slow
def test_saturation_loses_nothing_and_bounds_what_waits(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "home")
    platform.settings = {"HZC_TENANT_WAITING_MAX": str(TENANT_MAX), "HZC_WAITING_MAX": str(MAX)}
    with platform:
        report = soak.run(platform, clients=CLIENTS, seconds=8, tenants=3, sample_s=0.5)
    print(soak.table(report))
    audit = report["audit"]
    assert report["accepted"] > 0
    assert (audit["lost"], audit["unfinished"], audit["ended_not_once"]) == (0, 0, 0)
    assert (audit["outbox_rows"], audit["messages"], audit["waiting_entries"]) == (0, 0, 0)
    assert audit["unknown"] <= report["connections_broken"]
    # A count may miss what is being written at that moment, at most one job of each client.
    assert report["waiting_max"] <= MAX + CLIENTS
    assert set(report["statuses"]) <= {"200", "201", "409 conflict", "429 rate_limited", "503 no_capacity"}
    assert report["statuses"].get("503 no_capacity", 0) > 0
    assert report["refused_without_retry_after"] == 0
