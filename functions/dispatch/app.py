"""Queue function: places waiting jobs in pools."""

from __future__ import annotations

from typing import Any

from hanzo_compute.front.consumer import consume
from hanzo_compute.front.telemetry import Metrics, configure
from hanzo_compute.model.states import State
from hanzo_compute.services.place import place
from hanzo_compute.wiring import container

logger = configure("dispatch")
metrics = Metrics("dispatch")


def on_message(message: dict[str, Any]) -> None:
    """Place the job that one message names."""
    job = place(container(), str(message["job"]))
    if job is not None and job.state is State.PLACED and job.placed_ms is not None:
        metrics.milliseconds("TimeToPlace", job.placed_ms - job.created_ms)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle a batch of SQS records."""
    return consume(event, context, on_message, metrics)
