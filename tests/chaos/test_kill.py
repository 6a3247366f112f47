"""kill -9 of any process at random moments, under load: what got a 2xx ends exactly once, and nothing is left behind.

`HZC_KILLS=100` makes the campaign longer, `HZC_KILL_SEED` another one.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hanzo_compute_host.running import is_ready
from tests.support import invariants
from tests.support.live import Platform, children, until
from tests.support.load import Load
from tests.support.rounds import Armed

pytestmark = [pytest.mark.kill, pytest.mark.slow]

KILLS = int(os.environ.get("HZC_KILLS", "25"))
SEED = int(os.environ.get("HZC_KILL_SEED", "20"))
AGENTS = ("agent-1", "agent-2")
TARGETS = ("writer", "front-1", "front-2", "pump", *AGENTS, "worker", "supervisor")


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Armed]:
    """No point is armed; what dies is started again at once, and leases are short."""
    with Armed(tmp_path / "home", fronts=2, agents=2) as started:
        started.upload()
        yield started


def strike(platform: Platform, target: str, chance: random.Random) -> bool:
    """Kill one process; False when there is none of that name just now."""
    if target == "supervisor":
        platform.kill_supervisor()
        platform.start()
        return True
    if target == "worker":
        agent = platform.pid(chance.choice(AGENTS))
        workers = [] if agent is None else sorted(children(agent))
        pid = chance.choice(workers) if workers else None
    else:
        pid = platform.pid(target)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


@pytest.mark.timeout(600 + 12 * KILLS)
def test_every_accepted_job_ends_exactly_once(platform: Armed) -> None:
    chance = random.Random(SEED)
    module = platform.modules["short"]
    load = [Load(platform, f"load{number}", pause_s=0.15, module=module) for number in range(2)]
    killed: list[str] = []
    while len(killed) < KILLS:
        target = TARGETS[len(killed) % len(TARGETS)] if len(killed) < len(TARGETS) else chance.choice(TARGETS)
        threading.Event().wait(chance.uniform(0.1, 0.9))  # the moment of the kill is what varies
        if strike(platform, target, chance):
            killed.append(target)
        if chance.random() < 0.7:  # else the next kill comes before this one is repaired
            until(lambda: is_ready(platform.url, 1.0), 120, f"it answers again after {killed} of seed {SEED}")
    for each in load:
        each.end()

    client = platform.client()
    accepted = {job for each in load for job in each.accepted.values()}
    assert len(accepted) == sum(len(each.accepted) for each in load)
    until(lambda: is_ready(platform.url, 1.0) and not invariants.unfinished(client), 120, "all jobs end")
    assert invariants.wrong_jobs(platform.home, accepted) == []
    for job in accepted:
        assert client.get(job)["state"] == "succeeded"
        assert client.output(job) == b"tick\n"
    for each in load:  # the keys still give the same jobs
        for key, job in each.accepted.items():
            assert client.submit(each.spec(key), idempotency_key=key).job["id"] == job
    until(lambda: not invariants.wrong_at_rest(platform.home), 120, f"{invariants.wrong_at_rest(platform.home)}")
    assert platform.stop() == 0
    until(lambda: not platform.processes() and not invariants.orphans(), 120, "no process is left")
