"""`hzc replay`: honest agents are found honest, and those that signed something else are not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute import wiring
from hanzo_compute.model.outcome import Category, Outcome, Output
from hanzo_compute.services import complete, log
from hanzo_compute.services.submit import stored_spec
from tests.support import statements, steady
from tests.support.cli import Hzc
from tests.support.packages import javascript_package, python_package
from tests.support.receipts import receipt_of
from tests.support.stepped import Platform
from tests.support.wasm import command, writes

# An interpreter may have to be compiled for this profile first.
pytestmark = pytest.mark.timeout(300)

SUM = "import sys; print(sum(map(int, sys.stdin)), *sys.argv[1:])"
NUMBERS = "".join(f"{number}\n" for number in range(1000))
HELLO = command(writes("hello\n"), extra='(data (i32.const 1024) "hello\\n")')

Lie = Callable[[Outcome], Outcome]


class Case:
    """A job that an agent has run here and signed for, perhaps telling something else of it."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.platform = Platform()
        self.hzc = Hzc({"HZC_HOME": str(folder / "home"), "HZC_CACHE": str(cache)})

    def signed(
        self,
        lie: Lie | None = None,
        *,
        module: bytes | None = None,
        package: str | None = None,
        stdin: bytes = b"",
        **spec: Any,
    ) -> Path:
        """The folder with its receipt, spec, module and input; ``package``: language of the module, which is one."""
        ctx = self.platform.ctx
        if spec.get("profile") == "deterministic":
            spec.setdefault("resources", {"fuel": 10_000_000_000})
        if module is not None:
            blob = ctx.blobs.put("acme", module)
            spec["source"] = {"package": blob, "language": package} if package else {"module": blob}
        claim = self.platform.running(**spec)
        stored = stored_spec(ctx, claim.job)
        ran = wiring.replay(stored, module, stdin, self.cache, print)
        outcome = ran.outcome
        if ran.stdout:
            blob = ctx.blobs.put("acme", ran.stdout)
            output = Output(name="stdout", size=len(ran.stdout), blob=blob)
            outcome = outcome.model_copy(update={"outputs": [output]})
        told = outcome if lie is None else lie(outcome)
        complete.complete(ctx, statements.ended(ctx, claim, told))
        self.platform.clock.advance(1000)
        log.sequence(ctx)
        found = self.folder / claim.job
        found.mkdir()
        (found / "receipt.json").write_text(json.dumps(receipt_of(self.platform, claim.job)))
        (found / "spec.json").write_text(json.dumps(dict(reversed(stored.items()))))
        if module is not None:
            (found / ("package.zip" if package else "module.wasm")).write_bytes(module)
        if stored.get("input") is not None:
            (found / "input").write_bytes(stdin)
        return found


@pytest.fixture
def case(tmp_path: Path, wasm_cache: Path) -> Case:
    return Case(tmp_path, wasm_cache)


def python(code: str = SUM, **fields: Any) -> dict[str, Any]:
    return {"source": {"code": code, "language": "python"}, "profile": "deterministic", **fields}


def test_an_honest_statement_is_found_equal(case: Case) -> None:
    given = python(input={"inline": NUMBERS}, args=["ü", "x"], env={"B": "2", "A": "1"})
    folder = case.signed(stdin=NUMBERS.encode(), **given)
    shown = case.hzc("replay", str(folder))
    assert "the same" in shown.stdout
    told = case.hzc.json("replay", str(folder))
    assert (told["equal"], told["differences"]) == (True, [])
    assert {"code", "input", "spec", "exit.code", "outputs.stdout.sha256", "usage.fuel"} <= set(told["compared"])
    assert "deterministic" in told["runtime"]
    file = str(folder / "receipt.json")
    assert case.hzc.json("replay", file, "--spec", str(folder / "spec.json"))["equal"]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("exit", {"code": "print('x'); raise SystemExit(3)", "language": "python"}),
        ("javascript", {"code": "console.log([3, 1, 2].sort().join())", "language": "javascript"}),
        ("silent", {"code": "", "language": "javascript"}),
    ],
)
def test_other_ends_and_languages_too(case: Case, name: str, source: dict[str, str]) -> None:
    assert case.hzc.json("replay", str(case.signed(source=source, profile="deterministic")))["equal"], name


def test_a_module_and_its_input(case: Case) -> None:
    given = {"profile": "deterministic", "input": {"inline": "abc"}, "resources": {"fuel": 1_000_000}}
    folder = case.signed(module=steady.reads(), stdin=b"abc", **given)
    assert case.hzc.json("replay", str(folder))["equal"]
    other = case.folder / "other"
    other.write_bytes(b"abd")
    told = case.hzc.json("replay", str(folder), "--input", str(other), code=4)
    assert [each["name"] for each in told["differences"]] == ["input"]
    other.write_bytes(steady.clocks())
    told = case.hzc.json("replay", str(folder), "--module", str(other), code=4)
    assert [each["name"] for each in told["differences"]] == ["code"]
    spec = json.loads((folder / "spec.json").read_text()) | {"args": ["more"]}
    other.write_text(json.dumps(spec))
    told = case.hzc.json("replay", str(folder), "--spec", str(other), code=4)
    assert [each["name"] for each in told["differences"]] == ["spec"]


def test_a_package(case: Case) -> None:
    folder = case.signed(
        module=python_package(), package="python", stdin=b"you", input={"inline": "you"}, profile="deterministic"
    )
    assert case.hzc.json("replay", str(folder))["equal"]
    other = case.folder / "other.zip"
    other.write_bytes(python_package(more=b""))
    told = case.hzc.json("replay", str(folder), "--module", str(other), code=4)
    assert [each["name"] for each in told["differences"]] == ["code"]
    folder = case.signed(module=javascript_package(), package="javascript", profile="deterministic")
    assert case.hzc.json("replay", str(folder))["equal"]


def used(outcome: Outcome, **fields: Any) -> Outcome:
    return outcome.model_copy(update={"usage": outcome.usage.model_copy(update=fields)})


def wrote(outcome: Outcome, data: bytes) -> Outcome:
    output = Output(name="stdout", size=len(data), inline_base64=base64.b64encode(data).decode())
    return outcome.model_copy(update={"outputs": [output]})


@pytest.mark.parametrize(
    ("lie", "names"),
    [
        (lambda outcome: used(outcome, fuel=(outcome.usage.fuel or 0) + 1), ["usage.fuel"]),
        (lambda outcome: used(outcome, memory_peak_bytes=1), ["usage.memory_peak_bytes"]),
        (lambda outcome: wrote(outcome, b"hellO\n"), ["outputs.stdout.sha256"]),
        (lambda outcome: outcome.model_copy(update={"outputs": []}), ["outputs.stdout.size", "outputs.stdout.sha256"]),
        (
            lambda outcome: outcome.model_copy(update={"exit_code": 1, "category": Category.EXIT}),
            ["exit.category", "exit.code"],
        ),
    ],
    ids=["fuel", "memory", "output", "no output", "exit"],
)
def test_what_an_agent_made_up_is_named_though_its_signature_holds(case: Case, lie: Lie, names: list[str]) -> None:
    folder = case.signed(lie, module=HELLO, profile="deterministic")
    case.hzc("receipt", "verify", str(folder / "receipt.json"))
    told = case.hzc.json("replay", str(folder), code=4)
    assert (told["equal"], [each["name"] for each in told["differences"]]) == (False, names)
    shown = case.hzc("replay", str(folder), code=4).stdout
    assert all(f"differs: {name}: signed " in shown for name in names)


def test_of_the_fast_profile_only_outputs_and_ends_are_compared(case: Case) -> None:
    folder = case.signed(lambda outcome: used(outcome, wall_ms=7, fuel=9), module=HELLO)
    told = case.hzc.json("replay", str(folder))
    assert told["equal"]
    assert "fuel and memory are not compared" in told["scope"]
    assert "usage.fuel" not in told["compared"]
    folder = case.signed(lambda outcome: wrote(outcome, b"hell\n"), module=HELLO)
    told = case.hzc.json("replay", str(folder), code=4)
    assert [each["name"] for each in told["differences"]] == ["outputs.stdout.size", "outputs.stdout.sha256"]


def test_of_a_full_stack_only_the_end_is_compared(case: Case) -> None:
    deep = command("(call $f)", extra="(func $f (call $f) (call $f))")
    folder = case.signed(lambda outcome: used(outcome, memory_peak_bytes=9), module=deep, profile="deterministic")
    told = case.hzc.json("replay", str(folder))
    assert (told["equal"], set(told["compared"])) == (True, {"spec", "code", "input", "exit.category", "exit.trap"})


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        (lambda outcome: outcome.model_copy(update={"runtime_version": "wasmtime 49.0.0 hzc-wasi 1"}), "other version"),
        (lambda outcome: outcome.model_copy(update={"category": Category.TIMEOUT, "timed_out": True}), "time limit"),
    ],
    ids=["version", "timeout"],
)
def test_what_cannot_be_compared_is_no_difference(case: Case, lie: Lie, why: str) -> None:
    refused = case.hzc("replay", str(case.signed(lie, module=HELLO, profile="deterministic")), code=3)
    assert why in refused.stderr


def test_a_receipt_that_does_not_hold_is_not_replayed(case: Case) -> None:
    folder = case.signed(module=HELLO, profile="deterministic")
    receipt = json.loads((folder / "receipt.json").read_text())
    receipt["statement"]["usage"]["fuel"] += 1
    (folder / "receipt.json").write_text(json.dumps(receipt))
    assert "usage" in case.hzc("replay", str(folder), code=4).stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["nowhere.json"], "there is no file"),
        (["{folder}", "--attempt", "2"], "--attempt is for a JOB"),
        (["{folder}", "--input", "{folder}/spec.json"], "it read nothing"),
        (["{folder}", "--spec", "{folder}/module.wasm"], "no job spec"),
        (["{folder}", "--spec", "{folder}/receipt.json"], "unknown"),
        (["{folder}", "--platform-key", "x"], "no key of a platform"),
    ],
)
def test_bad_usage(case: Case, args: list[str], told: str) -> None:
    folder = str(case.signed(module=HELLO, profile="deterministic"))
    assert told in case.hzc("replay", *(arg.format(folder=folder) for arg in args), code=2).stderr
