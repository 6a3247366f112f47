"""hzc fn kv and hzc secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from hanzo_compute.services import secrets
from tests.support.cli import Hzc
from tests.support.fake_api import FakeApi


@pytest.fixture
def hzc(hzc: Hzc, tmp_path: Path) -> Hzc:
    """With a function."""
    file = tmp_path / "f.py"
    file.write_text("print(1)")
    hzc("fn", "deploy", "f", str(file))
    return hzc


def test_entries(hzc: Hzc, tmp_path: Path) -> None:
    kv = ("fn", "kv", "f")
    assert hzc(*kv, "ls").stderr == "no entries\n"
    assert hzc(*kv, "put", "a/b", "text").stderr == "a/b: version 1, 4 bytes\n"
    assert hzc(*kv, "put", "bin", input=b"\x00\xff\n").stderr == "bin: version 1, 3 bytes\n"
    file = tmp_path / "value"
    file.write_bytes(b"from file")
    assert hzc.json(*kv, "put", "a/b", "--from-file", str(file), "--expect", "1")["version"] == 2
    got = hzc(*kv, "get", "bin")
    assert (got.stdout_bytes, got.stderr) == (b"\x00\xff\n", "version 1\n")
    hzc(*kv, "get", "a/b", "-O", str(file))
    assert file.read_bytes() == b"from file"
    assert hzc.json(*kv, "get", "a/b")["value"] == "from file"
    hzc(*kv, "put", "--base64", "_w", "raw")
    assert hzc(*kv, "get", "--base64", "_w").stdout == "raw"
    shown = hzc(*kv, "ls").stdout
    for word in ("a/b", "bin", "--base64 _w", "9"):
        assert word in shown
    assert [each["key"] for each in hzc.json(*kv, "ls", "--prefix", "a")["items"]] == ["a/b"]
    assert "version 2, not 1" in hzc(*kv, "put", "a/b", "x", "--expect", "1", code=2).stderr
    assert "version 2, not 9" in hzc(*kv, "rm", "a/b", "--expect", "9", code=2).stderr
    assert hzc(*kv, "rm", "a/b").stderr == "a/b removed\n"
    assert "no entry" in hzc(*kv, "get", "a/b", code=2).stderr
    for wrong in (
        ["get", "--base64", "!"],
        ["put", "k", "v", "--from-file", str(file)],
        ["put", "k", "v", "--expect", "-2"],
    ):
        hzc(*kv, *wrong, code=2)


def test_secrets(api: FakeApi, hzc: Hzc, tmp_path: Path) -> None:
    assert hzc("secret", "ls").stderr == "no secrets\n"
    for given, kept in ((b"hunter2\n", b"hunter2"), (b"hunter2\r\n", b"hunter2"), (b"a\n\n", b"a\n"), (b"b\r", b"b\r")):
        hzc("secret", "set", "TOKEN", input=given)
        assert secrets.value(api.proofs.platform.ctx, "acme", "TOKEN") == kept
    file = tmp_path / "key"
    file.write_bytes(b"\x00line\n")
    assert hzc("secret", "set", "KEY", "--from-file", str(file)).stderr == "KEY: version 1\n"
    assert secrets.value(api.proofs.platform.ctx, "acme", "KEY") == b"\x00line\n"
    made = hzc.json("secret", "ls")
    assert [(each["name"], each["version"]) for each in made["items"]] == [("KEY", 1), ("TOKEN", 4)]
    assert "TOKEN" in hzc("secret", "ls").stdout
    assert hzc("secret", "rm", "TOKEN").stderr == "TOKEN removed\n"
    assert "no secret TOKEN" in hzc("secret", "rm", "TOKEN", code=2).stderr
    hzc("secret", "set", "TOKEN", "hunter2", code=2)  # never an argument
    assert "must have 1" in hzc("secret", "set", "TOKEN", input=b"\n", code=2).stderr


def test_audit(api: FakeApi, hzc: Hzc) -> None:
    assert hzc("secret", "audit").stderr == "no reads\n"
    for number in range(5):
        secrets.record_read(
            api.proofs.platform.ctx, "acme", f"f@{number}", "TOKEN" if number % 2 else "KEY", f"c-{number}"
        )
    assert len(hzc.json("secret", "audit")["items"]) == 5
    assert len(hzc.json("secret", "audit", "-n", "3")["items"]) == 3
    shown = hzc("secret", "audit", "TOKEN").stdout
    assert ("f@1" in shown, "f@3" in shown, "f@2" in shown) == (True, True, False)
