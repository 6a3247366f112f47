"""Planning for a tenant: nothing is stored, and nothing of the platform is read."""

from __future__ import annotations

from typing import Any

from hanzo_compute.routing import efe
from hanzo_compute.routing.problem import PlanProblem


def by_expected_free_energy(problem: PlanProblem) -> dict[str, Any]:
    """The next action, the plan and the trace: see :mod:`hanzo_compute.routing.efe`. Raises InvalidRequest."""
    return efe.plan(problem)
