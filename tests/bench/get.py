"""`GET /v1/jobs/{id}`: our front against a FastAPI application on the same store.

Method. As in `post.py`. Before the rounds each server gets 200 jobs; 16 kept-alive connections then ask for them in
turn. Nothing is written meanwhile, so each process reads the database by itself and the writer has nothing to do.

What it does not show. Reads while others write; jobs with outcomes, which need one more record; long polls.
"""

from __future__ import annotations

from itertools import cycle, islice

from tests.bench import load, versus
from tests.bench.options import Options
from tests.bench.report import Report
from tests.bench.servers import Server

CLIENTS = 16
JOBS = 200


def prepare(server: Server, jobs: int) -> list[str]:
    """Submit jobs to ask for; their ids."""
    requests = [load.request("POST", "/v1/jobs", server.key, versus.SPEC)] * jobs
    return [answer.json()["id"] for answer in load.accepted(load.drive(server.port, requests, connections=8), 201)]


def run(options: Options) -> Report:
    """Rounds of 16 clients."""
    count = options.size(6000, 40)
    with versus.both(options, "get") as servers:
        ids = {server.port: prepare(server, options.size(JOBS, 4)) for server in servers.values()}

        def requests(server: Server) -> list[bytes]:
            asked = [load.request("GET", f"/v1/jobs/{job}", server.key) for job in ids[server.port]]
            return list(islice(cycle(asked), count))

        ours, theirs = versus.rounds(options, servers, requests, connections=options.size(CLIENTS, 8), status=200)
    return versus.table(f"GET /v1/jobs/{{id}}, {CLIENTS} clients", ours, theirs, cpu_bound=1.0, rate_bound=None)
