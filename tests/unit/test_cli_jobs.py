"""ls, show, cancel, rerun, result, dlq: what a person and a script get."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.cli import Hzc
from tests.support.fake_api import FakeApi, Fault, Run

NASTY = "\x1b]0;owned\x07[bold red]x[/]\u202e"


def submit(api: FakeApi, run: Run, **spec: object) -> str:
    api.program = lambda _spec, _stdin: run
    _, view, _ = api.submit({"source": {"code": "print(1)", "language": "python"}} | spec)
    return str(view["id"])


def test_ls_shows_the_newest_first(api: FakeApi, hzc: Hzc) -> None:
    first = submit(api, Run(), labels={"team": "a"})
    second = submit(api, Run(state="failed"))
    lines = hzc("ls").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[second, "failed"], [first, "succeeded"]]
    assert "team=a" in lines[2]
    assert [job["id"] for job in hzc.json("ls", "--label", "team=a")["items"]] == [first]
    assert [job["id"] for job in hzc.json("ls", "--state", "failed")["items"]] == [second]


def test_ls_follows_short_pages(api: FakeApi, hzc: Hzc) -> None:
    made = [submit(api, Run()) for _ in range(7)]
    some = hzc.json("ls", "--limit", "4")
    assert [job["id"] for job in some["items"]] == made[:2:-1]
    assert some["next_cursor"]
    everything = hzc.json("ls", "--all", "--limit", "1")
    assert [job["id"] for job in everything["items"]] == made[::-1]
    assert everything["next_cursor"] is None
    assert "--all" in hzc("ls", "--limit", "4").stderr


def test_ls_of_nothing(hzc: Hzc) -> None:
    result = hzc("ls")
    assert (result.stdout, result.stderr) == ("", "no jobs\n")
    assert hzc.json("ls") == {"items": [], "next_cursor": None}


def test_show_tells_the_whole_way(api: FakeApi, hzc: Hzc) -> None:
    job = submit(api, Run(stdout=b"42\n"), args=["--fast", "[red]"], env={"A": "b"})
    shown = hzc("show", "last").stdout
    assert re.search(rf"Job {job} succeeded, .* ago, in 1.50 s · fuel 123,456,789 · memory 32.0 MiB\.", shown)
    for word in ("submitted", "placed", "running", "+300 ms", '["--fast", "[red]"]', "A=b", "stdout 3 B", "fake 1"):
        assert word in shown
    document = hzc.json("show", job)
    assert document["id"] == job
    assert [event["type"] for event in document["events"]] == ["submitted", "placed", "running", "succeeded"]


def test_show_of_a_running_job(api: FakeApi, hzc: Hzc) -> None:
    job = submit(api, Run(ends=False))
    assert f"Job {job} is running, for" in hzc("show", job).stdout


def test_nothing_of_a_job_is_obeyed(api: FakeApi, hzc: Hzc) -> None:
    run = Run(
        state="failed",
        outcome={"detail": NASTY, "runtime_version": NASTY},
        log=[("stderr", NASTY + "\n"), ("stdout", NASTY)],
    )
    job = submit(api, run, args=[NASTY])
    for command in ("ls", "show last", "logs last", "logs -f last", "rerun -f last"):
        result = hzc(*command.split(), code=1 if command.startswith("rerun") else 0)
        for char in "\x1b\x07\u202e":
            assert char not in result.stdout + result.stderr
    assert "\\x1b]0;owned\\x07[bold red]x[/]\\u202e" in hzc("show", job).stdout
    assert "\\x1b]0;owned\\x07[bold red]x[/]\\u202e" in hzc("logs", job).stdout


def test_an_unknown_job(api: FakeApi, hzc: Hzc) -> None:
    result = hzc("show", "j-none", code=2)
    assert "there is no job j-none" in result.stderr
    assert "hzc ls" in result.stderr
    problem = json.loads(hzc("show", "j-none", "-o", "json", code=2).stderr)
    assert (problem["code"], problem["status"], problem["retryable"]) == ("not_found", 404, False)


def test_last_of_nothing(hzc: Hzc) -> None:
    assert "no last job" in hzc("show", "last", code=2).stderr


def test_logs(api: FakeApi, hzc: Hzc) -> None:
    log = [("stdout", f"{number}\n") for number in range(5)]
    job = submit(api, Run(log=log))
    assert hzc("logs", job).stdout == "0\n1\n2\n3\n4\n"
    assert hzc("logs", "-f", job).stdout == "0\n1\n2\n3\n4\n"
    entries = [json.loads(line) for line in hzc("logs", "-f", job, "-o", "json").stdout.splitlines()]
    assert [entry["text"] for entry in entries] == [text for _, text in log]


def test_logs_of_a_running_job_end(api: FakeApi, hzc: Hzc) -> None:
    job = submit(api, Run(log=[("stdout", "so far\n")], ends=False))
    assert hzc("logs", job).stdout == "so far\n"


def test_cancel(api: FakeApi, hzc: Hzc) -> None:
    ended, running = submit(api, Run()), submit(api, Run(ends=False))
    result = hzc("cancel", ended, running, "j-none", code=2)
    assert api.jobs[running]["state"] == "cancelled"
    assert f"{ended} has ended" in result.stderr
    assert f"{running} cancelled" in result.stderr
    assert "no job j-none" in result.stderr


@pytest.mark.parametrize("size", [10, 100_000])
def test_result_gives_the_bytes(api: FakeApi, hzc: Hzc, tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    job = submit(api, Run(stdout=data))
    assert hzc("result", job).stdout_bytes == data
    assert "succeeded" in hzc("result", job).stderr
    only = hzc("result", job, "--stdout")
    assert (only.stdout_bytes, only.stderr) == (data, "")
    target = tmp_path / "out"
    written = hzc("result", job, "-O", str(target))
    assert target.read_bytes() == data
    assert written.stdout == ""
    assert hzc.json("result", job)["outcome"]["usage"]["fuel"] == 123_456_789


def test_result_of_a_failure(api: FakeApi, hzc: Hzc) -> None:
    job = submit(api, Run(state="failed", stdout=b"partial", outcome={"detail": "it threw"}))
    result = hzc("result", job, code=1)
    assert result.stdout == "partial"
    assert "exit code 3, it threw" in result.stderr
    job = submit(api, Run(state="failed", outcome={"detail": "exit code 3: it threw"}))
    assert "failed: exit code 3: it threw" in hzc("result", job, code=1).stderr


def test_result_of_a_job_that_never_ran(api: FakeApi, hzc: Hzc) -> None:
    job = submit(api, Run(state="cancelled", outcome={"category": "none"}))
    result = hzc("result", job, code=1)
    assert result.stdout == ""
    assert "cancelled before it ran: cancelled by the owner" in result.stderr


def test_result_too_early(api: FakeApi, hzc: Hzc) -> None:
    job = submit(api, Run(ends=False))
    assert f"hzc logs -f {job}" in hzc("result", job, code=2).stderr


def test_rerun(api: FakeApi, hzc: Hzc) -> None:
    job = submit(api, Run(stdout=b"again"))
    new = hzc("rerun", job).stdout.strip()
    assert api.jobs[new]["origin"] == {"kind": "rerun", "job": job}
    assert hzc("rerun", job, "--follow").stdout == "again"


def test_dead_letters(api: FakeApi, hzc: Hzc) -> None:
    submit(api, Run())
    dead = [submit(api, Run(state="dead")) for _ in range(3)]
    assert [job["id"] for job in hzc.json("dlq", "ls")["items"]] == dead[::-1]
    assert dead[0] in hzc("dlq", "ls").stdout
    new = hzc("dlq", "redrive", dead[0], "j-none", code=2).stdout.strip()
    assert api.jobs[new]["origin"] == {"kind": "redrive", "job": dead[0]}
    newest = hzc.json("dlq", "ls", "--limit", "1")["items"][0]["id"]
    again = hzc("dlq", "redrive", "last").stdout.strip()
    assert api.jobs[again]["origin"] == {"kind": "redrive", "job": newest}


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(401, "unauthenticated", 4), (403, "permission_denied", 4), (503, "no_capacity", 5), (503, "unavailable", 6)],
)
def test_exit_codes(api: FakeApi, hzc: Hzc, status: int, code: str, exit_code: int) -> None:
    api.faults = [Fault(status, {"code": code, "detail": f"about {NASTY}", "hint": f"do {NASTY}"})] * 4
    result = hzc("ls", code=exit_code)
    assert "about \\x1b" in result.stderr
    assert "do \\x1b" in result.stderr
    assert "\x1b" not in result.stderr
