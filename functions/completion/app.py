"""Queue function: what follows a job's outcome."""

from __future__ import annotations

from typing import Any

from hanzo_compute.front.consumer import consume
from hanzo_compute.front.telemetry import Metrics, configure
from hanzo_compute.model.job import Job
from hanzo_compute.services.complete import close
from hanzo_compute.services.log import sequence
from hanzo_compute.wiring import container

logger = configure("completion")
metrics = Metrics("completion")


def on_closed(job_id: str, found: tuple[Job, bool] | None) -> None:
    """Count a job that has been closed, once."""
    if found is None:
        logger.warning("completion message for an unknown job", extra={"job": job_id})
        return
    job, first = found
    if first:
        metrics.count(f"Jobs_{job.state}")
        metrics.milliseconds("TimeToOutcome", (job.finished_ms or job.updated_ms) - job.created_ms)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Handle a batch of SQS records; then what waits for its place in the transparency log gets it."""
    answer = consume(event, lambda jobs: close(container(), jobs), on_closed, metrics)
    try:
        sequence(container())
    except Exception:  # what was closed is closed; the next batch, or the reconciler, does it
        logger.exception("the transparency log waits")
    return answer
