"""run and submit: from a file and options to a job, and from its log to an exit code."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.model.bounds import BLOB_MAX, INLINE_MAX
from tests.support.cli import Hzc
from tests.support.fake_api import FakeApi, Fault, Run

OK_RUN = Run(log=[("stderr", "working\n"), ("stdout", "done\n")], stdout=b"done\n")


@pytest.fixture
def program(tmp_path: Path) -> str:
    file = tmp_path / "job.py"
    file.write_text("print('done')\n")
    return str(file)


def spec_of(api: FakeApi) -> Any:
    return list(api.jobs.values())[-1]["spec"]


def test_run_in_a_pipe_gives_the_result_and_nothing_else(api: FakeApi, hzc: Hzc, program: str) -> None:
    api.program = lambda _spec, _stdin: OK_RUN
    result = hzc("run", program)
    assert result.stdout == "done\n"
    assert "working\n" in result.stderr
    assert re.search(r"j-0+ succeeded · 1.50 s · fuel 123,456,789 · memory 32.0 MiB\n", result.stderr)


def test_run_gives_bytes_as_they_are(api: FakeApi, hzc: Hzc, program: str) -> None:
    data = b"\x1b[31m\xff\x00" * 9000
    api.program = lambda _spec, _stdin: Run(stdout=data)
    assert hzc("run", program).stdout_bytes == data


def test_run_of_a_program_that_fails(api: FakeApi, hzc: Hzc, program: str) -> None:
    api.program = lambda _spec, _stdin: Run(state="failed", outcome={"truncated": ["log"]})
    result = hzc("run", program, code=1)
    assert "failed: exit code 3" in result.stderr
    assert "log was cut at its limit" in result.stderr


def test_run_as_json_lines(api: FakeApi, hzc: Hzc, program: str) -> None:
    api.program = lambda _spec, _stdin: OK_RUN
    *entries, result = [json.loads(line) for line in hzc("run", program, "-o", "json").stdout.splitlines()]
    assert [(entry["stream"], entry["text"]) for entry in entries] == OK_RUN.log
    assert result["state"] == "succeeded"


def test_detach_and_submit_print_the_id(api: FakeApi, hzc: Hzc, program: str) -> None:
    first = hzc("run", "--detach", program).stdout.strip()
    second = hzc("submit", program).stdout.strip()
    assert [first, second] == list(api.jobs)
    assert hzc.json("submit", program)["id"] == list(api.jobs)[2]


def test_every_option_reaches_the_spec(api: FakeApi, hzc: Hzc, program: str) -> None:
    options = "--env A=1 --env B=x=y --memory 1g --timeout 5m --fuel 1000000 --retry 2 --label team=a --log-limit 64k"
    hzc("submit", *options.split(), program, "--deadline", "2h", "--", "--flag", "a b")
    spec = spec_of(api)
    deadline = datetime.fromisoformat(spec.pop("deadline")) - datetime.now(UTC)
    assert timedelta(minutes=119) < deadline <= timedelta(hours=2)
    assert spec == {
        "runtime": "auto",
        "profile": "fast",
        "source": {"code": "print('done')\n", "language": "python"},
        "args": ["--flag", "a b"],
        "env": {"A": "1", "B": "x=y"},
        "resources": {"memory_mib": 1024, "timeout_s": 300, "fuel": 1_000_000},
        "retry": {"max_attempts": 3, "backoff_s": 5},
        "labels": {"team": "a"},
        "log_limit": 65536,
    }


def test_a_spec_file_and_options_over_it(api: FakeApi, hzc: Hzc, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    source = {"code": "pass", "language": "python"}
    resources = {"memory_mib": 64, "timeout_s": 9}
    file.write_text(json.dumps({"source": source, "resources": resources, "labels": {"a": "b", "c": "d"}}))
    hzc("submit", str(file), "--timeout", "10", "--label", "a=z", "--deadline", "2030-01-31T12:00:00Z")
    spec = spec_of(api)
    assert spec["resources"] == {"memory_mib": 64, "timeout_s": 10}
    assert spec["labels"] == {"a": "z", "c": "d"}
    assert spec["deadline"] == "2030-01-31T12:00:00Z"


def test_a_module_is_uploaded(api: FakeApi, hzc: Hzc, tmp_path: Path) -> None:
    file = tmp_path / "job.wasm"
    file.write_bytes(b"\0asm\1\0\0\0")
    hzc("submit", str(file))
    assert api.blobs[spec_of(api)["source"]["module"]] == b"\0asm\1\0\0\0"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"text \xc3\xa9", "inline"),
        (b"", "inline"),
        (b"\xff\x00", "inline_base64"),
        (b"nul \x00", "inline_base64"),
        (b"x" * INLINE_MAX, "inline"),
        (b"x" * (INLINE_MAX + 1), "blob"),
    ],
)
@pytest.mark.parametrize("by_pipe", [False, True])
def test_input_takes_the_shortest_way(
    api: FakeApi, hzc: Hzc, program: str, tmp_path: Path, data: bytes, kind: str, by_pipe: bool
) -> None:
    read: list[bytes] = []
    api.program = lambda _spec, stdin: read.append(stdin) or Run()  # type: ignore[func-returns-value]
    (tmp_path / "data").write_bytes(data)
    hzc("submit", program, "--input", "-" if by_pipe else str(tmp_path / "data"), input=data)
    assert read == [data]
    given = spec_of(api)["input"]
    assert list(given) == [kind]
    if kind == "inline_base64":
        assert base64.b64decode(given[kind]) == data


def test_what_is_too_large_is_said_before_it_is_sent(api: FakeApi, hzc: Hzc, tmp_path: Path) -> None:
    code, data = tmp_path / "job.py", tmp_path / "data"
    code.write_bytes(b"#" * (INLINE_MAX + 1))
    data.write_bytes(b"x" * (BLOB_MAX + 1))
    assert f"{INLINE_MAX + 1} bytes" in hzc("run", str(code), code=2).stderr
    code.write_text("pass")
    assert "over 8388608 bytes" in hzc("run", str(code), "--input", str(data), code=2).stderr
    assert api.requests == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("run nothing.py", "does not exist"),
        ("run {dir}/x.txt", "give a .py, .js, .wasm or .json file, or a folder"),
        ("run {dir}/latin1.py", "not UTF-8"),
        ("run {dir}/bad.json", "not JSON"),
        ("run {dir}/list.json", "JSON object"),
        ("run {dir}/ok.py --memory lots", "lots"),
        ("run {dir}/ok.py --env A", "name=value"),
        ("run {dir}/ok.py --timeout 5x", "5x"),
        ("run {dir}/ok.py --input {dir}/none", "No such file"),
        ("run {dir}/ok.py --label UPPER=x", "labels"),
        ("run {dir}/ok.py --memory 99999", "resources.memory_mib"),
        ("run {dir}/ok.py --deadline tomorrow", "RFC 3339"),
        ("run", "Missing argument"),
        ("nonsense", "No such command"),
    ],
)
def test_usage_errors(api: FakeApi, hzc: Hzc, tmp_path: Path, arguments: str, said: str) -> None:
    files = {"x.txt": b"", "latin1.py": b"\xe9", "bad.json": b"{", "list.json": b"[]", "ok.py": b"pass"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    result = hzc(*arguments.format(dir=tmp_path).split(), code=2)
    assert said in result.stderr
    assert api.jobs == {}


def test_an_idempotency_key(api: FakeApi, hzc: Hzc, program: str) -> None:
    first = hzc("submit", program, "--idempotency-key", "k").stdout
    again = hzc("submit", program, "--idempotency-key", "k")
    assert again.stdout == first
    assert "before" in again.stderr
    assert "another body" in hzc("submit", program, "--idempotency-key", "k", "--fuel", "9", code=2).stderr


def test_a_lost_answer_does_not_make_two_jobs(api: FakeApi, hzc: Hzc, program: str) -> None:
    api.faults = [Fault(0, after=True)]
    assert hzc("submit", program).stdout.strip() in api.jobs
    assert len(api.jobs) == 1


# With real processes


def command(api: FakeApi, home: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    env = {**os.environ, **Hzc.of(api, str(home)).env, "COLUMNS": "100"}
    return [sys.executable, "-m", "hanzo_compute_host.cli", *arguments], env


def read_all(descriptor: int) -> bytes:
    found = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # Linux's way to say that the other side of a terminal is closed
            return found
        if not piece:
            return found
        found += piece


@pytest.mark.parametrize("words", ["run {program}", "logs last", "logs -f last", "result last", "show last", "ls"])
def test_a_terminal_never_gets_a_job_s_escapes(api: FakeApi, tmp_path: Path, program: str, words: str) -> None:
    attack = "\x1b]0;owned\x07 \x9b2J \u202e"
    api.program = lambda _spec, _stdin: Run(
        log=[("stdout", attack), ("stderr", attack)],
        stdout=attack.encode(),
        state="failed",
        outcome={"detail": attack, "trap": attack, "runtime_version": attack},
    )
    api.submit({"source": {"code": "pass", "language": "python"}, "args": [attack]})
    argv, env = command(api, tmp_path, *words.format(program=program).split())
    ours, theirs = pty.openpty()
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = read_all(ours).decode()
    os.close(ours)
    assert process.returncode == (1 if words.startswith(("run", "result")) else 0)
    # Our own colours are all that begins with ESC.
    rest = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert not set(rest) & set("\x1b\x07\x9b\u202e")
    if words != "ls":
        assert "\\x1b]0;owned\\x07 \\x9b2J \\u202e" in rest.replace("\r\n", "")


def test_ctrl_c_detaches(api: FakeApi, tmp_path: Path, program: str) -> None:
    api.program = lambda _spec, _stdin: Run(log=[("stderr", "started\n")], ends=False)
    argv, env = command(api, tmp_path, "run", program)
    argv = ["env", "--default-signal=INT", *argv]  # a shell's background jobs ignore it
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, b"")
        assert any(line == b"started\n" for line in lines)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
    assert process.returncode == 130
    (job,) = api.jobs
    assert f"hzc cancel {job}" in said
    assert "Traceback" not in said
    assert api.jobs[job]["state"] == "running"


def test_a_reader_that_leaves_is_no_error(api: FakeApi, tmp_path: Path) -> None:
    api.program = lambda _spec, _stdin: Run(log=[("stdout", "x" * 65536)] * 64)
    api.submit({"source": {"code": "pass", "language": "python"}})
    argv, env = command(api, tmp_path, "logs", "last")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, b"")
