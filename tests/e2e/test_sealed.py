"""Sealed jobs on a real platform, whose agent proves itself with a real software TPM."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute import wiring
from tests.support.live import Platform, until
from tests.support.swtpm import SoftwareTpm, software_tpm

COUNT = "import sys; text = sys.stdin.read(); print('seen', file=sys.stderr); print(len(text), text[::-1])"
SECRET = "the launch is on tuesday"


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm")) as made:
        yield made


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, tpm: SoftwareTpm) -> Iterator[Platform]:
    extra = {"HZC_POOL_TIER": "2", "HZC_TPM_TCTI": tpm.tcti, "HZC_COLLATERAL": "offline"}
    with Platform(tmp_path_factory.mktemp("sealed") / "home", extra=extra) as started:
        yield started


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, platform: Platform, tpm: SoftwareTpm) -> Path:
    """The built-in policy for software TPMs, with this one's authority."""
    import yaml

    from hanzo_compute.attestation import builtin

    document: dict[str, Any] = builtin("local-demo").model_dump(mode="json") | {"name": "mine"}
    document["tpm"]["roots"] = [tpm.root.decode(), tpm.issuer.decode()]
    path = tmp_path_factory.mktemp("policy") / "mine.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def everything(platform: Platform) -> bytes:
    """All that the platform has on the disk, but for the keys of the requester and of the agent's machine."""
    kept = (path for path in platform.home.rglob("*") if path.is_file() and "data-keys" not in path.parts)
    return b"".join(path.read_bytes() for path in kept)


def test_a_sealed_job_from_the_command_line(platform: Platform, policy: Path, tmp_path: Path) -> None:
    put = platform.hzc("attest", "policy", "put", "default", str(policy))
    assert put.returncode == 0, put
    program, text = tmp_path / "count.py", tmp_path / "secret.txt"
    program.write_text(COUNT)
    text.write_text(SECRET)
    run = platform.hzc("run", str(program), "--input", str(text), "--privacy-tier", "1")
    assert (run.returncode, run.stdout) == (0, f"{len(SECRET)} {SECRET[::-1]}\n".encode()), run
    assert b"seen" in run.stderr
    shown = json.loads(platform.hzc("show", "last", "-o", "json").stdout)
    assert shown["privacy_tier"] == {"requested": 1, "delivered": 1}
    outputs = {each["name"]: each for each in shown["outcome"]["outputs"]}
    assert base64.b64decode(outputs["stdout"]["inline_base64"]).startswith(b"hzc1")
    again = platform.hzc("result", "last", "--stdout")
    assert again.stdout == run.stdout
    receipt = tmp_path / "r.json"
    saved = platform.hzc("receipt", "show", "last", "--save", str(receipt))
    assert (saved.returncode, b"privacy tier 1 by word of the evidence" in saved.stdout) == (0, True), saved
    statement = json.loads(receipt.read_text())["statement"]
    assert statement["tier"] == {"requested": 1, "delivered": 1, "basis": "evidence"}
    assert len(statement["evidence"]) == 64
    assert platform.hzc("rerun", shown["id"], "-f").stdout == run.stdout
    told = json.loads(platform.hzc("key", "attestations", "last", "-o", "json").stdout)["items"]
    assert [(each["verdict"], each["tier"]) for each in told] == [("accept", 1)]
    again = json.loads(platform.hzc("attest", "explain", "--job", "last", "-o", "json").stdout)
    assert (again["verdict"], again["tier"], again["reasons"]) == ("accept", 1, [])
    draft = platform.hzc("attest", "explain", "--job", "last", "--policy", "production", "-o", "json")
    assert (draft.returncode, "tpm.software" in json.loads(draft.stdout)["reasons"]) == (4, True)
    early = platform.hzc("attest", "explain", "--job", "last", "--at", "2000-01-01T00:00:00Z")
    assert (early.returncode, b"valid only from" in early.stdout) == (4, True), early
    until(lambda: platform.client().get(shown["id"])["state"] == "succeeded", 120, "it is done")
    left = everything(platform)
    assert SECRET.encode() not in left
    assert SECRET[::-1].encode() not in left
    elsewhere = platform.hzc("result", "last", "--stdout", HZC_HOME=str(tmp_path / "other"), **reach(platform))
    assert (elsewhere.returncode, b"is not here" in elsewhere.stderr) == (2, True), elsewhere


def reach(platform: Platform) -> dict[str, str]:
    return {"HZC_URL": platform.url, "HZC_KEY": platform.key}


def test_without_a_policy_nothing_is_released(platform: Platform, policy: Path, tmp_path: Path) -> None:
    """The built-in policy that stands in for one refuses a software TPM, whatever it is."""
    program = tmp_path / "count.py"
    program.write_text(COUNT)
    key = platform.tenant("nobody")
    run = platform.hzc("run", str(program), "--privacy-tier", "1", "-d", HZC_KEY=key)
    job = run.stdout.decode().strip()
    keys = wiring.keys_client(platform.url, key)
    (first, *_) = until(lambda: keys.attestations(job), 120, "a runner was appraised")
    assert first["verdict"] == "reject"
    assert first["policy"] == "production@1"
    assert "tpm.software" in first["reasons"]
    client = wiring.jobs_client(platform.url, key)
    assert client.get(job)["privacy_tier"]["delivered"] == 0
    client.cancel(job)


def test_the_requester_keeps_the_key_from_what_proves_too_little(
    platform: Platform, policy: Path, tmp_path: Path
) -> None:
    """A TPM is no TEE: the platform has no key of tier 2, and the requester's client does not seal it."""
    program = tmp_path / "count.py"
    program.write_text(COUNT)
    run = platform.hzc("run", str(program), "--privacy-tier", "2", "-d")
    assert b"hzc key release" in run.stderr, run
    job = run.stdout.decode().strip()
    refused = platform.hzc("key", "release", job, "--policy", str(policy))
    assert (refused.returncode, b"2 is asked for: the key stays here" in refused.stderr) == (4, True), refused
    deposited = platform.hzc("key", "deposit", job)
    assert (deposited.returncode, b"not attested itself" in deposited.stderr) == (4, True), deposited
    platform.client().cancel(job)
