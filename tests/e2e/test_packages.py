"""Programs of several files on a real platform: a job, a call of a function, the function as a job, and replays."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from hanzo_compute import wiring
from tests.support.live import Platform
from tests.support.packages import javascript_package, python_package

# An interpreter may have to be compiled first.
pytestmark = pytest.mark.timeout(300)


def unzipped(data: bytes, folder: Path) -> str:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        archive.extractall(folder)
    return str(folder)


def test_a_folder_is_a_job_a_function_and_both_are_proven(platform: Platform, tmp_path: Path) -> None:
    folder = unzipped(python_package(), tmp_path / "python")
    name = tmp_path / "name"
    name.write_bytes(b"you")
    ran = platform.hzc("run", folder, "--input", str(name), timeout=120)
    assert (ran.returncode, ran.stdout) == (0, b"hello you\n"), ran
    client = platform.client()
    job = client.get(client.list_jobs(limit=1).items[0]["id"])
    source = job["spec"]["source"]
    kept = tmp_path / "kept"
    replayed = platform.hzc("replay", job["id"], "--save", str(kept), timeout=120)
    assert (replayed.returncode, b"the same" in replayed.stdout) == (0, True), replayed
    receipt = json.loads((kept / "receipt.json").read_text())
    assert receipt["statement"]["code"] == source["package"].removeprefix("b1-")
    again = platform.hzc("replay", str(kept), timeout=120)
    assert (again.returncode, b"the same" in again.stdout) == (0, True), again

    made = platform.hzc("fn", "deploy", "packed", folder)
    assert (made.returncode, made.stdout) == (0, b"packed@1\n"), made
    for who in (b"you", b"them"):
        called = platform.hzc("fn", "invoke", "packed", "-d", who.decode(), timeout=120)
        assert (called.returncode, called.stdout) == (0, b"hello " + who + b"\n"), called
    ran = platform.hzc("run", "--function", "packed", "--input", str(name), timeout=120)
    assert (ran.returncode, ran.stdout) == (0, b"hello you\n"), ran
    stored = client.get(client.list_jobs(limit=1).items[0]["id"])["spec"]["source"]
    assert stored == {**source, "function": "packed@1"}
    wiring.functions_client(platform.url, platform.key).remove("packed")


def test_modules_of_javascript_and_what_is_no_package(platform: Platform, tmp_path: Path) -> None:
    ran = platform.hzc("run", unzipped(javascript_package(), tmp_path / "js"), timeout=120)
    assert (ran.returncode, ran.stdout) == (0, b"42\n"), ran
    here = platform.hzc("run", "--local", str(tmp_path / "js"), timeout=120)
    assert (here.returncode, here.stdout) == (0, b"42\n"), here

    client = platform.client()
    blob = client.upload_blob(b"no archive")
    given = {"source": {"package": blob, "language": "javascript"}}
    ended = client.wait(client.submit(given).job["id"], timeout_s=200)
    assert (ended["state"], ended["outcome"]["category"]) == ("failed", "invalid_program")
    assert "no ZIP archive" in ended["outcome"]["detail"]
