"""The job that `make run` carries through the platform: a program, its input, and what must come out."""

from __future__ import annotations

import io
from importlib.resources import files
from typing import Any

from hanzo_compute_host.demo import orders


def program() -> str:
    """The source of the program."""
    return files(__name__).joinpath("orders.py").read_text("utf-8")


def expected(csv: bytes) -> dict[str, Any]:
    """The report that this Python makes of the same orders, for comparison."""
    return orders.report(io.StringIO(csv.decode(), newline=""))
