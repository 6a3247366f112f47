"""Jobs on a real platform, by CLI and by HTTP, as a person would use it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3

from hanzo_compute import wiring
from hanzo_compute.errors import NotFound, PermissionDenied, Unauthenticated
from hanzo_compute.model.spec import format_time
from hanzo_compute.security.authorizer import Role
from tests.support.live import Platform, until

HELLO = """
import sys
for number, line in enumerate(sys.stdin, 1):
    print(number, line.strip().title())
print("done", file=sys.stderr)
"""
FOREVER = "import time\nprint('started', flush=True)\nwhile True: time.sleep(0.05)\n"


def python(code: str, **more: Any) -> dict[str, Any]:
    return {"source": {"code": code, "language": "python"}, **more}


def ended(platform: Platform, spec: dict[str, Any]) -> dict[str, Any]:
    """Submit and wait for the end."""
    client = platform.client()
    return client.wait(client.submit(spec).job["id"], timeout_s=200)


class TestCli:
    def test_run_shows_log_and_result(self, platform: Platform, tmp_path: Path) -> None:
        (tmp_path / "hello.py").write_text(HELLO)
        (tmp_path / "names.txt").write_text("ada\ngrace\n")
        run = platform.hzc("run", str(tmp_path / "hello.py"), "--input", str(tmp_path / "names.txt"))
        assert run.returncode == 0, run
        assert b"1 Ada\n2 Grace\n" in run.stdout
        assert b"succeeded" in run.stderr

    def test_a_large_input_goes_as_a_blob(self, platform: Platform, tmp_path: Path) -> None:
        (tmp_path / "count.py").write_text("import sys\nprint(len(sys.stdin.read()))\n")
        (tmp_path / "data").write_text("x" * 400_000)
        run = platform.hzc("run", str(tmp_path / "count.py"), "--input", str(tmp_path / "data"))
        assert (run.returncode, run.stdout) == (0, b"400000\n")

    def test_a_failing_program_exits_1(self, platform: Platform, tmp_path: Path) -> None:
        (tmp_path / "fail.py").write_text("import sys\nsys.exit(7)\n")
        run = platform.hzc("run", str(tmp_path / "fail.py"))
        assert run.returncode == 1
        assert b"failed" in run.stderr

    def test_a_bad_spec_exits_2_and_names_the_field(self, platform: Platform, tmp_path: Path) -> None:
        (tmp_path / "job.json").write_text(json.dumps(python("1", resources={"memroy_mib": 1})))
        run = platform.hzc("run", str(tmp_path / "job.json"))
        assert run.returncode == 2
        assert b"resources.memory_mib" in run.stderr

    def test_a_wrong_key_exits_4(self, platform: Platform) -> None:
        assert platform.hzc("--key", "hzk_" + "0" * 26 + "_" + "A" * 43, "ls").returncode == 4

    def test_no_platform_exits_6(self, platform: Platform) -> None:
        run = platform.hzc("--url", "http://127.0.0.1:1", "--key", platform.key, "ls")
        assert run.returncode == 6
        assert b"cannot reach" in run.stderr

    def test_ls_show_and_result_in_json(self, platform: Platform, tmp_path: Path) -> None:
        (tmp_path / "six.py").write_text("print(6 * 7)\n")
        job = platform.hzc("submit", str(tmp_path / "six.py"), "--label", "suite=e2e").stdout.decode().strip()
        platform.client().wait(job, timeout_s=200)
        listed = json.loads(platform.hzc("ls", "--label", "suite=e2e", "-o", "json").stdout)
        shown = json.loads(platform.hzc("show", job, "-o", "json").stdout)
        items = listed["items"] if isinstance(listed, dict) else listed
        assert [item["id"] for item in items] == [job]
        assert shown["state"] == "succeeded"
        assert platform.hzc("result", job, "--stdout").stdout == b"42\n"
        assert platform.hzc("logs", "-f", job).stdout == b"42\n"

    def test_cancel_ends_a_running_job(self, platform: Platform, tmp_path: Path) -> None:
        (tmp_path / "forever.py").write_text(FOREVER)
        job = platform.hzc("submit", str(tmp_path / "forever.py")).stdout.decode().strip()
        client = platform.client()
        until(lambda: client.get(job)["state"] == "running", 120, "it runs")
        assert platform.hzc("cancel", job).returncode == 0
        found = client.wait(job, timeout_s=200)
        assert (found["state"], found["outcome"]["category"]) == ("cancelled", "cancelled")

    def test_doctor_finds_this_machine_fit(self, platform: Platform) -> None:
        assert platform.hzc("doctor").returncode == 0

    def test_escape_codes_stay_out_of_the_log_of_a_terminal(self, platform: Platform, tmp_path: Path) -> None:
        (tmp_path / "evil.py").write_text("print('\\x1b]0;owned\\x07\\x1b[2J[bold]x[/bold]')\n")
        run = platform.hzc("run", str(tmp_path / "evil.py"), "-o", "json")
        assert b"\x1b" not in run.stdout


class TestOutcomes:
    def test_fuel_runs_out(self, platform: Platform) -> None:
        found = ended(platform, python("while True: pass", resources={"fuel": 50_000_000}))
        assert (found["state"], found["outcome"]["category"]) == ("failed", "fuel")
        assert found["outcome"]["usage"]["fuel"] >= 50_000_000

    def test_time_runs_out(self, platform: Platform) -> None:
        found = ended(platform, python(FOREVER, resources={"timeout_s": 5}))
        assert (found["state"], found["outcome"]["timed_out"]) == ("timed_out", True)
        assert platform.client().output(found["id"]) == b"started\n"

    def test_memory_runs_out(self, platform: Platform) -> None:
        found = ended(platform, python("x = bytearray(200 << 20)", resources={"memory_mib": 64}))
        assert found["state"] == "failed"
        assert found["outcome"]["usage"]["memory_peak_bytes"] <= 64 << 20

    def test_a_deadline_passes(self, platform: Platform) -> None:
        deadline = format_time(int(time.time() * 1000) + 1500)
        found = ended(platform, python(FOREVER, deadline=deadline))
        assert (found["state"], found["outcome"]["category"]) == ("expired", "deadline")

    def test_retries_are_made_and_spent(self, platform: Platform) -> None:
        found = ended(platform, python("raise SystemExit(3)", retry={"max_attempts": 2, "backoff_s": 1}))
        assert (found["state"], found["attempt"], found["exit_code"]) == ("failed", 2, 3)
        kinds = [event["type"] for event in platform.client().events(found["id"])]
        assert kinds == ["submitted", "placed", "running", "retrying", "placed", "running", "failed"]

    def test_a_large_output_comes_back_whole(self, platform: Platform) -> None:
        found = ended(platform, python("print('x' * 3_000_000)"))
        assert found["state"] == "succeeded"
        assert platform.client().output(found["id"]) == b"x" * 3_000_000 + b"\n"
        assert "log" in found["outcome"]["truncated"]

    def test_args_and_env_arrive(self, platform: Platform) -> None:
        code = "import os, sys\nprint(sys.argv[1:], os.environ['GREETING'])"
        found = ended(platform, python(code, args=["a b", "ü"], env={"GREETING": "hello"}))
        assert platform.client().output(found["id"]).decode() == "['a b', 'ü'] hello\n"


class TestLogs:
    def test_a_log_is_live(self, platform: Platform) -> None:
        """The first line is seen while the job still runs."""
        client = platform.client()
        job = client.submit(python(FOREVER)).job["id"]
        for entry in client.follow(job):
            assert entry["text"] == "started\n"
            assert client.get(job)["state"] == "running"
            break
        client.cancel(job)

    def test_a_stream_ends_with_the_job(self, platform: Platform) -> None:
        job = platform.client().submit(python("import time\nfor n in range(3): print(n); time.sleep(0.4)")).job["id"]
        pool = urllib3.PoolManager()
        headers = {"Authorization": f"Bearer {platform.key}", "Accept": "text/event-stream"}
        answer = pool.request("GET", f"{platform.url}/v1/jobs/{job}/logs", headers=headers, timeout=120)
        text = answer.data.decode()
        assert answer.headers["content-type"] == "text/event-stream"
        assert not [name for name in answer.headers if name.lower().startswith("hzc-")]
        texts = [json.loads(line[6:])["text"] for line in text.splitlines() if '"text"' in line]
        assert "".join(texts) == "0\n1\n2\n"
        assert text.endswith('event: end\ndata: {"state":"succeeded"}\n\n')
        pool.clear()


class TestTenants:
    def test_another_tenant_sees_nothing(self, platform: Platform) -> None:
        job = ended(platform, python("print('secret')"))["id"]
        stranger = wiring.jobs_client(platform.url, platform.tenant("stranger"))
        assert stranger.list_jobs().items == []
        for call in (stranger.get, stranger.result, stranger.events, stranger.cancel, stranger.rerun, stranger.logs):
            with pytest.raises(NotFound):
                call(job)

    def test_another_tenants_blob_cannot_be_used(self, platform: Platform) -> None:
        blob = platform.client().upload_blob(b"mine")
        stranger = wiring.jobs_client(platform.url, platform.tenant("stranger"))
        with pytest.raises(Exception, match="no blob of this id"):
            stranger.submit(python("print(1)", input={"blob": blob}))

    def test_roles_are_apart(self, platform: Platform) -> None:
        runner = wiring.jobs_client(platform.url, platform.tenant("platform", Role.RUNNER))
        with pytest.raises(PermissionDenied):
            runner.list_jobs()
        with pytest.raises(Unauthenticated):
            wiring.jobs_client(platform.url, None).list_jobs()


class TestIdempotency:
    def test_many_callers_with_one_key_make_one_job(self, platform: Platform) -> None:
        spec, ids = python("print(1)"), set()
        key = f"same-{time.time_ns()}"

        def call() -> None:
            ids.add(platform.client().submit(spec, idempotency_key=key).job["id"])

        callers = [threading.Thread(target=call) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(120)
        assert len(ids) == 1


class TestPresigned:
    def test_a_url_takes_exactly_its_bytes(self, platform: Platform) -> None:
        import hashlib

        pool = urllib3.PoolManager()
        auth = {"Authorization": f"Bearer {platform.key}", "Content-Type": "application/json"}
        data = f"bytes {time.time_ns()}".encode()
        body = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        asked = pool.request("POST", f"{platform.url}/v1/blobs", headers=auth, body=json.dumps(body)).json()
        url = asked["upload"]["url"]
        assert pool.request("PUT", url, body=b"other" + data[5:]).status == 400
        assert pool.request("PUT", url, body=data + b"!").status in (400, 413)
        assert pool.request("PUT", url.replace("signature=", "signature=0"), body=data).status == 403
        assert pool.request("GET", url).status == 403
        assert pool.request("PUT", url, body=data).status in (200, 201, 204)
        again = pool.request("POST", f"{platform.url}/v1/blobs", headers=auth, body=json.dumps(body)).json()
        assert (again["exists"], again["upload"]) == (True, None)
        pool.clear()
