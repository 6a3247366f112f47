"""Queue function: places waiting jobs in pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hanzo_compute.errors import ComputeError
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


def placed(jobs: Sequence[str]) -> dict[str, Job | ComputeError | None]:
    """Place jobs, and count by what: the router, load alone, or nothing to choose from."""
    ctx = container()
    found = place(ctx, jobs)
    for by, count in ctx.learnt.placed.items():
        metrics.count(f"Placed_{by}", count)
    ctx.learnt.placed.clear()
    return found


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle a batch of SQS records."""
    return consume(event, placed, on_placed, metrics)
