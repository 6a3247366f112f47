"""`hzc receipt` of invocations: fetched from a platform, and verified as files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.services import log
from hanzo_compute.services.invocations import Batcher
from hanzo_compute_host.cli.commands import receipt as command
from tests.support.cli import Hzc
from tests.support.fake_api import FakeApi
from tests.support.invocations import flushed, invocation
from tests.support.stepped import Platform


@pytest.fixture
def platform(api: FakeApi) -> Platform:
    return api.proofs.platform


@pytest.fixture
def file(hzc: Hzc, platform: Platform, tmp_path: Path) -> Path:
    path = tmp_path / "r.json"
    hzc("receipt", "show", flushed(platform, 4)[2], "--save", str(path))
    return path


def test_show_says_what_it_proves(hzc: Hzc, platform: Platform) -> None:
    ids = flushed(platform, 4)
    shown = hzc("receipt", "show", ids[2])
    assert f"invocation  {ids[2]}" in shown.stdout
    assert "function    ping@3" in shown.stdout
    assert f"proven: invocation {ids[2]} of ping@3, tenant acme, is 3 of 4 in the batch" in shown.stdout
    assert "attempt" not in shown.stdout
    assert "agent invoke-local is known from now on" in shown.stderr
    assert hzc("receipt", "show", ids[0]).stderr == "", "one key for all of them"
    assert hzc.json("receipt", "show", ids[1])["statement"]["invocation"] == ids[1]


def test_verify_needs_no_platform(hzc: Hzc, file: Path) -> None:
    offline = Hzc({"HZC_HOME": hzc.env["HZC_HOME"]})
    found = offline.json("receipt", "verify", str(file))
    asked = json.loads(file.read_text())["statement"]["invocation"]
    assert (found["valid"], found["invocation"], found["units"]) == (True, asked, "333")
    assert found["batch"].startswith("b-")
    assert "job" not in found
    offline("receipt", "verify", str(file), "--job", asked)
    refused = offline("receipt", "verify", str(file), "--job", "i-" + "0" * 26, code=4)
    assert refused.stderr.startswith("hzc: statement.invocation: ")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda body: body["statement"].update(input="00" * 32), "statement.input"),
        (lambda body: body["statement"]["price"].update(units="1"), "statement.price"),
        (lambda body: body["batch"]["header"].update(invocations=5), "batch.header.invocations"),
        (lambda body: body["batch"]["proof"].update(index=1), "batch.proof"),
        (lambda body: body["leaf"]["body"].update(root="00" * 32), "leaf.body.root"),
        (lambda body: body.update(signature="00" * 64), "signature"),
        (lambda body: body.pop("batch"), "batch"),
    ],
)
def test_what_does_not_hold_is_named(hzc: Hzc, file: Path, change: Any, told: str) -> None:
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))
    refused = hzc("receipt", "verify", str(file), code=4)
    assert f"hzc: {told}: " in refused.stderr
    problem = json.loads(hzc("receipt", "verify", str(file), "-o", "json", code=4).stderr)
    assert (problem["code"], problem["name"]) == ("rejected", told)


def test_pins_and_flags(hzc: Hzc, file: Path, platform: Platform, tmp_path: Path) -> None:
    fresh = Hzc({"HZC_HOME": str(tmp_path / "other")})
    key = json.loads(file.read_text())["leaf"]["body"]["statement"]["key"]
    platform_key = str(log.verifier_key(platform.ctx))
    assert fresh.json("receipt", "verify", str(file), "--platform-key", platform_key, "--agent-key", key)["valid"]
    refused = fresh("receipt", "verify", str(file), "--platform-key", platform_key, "--agent-key", "ab" * 32, code=4)
    assert refused.stderr.startswith("hzc: agent_key: ")
    pins = json.loads((Path(hzc.env["HZC_HOME"]) / "known.json").read_text())
    (agents,) = pins["agents"].values()
    assert agents == {"invoke-local": key}
    agents["invoke-local"] = "ab" * 32
    (Path(hzc.env["HZC_HOME"]) / "known.json").write_text(json.dumps(pins))
    assert hzc("receipt", "verify", str(file), code=4).stderr.startswith("hzc: agent_key: ")


def test_one_that_is_not_there(hzc: Hzc) -> None:
    refused = hzc("receipt", "show", "i-01HF7YAT00000000000000000A", code=2)
    assert "no receipt of an invocation" in refused.stderr
    assert "a second after the answer" in refused.stderr
    assert "leave --attempt out" in hzc("receipt", "show", "i-1", "--attempt", "1", code=2).stderr


def test_show_waits_for_a_batch_that_is_not_written(
    hzc: Hzc, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.clock.now_ms_value = round(time.time() * 1000)  # else nobody would wait for it
    batcher = Batcher("local")
    batcher.add(one := invocation(platform.ctx))
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 3:
            batcher.flush(platform.ctx)

    monkeypatch.setattr(command.time, "sleep", sleep)
    assert f"invocation {one.id}" in hzc("receipt", "show", one.id).stdout
    assert len(sleeps) == 3


def test_an_export_has_the_batch(hzc: Hzc, file: Path, tmp_path: Path) -> None:
    hzc("log", "export", str(tmp_path / "export"))
    assert hzc.json("log", "verify", str(tmp_path / "export"), "--receipt", str(file))["valid"]
