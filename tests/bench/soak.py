"""A platform under more than it can do, for minutes: ``python -m tests.bench.soak --clients 64 --minutes 10``.

Clients submit small WASM jobs as fast as they are let, wait for some, cancel some, look and list. Meanwhile what every
process uses is sampled. At the end everything that was accepted must have ended exactly once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hanzo_compute import wiring
from tests.bench.http import Connection
from tests.bench.samples import Sample, Sampler, audit, growth
from tests.support.live import Platform, compiled

TINY: Final = '(module (memory (export "memory") 1) (func (export "_start")))'
"""A module that ends at once."""
WARM_UP: Final = 0.3
"""Share of the samples that the fit of growth leaves out."""
TERMINAL: Final = {"succeeded", "failed", "cancelled", "timed_out", "expired", "dead"}


@dataclass
class Soak:
    """What to do, and what came of it."""

    clients: int
    seconds: float
    sample_s: float
    statuses: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    without_retry_after: int = 0
    longest_s: float = 0.0
    broken: int = 0
    samples: list[Sample] = field(default_factory=list)


async def _client(soak: Soak, port: int, key: str, spec: dict[str, Any], number: int, end: float) -> None:
    connection, chance, count = Connection(port, key), random.Random(number), 0
    while time.monotonic() < end:
        count += 1
        job = await _submit(soak, connection, spec, f"{number}-{count}", end)
        if job is None:
            continue
        what = chance.random()
        if what < 0.1:
            await _call(soak, connection, "POST", f"/v1/jobs/{job}/cancel")
        elif what < 0.2:
            await _call(soak, connection, "GET", f"/v1/jobs/{job}")
        elif what < 0.22:
            await _call(soak, connection, "GET", "/v1/jobs?limit=20&state=placed")
        elif what < 0.3:
            await _wait(soak, connection, job, end)
    connection.close()


async def _submit(soak: Soak, connection: Connection, spec: dict[str, Any], key: str, end: float) -> str | None:
    """Submit until it is accepted, as a client does that was told to come back."""
    while time.monotonic() < end:
        status, headers, body = await _call(soak, connection, "POST", "/v1/jobs", spec, {"Idempotency-Key": key})
        if status in (200, 201):
            soak.accepted.add(body["id"])
            return str(body["id"])
        if status in (429, 503):
            await asyncio.sleep(min(float(headers.get("retry-after", 1)), 2) * random.uniform(0.5, 1.0))
        elif status:
            raise AssertionError(f"a submission was answered {status}: {body}")
    return None


async def _wait(soak: Soak, connection: Connection, job: str, end: float) -> None:
    state = "queued"
    while state not in TERMINAL and time.monotonic() < end:
        path = f"/v1/jobs/{job}?wait_s=5&seen_state={state}"
        status, _, body = await _call(soak, connection, "GET", path)
        state = body["state"] if status == 200 else state


async def _call(
    soak: Soak,
    connection: Connection,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], Any]:
    begin = time.monotonic()
    try:
        status, given, answer = await connection.call(method, path, body, headers)
    except OSError:
        soak.broken += 1
        await asyncio.sleep(0.5)
        return 0, {}, None
    if "wait_s" not in path:
        soak.longest_s = max(soak.longest_s, time.monotonic() - begin)
    soak.statuses[f"{status} {answer.get('code', '') if status >= 400 else ''}".strip()] += 1
    if status in (429, 503) and "retry-after" not in given:
        soak.without_retry_after += 1
    return status, given, answer


async def _all(soak: Soak, platform: Platform, keys: list[str], specs: list[dict[str, Any]]) -> None:
    end = time.monotonic() + soak.seconds
    sampler = Sampler(platform)
    clients = [
        asyncio.create_task(_client(soak, platform.port, keys[n % len(keys)], specs[n % len(specs)], n, end))
        for n in range(soak.clients)
    ]
    while not all(client.done() for client in clients):
        await asyncio.wait(clients, timeout=soak.sample_s)
        soak.samples.append(await asyncio.to_thread(sampler.sample))
    for client in clients:
        client.result()
    last = time.monotonic() + 600
    while (sample := await asyncio.to_thread(sampler.sample)).unfinished and time.monotonic() < last:
        soak.samples.append(sample)
        await asyncio.sleep(soak.sample_s / 5)
    soak.samples.append(sample)


def run(platform: Platform, *, clients: int, seconds: float, tenants: int = 2, sample_s: float = 5.0) -> dict[str, Any]:
    """Load a platform that runs, and report."""
    soak = Soak(clients, seconds, sample_s)
    keys = [platform.key, *(platform.tenant(f"tenant-{n}") for n in range(1, tenants))]
    module = compiled(TINY)
    blobs = [wiring.jobs_client(platform.url, key).upload_blob(module) for key in keys]
    specs = [{"source": {"module": blob}} for blob in blobs]
    begin = time.monotonic()
    asyncio.run(_all(soak, platform, keys, specs))
    took = time.monotonic() - begin
    found = audit(platform.home, soak.accepted)
    last = time.monotonic() + 60
    while found["messages"] and time.monotonic() < last:  # what follows an end comes a moment after it
        time.sleep(0.5)
        found = audit(platform.home, soak.accepted)
    steady = soak.samples[int(len(soak.samples) * WARM_UP) :]
    return {
        "clients": clients,
        "seconds": seconds,
        "drained_after_s": round(took - seconds, 1),
        "accepted": len(soak.accepted),
        "jobs_per_s": round(found["jobs"] / took, 1),
        "statuses": dict(soak.statuses.most_common()),
        "connections_broken": soak.broken,
        "refused_without_retry_after": soak.without_retry_after,
        "longest_call_s": round(soak.longest_s, 2),
        "waiting_max": max(sample.waiting for sample in soak.samples),
        "queue_age_max_s": round(max(sample.age_s for sample in soak.samples), 2),
        "growth_kib_per_1000_jobs": growth(steady),
        "audit": found,
        "samples": [sample.as_json() for sample in soak.samples],
    }


def table(report: dict[str, Any]) -> str:
    """The report, to be read."""
    lines = [f"{name:30} {value}" for name, value in report.items() if name not in ("samples", "audit")]
    lines += [f"{'audit: ' + name:30} {value}" for name, value in report["audit"].items()]
    lines.append("")
    samples = report["samples"]
    step = max(1, len(samples) // 20)
    names = list(samples[0]["rss_mib"])
    lines.append(" ".join(["    s", " ended", "waits", "age s", "db MiB", "wal", *(f"{n:>10}" for n in names), "fds"]))
    for each in samples[::step]:
        rss = " ".join(f"{each['rss_mib'].get(name, 0):10.1f}" for name in names)
        files = "/".join(str(each["files"].get(name, 0)) for name in names)
        lines.append(
            f"{each['at_s']:5.0f} {each['ended']:6} {each['waiting']:5} {each['age_s']:5.1f} {each['db_mib']:6.0f}"
            f" {each['wal_mib']:3.0f} {rss} {files}"
        )
    return "\n".join(lines)


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--fronts", type=int, default=1)
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--waiting", type=int, default=2_000, help="most waiting jobs of a tenant; 1.5 times in all")
    parser.add_argument("--out", type=Path, default=Path("build/soak.json"))
    options = parser.parse_args()
    limits = {"HZC_TENANT_WAITING_MAX": options.waiting, "HZC_WAITING_MAX": options.waiting * 3 // 2}
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(Path(folder) / "home", fronts=options.fronts, agents=options.agents)
        platform.settings = {name: str(value) for name, value in limits.items()}
        with platform:
            report = run(platform, clients=options.clients, seconds=options.minutes * 60)
    report |= {"limits": limits, "fronts": options.fronts, "agents": options.agents}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1))
    print(table(report))
    lost = report["audit"]["lost"] + report["audit"]["unfinished"] + report["audit"]["ended_not_once"]
    return 1 if lost or report["refused_without_retry_after"] else 0


if __name__ == "__main__":
    sys.exit(main())
