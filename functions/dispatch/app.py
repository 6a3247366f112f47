"""Queue function: places waiting jobs in pools."""

from __future__ import annotations

from typing import Any

from hanzo_compute.front.consumer import consume
from hanzo_compute.front.telemetry import Metrics, configure
from hanzo_compute.model.job import Job
from hanzo_compute.model.states import State
from hanzo_compute.services.place import place
from hanzo_compute.wiring import container

logger = configure("dispatch")
metrics = Metrics("dispatch")


def on_placed(_: str, job: Job | None) -> None:
    """Count the time that a job waited for its place."""
    if job is not None and job.state is State.PLACED and job.placed_ms is not None:
        metrics.milliseconds("TimeToPlace", job.placed_ms - job.created_ms)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle a batch of SQS records."""
    return consume(event, lambda jobs: place(container(), jobs), on_placed, metrics)
