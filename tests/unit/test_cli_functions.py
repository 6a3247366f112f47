"""hzc fn: from a file and options to a version, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Hzc
from tests.support.fake_api import FakeApi, Fault, Run
from tests.support.wasm import wat

REACTOR = wat(
    """(module (import "hzc" "kv_get" (func)) (memory (export "memory") 1)
      (func (export "alloc") (param i32) (result i32) (i32.const 0))
      (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))"""
)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "job.py"
    file.write_text("print('done')\n")
    return file


def sent(api: FakeApi, method: str, path: str) -> Any:
    return json.loads(api.calls(method, f"/v1/functions/{path}")[-1][1])


def test_deploy_says_which_version_it_is(api: FakeApi, hzc: Hzc, program: Path) -> None:
    made = hzc("fn", "deploy", "f", str(program))
    assert (made.stdout, made.stderr) == ("f@1\n", "aliases: live → 1\n")
    assert sent(api, "PUT", "f") == {"source": {"code": "print('done')\n", "language": "python"}}
    assert hzc("fn", "deploy", "f", str(program)).stdout == "f@1\n"
    program.write_text("print(2)")
    assert hzc.json("fn", "deploy", "f", str(program), "--no-publish")["aliases"] == {"live": {"1": 100}}


def test_options_become_fields(api: FakeApi, hzc: Hzc, program: Path) -> None:
    words = "--secret token --http https://api.example.com --memory 1g --timeout 5 --concurrency 3 --public --outputs"
    more = ["--env", "A=1", "--description", "says done", "--profile", "fast", "--fuel", "9", "--read-input", "--kv"]
    hzc("fn", "deploy", "f", str(program), *words.split(), *more, "--", "a", "--b")
    assert sent(api, "PUT", "f") == {
        "source": {"code": "print('done')\n", "language": "python"},
        "args": ["a", "--b"],
        "env": {"A": "1"},
        "resources": {"memory_mib": 1024, "timeout_s": 5, "fuel": 9},
        "capabilities": {
            "kv": True,
            "secrets": ["token"],
            "http": ["https://api.example.com"],
            "input": True,
            "outputs": True,
        },
        "public": True,
        "profile": "fast",
        "concurrency": 3,
        "description": "says done",
    }
    shown = hzc("fn", "show", "f").stdout
    for word in ("f@1", "says done", "https://api.example.com", "timeout_s=5", "a --b"):
        assert word in shown


def test_a_module_is_uploaded_and_its_imports_are_checked(hzc: Hzc, tmp_path: Path) -> None:
    file = tmp_path / "f.wasm"
    file.write_bytes(REACTOR)
    refused = hzc("fn", "deploy", "f", str(file), "--reactor", code=2)
    assert "hzc.kv_get, which needs the capability kv" in refused.stderr
    assert hzc("fn", "deploy", "f", str(file), "--reactor", "--kv").stdout == "f@1\n"
    assert hzc.json("fn", "show", "f@1")["spec"]["abi"] == "reactor"


def test_javascript_and_other_files(api: FakeApi, hzc: Hzc, tmp_path: Path) -> None:
    for name in ("f.js", "f.rb"):
        (tmp_path / name).write_text("1")
        api.faults[:] = [Fault(400)]  # what is sent is the point; whether it is taken is the platform's affair
        hzc("fn", "deploy", "f", str(tmp_path / name), code=2)
    assert len(api.calls("PUT", "/v1/functions/f")) == 1
    assert sent(api, "PUT", "f")["source"] == {"code": "1", "language": "javascript"}


def test_aliases_and_rollback(hzc: Hzc, program: Path) -> None:
    for number in (1, 2):
        program.write_text(f"print({number})")
        hzc("fn", "deploy", "f", str(program))
    said = hzc("fn", "alias", "f", "canary", "1=90", "2=10").stderr
    assert said == "f: canary points to 1=90 2=10\n"
    assert [each["version"] for each in hzc.json("fn", "show", "f@canary")["shown"]] == [1, 2]
    assert hzc.json("fn", "rollback", "f")["weights"] == {"1": 100}
    assert "no earlier setting" in hzc("fn", "rollback", "f", code=2).stderr
    shown = hzc("fn", "show", "f").stdout
    assert "canary → 1=90 2=10, live → 1" in shown
    assert "rollback" in shown
    hzc("fn", "alias", "f", "canary", "--remove")
    assert "no alias canary" in hzc("fn", "show", "f@canary", code=2).stderr
    for wrong in (["1"], ["1=x"], ["1=99"], [], ["1=100", "--remove"]):
        hzc("fn", "alias", "f", "live", *wrong, code=2)


def test_ls_and_rm(hzc: Hzc, program: Path) -> None:
    assert (hzc("fn", "ls").stderr, hzc.json("fn", "ls")) == ("no functions\n", {"items": []})
    for name in ("b", "a"):
        hzc("fn", "deploy", name, str(program))
    lines = hzc("fn", "ls").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["a", "1"], ["b", "1"]]
    assert hzc("fn", "rm", "a").stderr == "a removed\n"
    assert "there is no function a" in hzc("fn", "rm", "a", code=2).stderr
    assert [each["name"] for each in hzc.json("fn", "ls")["items"]] == ["b"]


def test_a_rollback_is_not_repeated(api: FakeApi, hzc: Hzc, program: Path) -> None:
    for number in (1, 2, 3):
        program.write_text(f"print({number})")
        hzc("fn", "deploy", "f", str(program))
    api.faults.append(Fault(503, after=True))
    hzc("fn", "rollback", "f", code=6)
    assert hzc.json("fn", "show", "f")["aliases"] == {"live": {"2": 100}}


def test_run_and_quote_take_a_function_instead_of_a_file(api: FakeApi, hzc: Hzc) -> None:
    api.program = lambda _spec, _stdin: Run(stdout=b"7\n", log=[("stdout", "7\n")])
    assert hzc("run", "--function", "f@canary", "--timeout", "5", "--", "a", "b").stdout == "7\n"
    spec = list(api.jobs.values())[-1]["spec"]
    assert (spec["source"], spec["args"], spec["resources"]["timeout_s"]) == ({"function": "f@canary"}, ["a", "b"], 5)
    assert "FILE" in hzc("run", code=2).stderr
    assert "does not exist" in hzc("run", "nowhere.py", code=2).stderr


@pytest.mark.parametrize(("size", "given"), [(0, None), (3, "inline_base64"), (70_000, "blob")])
def test_a_call_that_nobody_waits_for_is_a_job(
    api: FakeApi, hzc: Hzc, program: Path, tmp_path: Path, size: int, given: str | None
) -> None:
    hzc("fn", "deploy", "f", str(program))
    file = tmp_path / "data"
    file.write_bytes(b"x" * size)
    made = hzc("fn", "invoke", "f@1", "--input", str(file), "--async")
    (job,) = api.jobs
    assert made.stdout == f"{job}\n"
    body = json.loads(api.calls("POST", "/v1/jobs")[-1][1])
    assert body["source"] == {"function": "f@1"}
    assert list(body.get("input", {})) == ([] if given is None else [given])
    if given == "blob":
        assert api.blobs[body["input"]["blob"]] == b"x" * size
    assert "give --stream or --async" in hzc("fn", "invoke", "f", "--async", "--stream", code=2).stderr
