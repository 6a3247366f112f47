"""`hzc receipt verify` and `hzc log verify`: files alone, no platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.services import log
from tests.support.cli import Hzc
from tests.support.proofs import Proofs, cancelled
from tests.support.stepped import Platform


@pytest.fixture
def platform() -> Platform:
    found = Platform()
    cancelled(found, 5)
    return found


@pytest.fixture
def hzc(tmp_path: Path) -> Hzc:
    return Hzc({"HZC_HOME": str(tmp_path / "home")})


@pytest.fixture
def file(platform: Platform, tmp_path: Path) -> Path:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(receipt(platform)))
    return path


def receipt(platform: Platform) -> dict[str, Any]:
    (row,) = platform.store.query_index("tenant", "TENANT#acme", limit=1)
    found = Proofs(platform).receipt(row[1].body["id"])
    assert found is not None
    return found


def test_a_receipt_is_verified_and_its_keys_pinned(hzc: Hzc, file: Path) -> None:
    first = hzc("receipt", "verify", str(file))
    assert "everything in it holds" in first.stdout
    assert "no agent signed for this end, and it costs nothing" in first.stdout
    assert "is known from now on" in first.stderr
    again = hzc("receipt", "verify", str(file))
    assert again.stdout == first.stdout
    assert again.stderr == ""
    shown = hzc.json("receipt", "verify", str(file))
    assert (shown["valid"], shown["state"], shown["units"]) == (True, "cancelled", "0")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda body: body["leaf"]["body"].update(state="succeeded"), "leaf.body.state"),
        (lambda body: body["proof"].update(index=3), "proof"),
        (lambda body: body.update(checkpoint=body["checkpoint"].replace("\n5\n", "\n6\n")), "checkpoint"),
        (lambda body: body.pop("proof"), "proof"),
        (lambda body: body.update(format="v0"), "format"),
    ],
)
def test_what_does_not_hold_is_named(hzc: Hzc, file: Path, change: Any, told: str) -> None:
    body = json.loads(file.read_text())
    change(body)
    changed = file.with_name("changed.json")
    changed.write_text(json.dumps(body))
    refused = hzc("receipt", "verify", str(changed), code=4)
    assert f"hzc: {told}: " in refused.stderr
    problem = json.loads(hzc("receipt", "verify", str(changed), "-o", "json", code=4).stderr)
    assert (problem["code"], problem["name"]) == ("rejected", told)


@pytest.mark.parametrize(
    "text", ["", "x", "[1", '{"format": 1, "format": 2}', "[" * 100_000, "\x00", '{"a": NaN}'], ids=range(7)
)
def test_files_that_are_no_receipt(hzc: Hzc, tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    assert "hzc: " in hzc("receipt", "verify", str(tmp_path / "r.json"), code=4).stderr


def test_files_that_are_too_large_or_missing(hzc: Hzc, tmp_path: Path) -> None:
    with (tmp_path / "r.json").open("wb") as file:
        file.truncate(5_000_000)
    assert "no receipt is" in hzc("receipt", "verify", str(tmp_path / "r.json"), code=4).stderr
    hzc("receipt", "verify", str(tmp_path / "none"), code=2)
    hzc("receipt", "verify", str(tmp_path), code=2)


def test_flags_stand_for_pins(hzc: Hzc, platform: Platform, file: Path) -> None:
    key = str(log.verifier_key(platform.ctx))
    assert hzc.json("receipt", "verify", str(file), "--platform-key", key)["valid"]
    assert hzc("receipt", "verify", str(file), "--platform-key", "x", code=2).stderr
    other = key.replace(platform_name(key), "other")
    hzc("receipt", "verify", str(file), "--platform-key", other, code=2)  # its hash is of another name
    assert hzc("receipt", "verify", str(file), "--job", "j-1", code=4).stderr.startswith("hzc: leaf.body.job")


def platform_name(key: str) -> str:
    return key.partition("+")[0]


def exported(platform: Platform, tmp_path: Path) -> Path:
    path, size = tmp_path / "export", log.checkpoint(platform.ctx)["size"]
    path.write_bytes(log.entries(platform.ctx, 0, size))
    (tmp_path / "export.checkpoint").write_text(log.checkpoint(platform.ctx)["note"])
    return path


def test_an_export_is_verified(hzc: Hzc, platform: Platform, file: Path, tmp_path: Path) -> None:
    path = exported(platform, tmp_path)
    refused = hzc("log", "verify", str(path), code=4)
    assert "not known here" in refused.stderr
    hzc("receipt", "verify", str(file))  # pins the platform
    assert hzc.json("log", "verify", str(path), "--receipt", str(file))["leaves"] == 5


@pytest.mark.parametrize("place", [0, 31, 32, 100, 159])
def test_a_byte_of_an_export_that_was_changed(
    hzc: Hzc, platform: Platform, file: Path, tmp_path: Path, place: int
) -> None:
    path = exported(platform, tmp_path)
    hzc("receipt", "verify", str(file))
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    assert "not those of its checkpoint" in hzc("log", "verify", str(path), code=4).stderr


def test_an_export_that_was_cut_or_is_not_there(hzc: Hzc, platform: Platform, file: Path, tmp_path: Path) -> None:
    path = exported(platform, tmp_path)
    hzc("receipt", "verify", str(file))
    data = path.read_bytes()
    for cut, told in (
        (data[:-1], "whole leaf"),
        (data[:-32], "not those"),
        (data + bytes(32), "not those"),
        (b"", "0"),
    ):
        path.write_bytes(cut)
        assert told in hzc("log", "verify", str(path), code=4).stderr
    path.write_bytes(data)
    (tmp_path / "export.checkpoint").write_bytes(b"\xff\xfe")
    hzc("log", "verify", str(path), code=4)
    (tmp_path / "export.checkpoint").unlink()
    assert "export.checkpoint" in hzc("log", "verify", str(path), code=2).stderr


def test_a_receipt_that_is_not_in_the_export(hzc: Hzc, platform: Platform, tmp_path: Path) -> None:
    path = exported(platform, tmp_path)
    cancelled(platform, 2)
    later = tmp_path / "later.json"
    later.write_text(json.dumps(receipt_of_last(platform)))
    hzc("receipt", "verify", str(later))
    assert "not in this export yet" in hzc("log", "verify", str(path), "--receipt", str(later), code=4).stderr


def receipt_of_last(platform: Platform) -> dict[str, Any]:
    ((_, record),) = platform.store.query_index("tenant", "TENANT#acme", limit=1, reverse=True)
    found = Proofs(platform).receipt(record.body["id"])
    assert found is not None
    return found


def test_forgetting(hzc: Hzc) -> None:
    assert "nothing is pinned" in hzc("log", "forget", "http://x", code=2).stderr
