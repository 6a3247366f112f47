"""Scheduled function: the learner."""

from __future__ import annotations

from typing import Any

from hanzo_compute.front.telemetry import Metrics, configure
from hanzo_compute.services.learn import learn
from hanzo_compute.wiring import container

logger = configure("learning")
metrics = Metrics("learning")


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Handle one scheduled event; says how many observations were folded."""
    done = learn(container())
    for name, count in done.items():
        metrics.count(f"Learnt_{name}", count)
    metrics.flush()
    return done
