"""Durable, validated `POST /v1/jobs`: our front against a FastAPI application on the same writer.

Method. Two servers run at once, each one HTTP process and a writer of its own: the platform's front, and
`fastapi_app.py`. 64 kept-alive connections send the same spec, each waiting for its 201, which is sent when the job is
durable. The servers take turns, so that what disturbs the machine disturbs both; CPU is read from the kernel for the
HTTP process and for the writer, and the client is a process of its own. The ratio is formed in each round.

What it does not show. Several front processes; bodies near the limits; refusals. No pump and no agent run, so the
writer serves these requests alone. On two cores the client, the front and the writer compete, so the rate says less
than the CPU per request does.
"""

from __future__ import annotations

from tests.bench import load, versus
from tests.bench.options import Options
from tests.bench.report import Report

CLIENTS = 64


def run(options: Options) -> Report:
    """Rounds of 64 clients."""
    count = options.size(3000, 40)
    with versus.both(options, "post") as servers:
        ours, theirs = versus.rounds(
            options,
            servers,
            lambda server: [load.request("POST", "/v1/jobs", server.key, versus.SPEC)] * count,
            connections=options.size(CLIENTS, 8),
            status=201,
        )
    title = f"Durable POST /v1/jobs, {CLIENTS} clients"
    return versus.table(title, ours, theirs, cpu_bound=1.2, rate_bound=0.9)
