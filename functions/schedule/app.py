"""Scheduled function: the reconciler."""

from __future__ import annotations

from typing import Any

from hanzo_compute.front.telemetry import Metrics, configure
from hanzo_compute.services.reconcile import reconcile
from hanzo_compute.wiring import container

logger = configure("schedule")
metrics = Metrics("schedule")


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Handle one scheduled event; says what was repaired."""
    repaired = reconcile(container())
    for name, count in repaired.items():
        metrics.count(f"Repaired_{name}", count)
    metrics.flush()
    return repaired
