"""Structured logs and metrics of a function, by Powertools."""

from __future__ import annotations

import logging

from aws_lambda_powertools import Logger
from aws_lambda_powertools import Metrics as EmbeddedMetrics
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import MetricUnit

NAMESPACE = "HanzoCompute"


def configure(service: str) -> Logger:
    """The logger of a function; what the core logs goes the same way, whichever function it served."""
    logging.getLogger("hanzo_compute").setLevel(logging.INFO)
    copy_config_to_registered_loggers(source_logger=Logger(service="core"), include={"hanzo_compute"})
    return Logger(service=service)


class Metrics:
    """Metrics in CloudWatch's embedded format, written as one log line for each invocation that has any."""

    def __init__(self, service: str) -> None:
        self._embedded = EmbeddedMetrics(namespace=NAMESPACE, service=service)

    def count(self, name: str, value: int = 1) -> None:
        """Add to a count."""
        self._embedded.add_metric(name, MetricUnit.Count, value)

    def milliseconds(self, name: str, value: int) -> None:
        """Add a duration."""
        self._embedded.add_metric(name, MetricUnit.Milliseconds, value)

    def flush(self) -> None:
        """Write what was added. A disk that takes no log must not make a handler fail that has done its work."""
        try:
            if self._embedded.metric_set:
                self._embedded.flush_metrics()
        except OSError:
            self._embedded.clear_metrics()
