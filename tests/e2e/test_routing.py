"""Jobs of a real platform with two pools: what was learnt of them, and why each job is where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.live import Platform, until

HELLO = {"source": {"code": "print('hello')", "language": "python"}}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("routing") / "home"
    with Platform(home, agents=2, slots=1, extra={"HZC_POOLS": "local,spare"}) as started:
        yield started


def test_why_a_job_is_where_it_is(platform: Platform) -> None:
    client = platform.client()
    for _ in range(4):
        ended = client.wait(client.submit(HELLO).job["id"], timeout_s=200)
        assert ended["state"] == "succeeded"
    until(lambda: client.regimes()["folded"] >= 4, 120, "the learner has seen all")

    def routed() -> str | None:
        """A job that the router placed: dispatch reads what was learnt every five seconds."""
        job = client.wait(client.submit(HELLO).job["id"], timeout_s=200)
        return str(job["id"]) if client.trace(job["id"])["by"] == "hllm" else None

    job = until(routed, 120, "the router decides")
    trace = json.loads(platform.hzc("why", job, "-o", "json").stdout)
    assert (trace["job"], trace["attempt"], trace["by"]) == (job, 1, "hllm")
    assert client.get(job)["pool"] == trace["chosen"]["pool"]
    assert trace["decision"]["recomputed"] == "yes"
    assert {each["pool"] for each in trace["places"]} == {"local", "spare"}
    shown = platform.hzc("why", "last")
    assert shown.returncode == 0, shown
    text = shown.stdout.decode()
    assert trace["chosen"]["pool"] in text
    assert "by the router" in text
    assert "UTILITY" in text


def test_regimes_are_shown(platform: Platform) -> None:
    client = platform.client()
    assert client.wait(client.submit(HELLO).job["id"], timeout_s=200)["state"] == "succeeded"
    until(lambda: client.regimes()["folded"], 120, "the learner has seen it")
    found = json.loads(platform.hzc("regimes", "-o", "json").stdout)
    assert found["routing"] == "hllm"
    assert sum(pool["seen"] for pool in found["pools"]) == found["folded"] > 0
    shown = platform.hzc("regimes")
    assert shown.returncode == 0, shown
    assert "spare" in shown.stdout.decode()
    assert "normal" in shown.stdout.decode()
    assert "none are fitted yet" in shown.stdout.decode()


def test_there_is_no_trace_of_no_job(platform: Platform) -> None:
    refused = platform.hzc("why", "j-00000000000000000000000000")
    assert (refused.returncode, b"there is no job" in refused.stderr) == (2, True), refused
