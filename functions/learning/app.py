"""Scheduled function: the learner, and once a day the fit of the regimes."""

from __future__ import annotations

from typing import Any

from hanzo_compute.front.telemetry import Metrics, configure
from hanzo_compute.services.learn import learn
from hanzo_compute.services.refit import refit
from hanzo_compute.wiring import container

logger = configure("learning")
metrics = Metrics("learning")


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Handle one scheduled event; says how many observations were folded, and whether regimes were fitted."""
    done = learn(container()) | refit(container())
    for name, count in done.items():
        metrics.count(f"Learnt_{name}", count)
    metrics.flush()
    return done
