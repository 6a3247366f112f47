"""The routes of traces and regimes, and the settings of routing: real events in, real responses out."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import dispatch.app
import learning.app
from hanzo_compute import wiring
from hanzo_compute.config import Policy, Pool, load
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import keys
from hanzo_compute.ports import Put
from hanzo_compute.routing.snapshot import Snapshot
from hanzo_compute.wiring import Container
from tests.support.handlers import CONTEXT, SPEC, Client, place, run

OK = {"category": "ok", "exit_code": 0, "usage": {"wall_ms": 5}}
WASM = frozenset({"wasm"})


def test_a_placement_is_told_to_its_tenant_and_learnt_from(
    container: Container, call: Client, other: Client, agent: Client
) -> None:
    job = call("POST", "/v1/jobs", SPEC).body["id"]
    assert call("GET", f"/v1/jobs/{job}/trace").status == 404
    run(container, agent, OK)
    found = call("GET", f"/v1/jobs/{job}/trace")
    assert found.status == 200
    assert found.body["chosen"] == {"pool": "local", "runtime": "wasm"}
    assert other("GET", f"/v1/jobs/{job}/trace").status == 404
    assert call("GET", f"/v1/jobs/{job}/trace?attempt=2").status == 404
    assert call("GET", f"/v1/jobs/{job}/trace?attempt=0").status == 400
    assert call("GET", f"/v1/jobs/{job}/trace", key=None).status == 401
    assert agent("GET", f"/v1/jobs/{job}/trace").status == 403
    before = call("GET", "/v1/regimes").body
    assert (before["folded"], before["regimes"], before["fit"]) == (0, [], None)
    assert learning.app.handler({}, CONTEXT) == {"folded": 1}
    after = call("GET", "/v1/regimes").body
    assert (after["routing"], after["readable"], after["folded"]) == ("hllm", True, 1)
    assert after["regimes"] == [{"name": "normal", "probability": 1.0}]
    (pool,) = after["pools"]
    assert (pool["pool"], pool["seen"], pool["lost"]) == ("local", 1, 0)


@pytest.mark.parametrize(
    "engine",
    [
        {"format": "hllm.router/1"},
        {"regimes": ["a"], "regime_belief": [1.0], "emission": {}},
        {"regimes": 5},
        {"regimes": ["a"], "regime_belief": [1.0], "emission": {"mean": [[1.0]]}, "regime_transition": []},
    ],
)
def test_regimes_are_told_of_a_record_whose_state_is_damaged(
    container: Container, call: Client, engine: dict[str, object]
) -> None:
    body = Snapshot(folded=3, engine=engine).body()
    container.store.transact([Put(keys.routing(), body)])
    found = call("GET", "/v1/regimes")
    assert (found.status, found.body["readable"], found.body["regimes"]) == (200, False, [])


def test_the_router_decides_from_the_second_learnt_batch_on(container: Container, call: Client, agent: Client) -> None:
    policy = Policy(pools=(Pool("local", WASM), Pool("spare", WASM)))
    both = replace(container, policy=policy)
    wiring.install(both)
    call("POST", "/v1/jobs", SPEC)
    run(both, agent, OK)
    learning.app.handler({}, CONTEXT)
    both.clock.advance(6_000)  # type: ignore[attr-defined]
    job = call("POST", "/v1/jobs", SPEC).body["id"]
    place(both)
    trace = call("GET", f"/v1/jobs/{job}/trace").body
    assert trace["by"] == "hllm"
    assert {each["action"] for each in trace["decision"]["candidates"]} == {"local/wasm", "spare/wasm"}
    assert trace["decision"]["recomputed"] == "yes"


def test_placements_are_counted_by_what_decided_them(
    container: Container, call: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    call("POST", "/v1/jobs", SPEC)
    capsys.readouterr()
    place(container)
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "Placed_only" in line]
    assert line["Placed_only"] == [1.0]
    assert container.learnt.placed == {}
    assert dispatch.app.handler({"Records": []}, CONTEXT) == {"batchItemFailures": []}


@pytest.mark.parametrize("module", ["job_intake.app", "leases.app", "invoke.app", "completion.app", "schedule.app"])
def test_functions_that_place_nothing_start_without_numpy(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'numpy', 'hllm'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_settings_of_routing(tmp_path: Path) -> None:
    home = {"HZC_HOME": str(tmp_path), "HZC_CACHE": str(tmp_path)}
    assert load(home).policy.routing == "hllm"
    policy = load(home | {"HZC_ROUTING": "least_loaded", "HZC_POOLS": "local, spare-2", "HZC_POOL_TIER": "1"}).policy
    assert policy.routing == "least_loaded"
    assert policy.pools == (Pool("local", WASM, 1), Pool("spare-2", WASM, 1))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HZC_ROUTING", "random"),
        ("HZC_POOLS", "a,a"),
        ("HZC_POOLS", "a,,b"),
        ("HZC_POOLS", "A"),
        ("HZC_POOLS", ",".join(f"p{number}" for number in range(65))),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=name):
        load({"HZC_HOME": str(tmp_path), "HZC_CACHE": str(tmp_path), name: text})
