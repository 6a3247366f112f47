"""Deterministic jobs on a real platform: the same twice, receipted, and the same once more by `hzc replay`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute import wiring
from hanzo_compute.adapters.sandbox import interpreters
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.config import default_cache
from hanzo_compute.errors import InvalidSpec, NotFound
from hanzo_compute.security.authorizer import Role
from tests.support import steady
from tests.support.live import Platform

# An interpreter may have to be compiled for this profile first.
pytestmark = pytest.mark.timeout(300)

DICE = "import random, sys, time\nprint(random.random(), time.time(), hash('x'), len(sys.stdin.read()))\n"


@pytest.fixture(scope="module", autouse=True)
def compiled(platform: Platform) -> None:
    """The interpreters, compiled for this profile."""
    for language in interpreters.PINS:
        interpreters.precompile(language, Profile.METERED, default_cache(platform.environment), print)


def run(platform: Platform, spec: dict[str, Any]) -> dict[str, Any]:
    client = platform.client()
    return client.wait(client.submit(spec).job["id"], timeout_s=120)


def test_a_deterministic_job_twice_and_once_more(platform: Platform, tmp_path: Path) -> None:
    program, data = tmp_path / "dice.py", tmp_path / "data"
    program.write_text(DICE)
    data.write_bytes(b"x" * 300_000)
    given = (str(program), "--profile", "deterministic", "--fuel", "5000000000", "--input", str(data))
    quote = json.loads(platform.hzc("quote", *given, "-o", "json").stdout)
    assert quote["firm"]
    runs = [platform.hzc("run", *given, timeout=120) for _ in range(2)]
    assert [each.returncode for each in runs] == [0, 0], runs
    assert runs[0].stdout == runs[1].stdout != b""
    jobs = [platform.client().get(item["id"]) for item in platform.client().list_jobs(limit=2).items]
    assert jobs[0]["outcome"]["usage"]["fuel"] == jobs[1]["outcome"]["usage"]["fuel"] > 100_000_000
    assert jobs[0]["cost"]["billed"] == jobs[1]["cost"]["billed"]

    kept = tmp_path / "kept"
    first = platform.hzc("replay", jobs[0]["id"], "--save", str(kept), timeout=120)
    assert (first.returncode, b"the same" in first.stdout) == (0, True), first
    told = json.loads(platform.hzc("replay", str(kept), "-o", "json", timeout=120).stdout)
    assert (told["equal"], told["job"]) == (True, jobs[0]["id"])
    receipt = json.loads((kept / "receipt.json").read_text())
    assert receipt["statement"]["usage"]["fuel"] == jobs[0]["outcome"]["usage"]["fuel"]
    assert receipt["statement"]["runtime"]["version"].endswith("cpython 3.12.0 deterministic")
    # The other run's receipt, with this one's spec and input: it is the same program.
    assert platform.hzc("receipt", "show", jobs[1]["id"], "--save", str(kept / "receipt.json")).returncode == 0
    assert platform.hzc("replay", str(kept), timeout=120).returncode == 0
    (kept / "input").write_bytes(b"x" * 300_001)
    other = platform.hzc("replay", str(kept), timeout=120)
    assert (other.returncode, b"differs: input" in other.stdout) == (4, True), other


def test_a_module_is_fetched_for_its_replay(platform: Platform) -> None:
    blob = platform.client().upload_blob(steady.nans())
    job = run(platform, {"source": {"module": blob}, "profile": "deterministic", "resources": {"fuel": 1_000_000}})
    assert job["state"] == "succeeded"
    told = json.loads(platform.hzc("replay", job["id"], "-o", "json").stdout)
    assert (told["equal"], "usage.fuel" in told["compared"]) == (True, True)


def test_javascript_runs_and_is_replayed(platform: Platform, tmp_path: Path) -> None:
    program = tmp_path / "sort.js"
    program.write_text("console.log([3, 1, 2].sort().join(), scriptArgs.slice(1).join())\n")
    ran = platform.hzc("run", str(program), "--", "a", "b")
    assert (ran.returncode, ran.stdout) == (0, b"1,2,3 a,b\n"), ran
    again = platform.hzc("replay", "last", timeout=120)
    assert (again.returncode, b"fuel and memory are not compared" in again.stdout) == (0, True), again
    fixed = ("run", str(program), "--profile", "deterministic", "--fuel", "100000000", "--", "a")
    assert platform.hzc(*fixed).stdout == b"1,2,3 a\n"
    assert platform.hzc("replay", "last").returncode == 0


def test_a_deterministic_job_needs_a_limit_of_fuel(platform: Platform) -> None:
    spec = {"source": {"code": "print(1)", "language": "python"}, "profile": "deterministic"}
    with pytest.raises(InvalidSpec, match=r"resources\.fuel"):
        platform.client().submit(spec)


def test_blobs_are_their_tenants(platform: Platform) -> None:
    data = b"only mine"
    blob = platform.client().upload_blob(data)
    assert platform.client().blob(blob) == data
    other = wiring.jobs_client(platform.url, platform.tenant("replay-other"))
    runner = wiring.jobs_client(platform.url, platform.tenant("replay-runner", Role.RUNNER))
    with pytest.raises(NotFound):
        other.blob(blob)
    with pytest.raises(NotFound):
        platform.client().blob("b1-" + "0" * 64)
    with pytest.raises(NotFound):
        platform.client().blob("../../x")
    with pytest.raises(Exception, match="may"):
        runner.blob(blob)


def test_a_copy_of_the_cache_is_as_good(platform: Platform, tmp_path: Path) -> None:
    """Without the agent's cache the interpreter is compiled again, and the run is the same."""
    job = run(platform, {"source": {"code": "print(1)", "language": "javascript"}} | LIMITED)
    cache = tmp_path / "cache"
    shutil.copytree(Path(default_cache(platform.environment)) / "interpreters", cache / "interpreters")
    platform.settings["HZC_CACHE"] = str(cache)
    try:
        done = platform.hzc("replay", job["id"], timeout=120)
    finally:
        del platform.settings["HZC_CACHE"]
    assert (done.returncode, b"compiled in" in done.stderr) == (0, True), done


LIMITED = {"profile": "deterministic", "resources": {"fuel": 100_000_000}}
