"""A function on a real platform: deployed, run as a job, replaced, rolled back, run again, proven."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hanzo_compute import wiring
from tests.support.live import Platform


def test_from_deploy_to_rollback_by_cli(platform: Platform, tmp_path: Path) -> None:
    program = tmp_path / "greet.py"

    def deploy(greeting: str) -> str:
        program.write_text(f"import sys\nprint('{greeting}', sys.argv[1])\n")
        made = platform.hzc("fn", "deploy", "greet", str(program), "--memory", "128", "--", "world")
        assert made.returncode == 0, made
        return made.stdout.decode().strip()

    def run(*words: str) -> bytes:
        done = platform.hzc("run", "--function", *words)
        assert done.returncode == 0, done
        return bytes(done.stdout)

    assert deploy("hello") == "greet@1"
    assert run("greet") == b"hello world\n"
    assert deploy("hello") == "greet@1"
    assert deploy("goodbye") == "greet@2"
    assert run("greet") == b"goodbye world\n"
    assert run("greet@1", "--", "you") == b"hello you\n"
    assert platform.hzc("fn", "rollback", "greet").returncode == 0
    assert run("greet") == b"hello world\n"

    client = platform.client()
    job = client.list_jobs(limit=1).items[0]["id"]
    spec = client.get(job)["spec"]
    assert (spec["source"]["function"], spec["resources"]["memory_mib"]) == ("greet@1", 128)
    file = tmp_path / "r.json"
    assert platform.hzc("receipt", "show", job, "--save", str(file)).returncode == 0
    verified = platform.hzc("receipt", "verify", str(file), "-o", "json")
    assert (verified.returncode, json.loads(verified.stdout)["job"]) == (0, job), verified

    assert platform.hzc("fn", "rm", "greet").returncode == 0
    again = platform.hzc("rerun", job, "--follow")
    assert (again.returncode, again.stdout) == (0, b"hello world\n"), again


def test_functions_survive_many_deployments_at_once(platform: Platform) -> None:
    def deploy(number: int) -> tuple[int, str]:
        client = wiring.functions_client(platform.url, platform.key)
        made = client.deploy("busy", {"source": {"code": f"print({number})", "language": "python"}})
        return int(made["version"]), str(made["spec"]["source"]["code"])

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(deploy, range(16)))
    assert sorted(version for version, _ in told) == list(range(1, 17))
    client = wiring.functions_client(platform.url, platform.key)
    for version, code in told:
        assert client.version("busy", version)["spec"]["source"]["code"] == code
    assert client.get("busy")["aliases"] == {"live": {"16": 100}}
    client.remove("busy")
