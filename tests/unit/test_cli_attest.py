"""`hzc attest`: evidence judged offline, with exit codes; batches; policies; and what garbage gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.attested import EnrolledTpm
from tests.support.cli import Hzc
from tests.support.engines import need_vectors

PLATFORMS = ["snp", "tdx", "sgx", "nitro", "nvidia", "tpm"]
NONCE = "ab" * 32


@pytest.fixture
def hzc(tmp_path: Path) -> Hzc:
    return Hzc({"HZC_HOME": str(tmp_path / "home")})


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options that name a quote's files."""
    folder = tmp_path / "evidence"
    folder.mkdir()
    options = []
    for name, data in EnrolledTpm().quote(bytes.fromhex(NONCE)).files.items():
        (folder / name).write_bytes(data)
        options += ["--file", f"{name}={folder / name}"]
    return ["--platform", "tpm", *options]


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """One that knows the TPM, for looking."""
    document = json.loads(EnrolledTpm().policy()) | {"release_keys": False}
    document["require"] = {"freshness": True, "binding": False, "measurement": True}
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(document))
    return str(path)


def test_the_verdict_is_the_exit_code(hzc: Hzc, files: list[str], policy: str) -> None:
    good = hzc.json("attest", "verify", *files, "--policy", policy, "--nonce", NONCE)
    assert (good["authentic"], good["verdict"], good["tier"], good["reasons"]) == (True, "accept", 1, [])
    assert len(good["id"]) == 64
    assert set(good) >= {"id", "authentic", "verdict", "tier", "reasons", "checks", "claims"}
    assert {"id", "group", "ok", "detail", "expected", "actual", "source"} <= set(good["checks"][0])
    other = hzc.json("attest", "verify", *files, "--policy", policy, "--nonce", "cd" * 32, code=4)
    assert (other["authentic"], other["verdict"], other["reasons"]) == (True, "reject", ["tpm.nonce"])
    plain = hzc.json("attest", "verify", *files, code=4)
    assert (plain["authentic"], plain["verdict"], plain["reasons"]) == (True, "reject", ["tpm.identity"])


def test_people_are_told_why(hzc: Hzc, files: list[str], policy: str) -> None:
    short = hzc("attest", "verify", *files, code=4).stdout
    assert "reject: authentic, tier 0" in short
    assert "tpm.identity" in short
    assert "tpm.signature" not in short
    whole = hzc("attest", "explain", *files, "--policy", policy, "--nonce", NONCE).stdout
    assert "accept: authentic, tier 1" in whole
    assert "tpm.signature" in whole
    assert "[not asked for]" in whole


def test_an_altered_file_is_not_authentic(hzc: Hzc, files: list[str], tmp_path: Path) -> None:
    path = tmp_path / "evidence" / "message"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = hzc.json("attest", "verify", *files, code=4)
    assert (found["authentic"], found["verdict"]) == (False, "reject")
    assert "tpm.signature" in found["reasons"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "tpm.format"), (bytes(65), "tpm.magic"), (b"x" * (4 * 2**20 + 1), "tpm.format")],
    ids=["empty", "zeros", "over 4 MiB"],
)
def test_garbage_is_no_evidence(hzc: Hzc, files: list[str], tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "evidence" / "message").write_bytes(content)
    found = hzc.json("attest", "verify", *files, code=4)
    assert (found["authentic"], found["verdict"], found["reasons"][0]) == (False, "reject", reason)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--platform is needed"),
        (("--platform", "sparc", "--file", "a=b"), "'sparc' is not one of"),
        (("--platform", "snp"), "--file is needed"),
        (("--platform", "snp", "--file", "report"), "not NAME=PATH"),
        (("--platform", "snp", "--file", "report=/nonexistent"), "there is no file"),
        (("--platform", "snp", "--file", "report=pyproject.toml", "--file", "report=pyproject.toml"), "given twice"),
        (("--platform", "snp", "--file", "Ü=pyproject.toml"), ""),
        (("--platform", "snp", "--file", "report=pyproject.toml", "--at", "yesterday"), "RFC 3339"),
        (("--platform", "snp", "--file", "report=pyproject.toml", "--at", "1970-01-01T00:00:00Z"), "needs the time"),
        (("--platform", "snp", "--file", "report=pyproject.toml", "--nonce", "xyz"), "hex digits"),
        (("--platform", "snp", "--file", "report=pyproject.toml", "--policy", "none"), "no built-in policy"),
        (("--platform", "snp", "--file", "report=pyproject.toml", "--policy", "README.md"), "policy"),
        (("--platform", "snp", "--file", "report=pyproject.toml", "--anchor", "README.md"), "no certificate"),
        (("--batch", "README.md"), "no manifest"),
        (("--batch", "README.md", "--platform", "snp"), "leave --platform"),
    ],
)
def test_what_is_wrong_with_the_command_is_said(
    hzc: Hzc, arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    found = hzc("attest", "verify", *arguments, code=4 if told == "" else 2)
    assert told in found.stderr
    assert "Traceback" not in found.stderr + found.stdout


def test_a_batch_judges_every_entry(hzc: Hzc, files: list[str], tmp_path: Path) -> None:
    names = {name: {"file": f"evidence/{name}"} for name in ("message", "signature", "pcrs", "ak")}
    entries: list[Any] = [
        {"id": "good", "files": names, "verify_at": "2026-01-01T00:00:00Z"},
        {"id": "gone", "files": {**names, "pcrs": {"file": "evidence/nothing"}}},
        {"id": "plain", "files": {name: f"evidence/{name}" for name in names}},
        {"id": "odd", "files": {**names, "Pcrs": "evidence/pcrs"}},
        {"id": "late", "files": names, "verify_at": "tomorrow"},
        {"id": "none", "files": None},
    ]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"platform": "tpm", "cases": entries}))
    lines = [json.loads(line) for line in hzc("attest", "verify", "--batch", str(manifest)).stdout.splitlines()]
    assert [line["id"] for line in lines] == [entry["id"] for entry in entries]
    assert [line["authentic"] for line in lines] == [True, False, True, False, False, False]
    assert lines[0]["now_ms"] == 1_767_225_600_000
    assert {tuple(line["reasons"]) for line in lines[3:]} == {("tpm.format",)}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_recorded_evidence_in_a_batch(hzc: Hzc, platform: str) -> None:
    manifest = need_vectors(platform) / "manifest.json"
    expected = {case["id"]: case["expected"] for case in json.loads(manifest.read_text())["cases"]}
    lines = [json.loads(line) for line in hzc("attest", "verify", "--batch", str(manifest)).stdout.splitlines()]
    found = {line["id"]: (line["authentic"], line["verdict"]) for line in lines}
    assert found == {name: (each["crypto"] == "accept", each["default_policy"]) for name, each in expected.items()}


def test_recorded_evidence_with_its_anchor(hzc: Hzc) -> None:
    folder = need_vectors("tpm")
    cases = json.loads((folder / "manifest.json").read_text())["cases"]
    (case,) = [each for each in cases if "with_anchor" in each["expected"]]
    paths = {name: str(folder / each["file"]) for name, each in case["files"].items()}
    options = [part for name, path in paths.items() for part in ("--file", f"{name}={path}")]
    options += ["--platform", "tpm", "--at", case["verify_at"]]
    assert hzc.json("attest", "verify", *options, code=4)["verdict"] == "reject"
    anchor = paths[case["expected"]["with_anchor"]["file"]]
    assert hzc.json("attest", "verify", *options, "--anchor", anchor)["verdict"] == "accept"


def test_policies_are_checked_and_shown(hzc: Hzc, policy: str, tmp_path: Path) -> None:
    shown = hzc.json("attest", "policy", "check", policy)
    assert (shown["name"], shown["require"]["binding"], shown["snp"]) == ("mine", False, None)
    assert "require:" in hzc("attest", "policy", "check", "production").stdout
    for text, told in (
        ("name: x", "version"),
        ("name: x\nversion: 1\nsnp: {unknown: 1}", "snp.unknown"),
        ("name: x\nversion: 1\nversion: 2", "twice"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("[" * 5000, "YAML"),
        ("- a", "mapping"),
        ("!!python/object:os.system {}", "YAML"),
        ("name: x\nversion: 1\nrelease_keys: true\nrequire: {binding: false}", "release_keys"),
    ):
        path = tmp_path / "wrong.yaml"
        path.write_text(text)
        found = hzc("attest", "policy", "check", str(path), code=2)
        assert told in found.stderr, text
