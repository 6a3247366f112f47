"""A plan by a real platform: by the CLI, and by HTTP with what a client may get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hanzo_compute import wiring
from hanzo_compute.errors import InvalidRequest, Unauthenticated
from tests.support.live import Platform

EXAMPLE = Path(__file__).parents[2] / "examples" / "plans" / "drain.json"


def test_a_plan_by_the_platform(platform: Platform) -> None:
    found = json.loads(platform.hzc("plan", str(EXAMPLE), "-o", "json").stdout)
    # A drain makes 0.86 of 0.6 healthy at once, and nothing else does; a probe costs nothing and tells something.
    assert found["plan"][0] == found["action"] == {"node": "drain", "monitor": "probe"}
    assert len(found["plan"]) == 3
    assert found["trace"]["plans"] == 64
    problem = json.loads(EXAMPLE.read_text())
    assert wiring.routing_client(platform.url, platform.key).plan(problem) == found
    with pytest.raises(InvalidRequest, match="horizon"):
        wiring.routing_client(platform.url, platform.key).plan(problem | {"horizon": 0})
    with pytest.raises(Unauthenticated):
        wiring.routing_client(platform.url, None).plan(problem)
