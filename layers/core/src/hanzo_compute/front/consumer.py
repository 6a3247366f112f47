"""A queue function: one record after the other, failures reported one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from hanzo_compute.front.telemetry import Metrics


def consume(
    event: dict[str, Any], context: Any, handle: Callable[[dict[str, Any]], None], metrics: Metrics
) -> dict[str, Any]:
    """Call ``handle`` with the body of each SQS record; those that raise are reported, and come again."""

    def on_record(record: SQSRecord) -> None:
        handle(record.json_body)

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    try:
        return dict(process_partial_response(event, on_record, processor, context))
    finally:
        metrics.flush()
