"""An agent compiles interpreters for jobs to come: at the lowest priority, in nobody's way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.adapters.sandbox.artefacts import NICE, Artefacts, Stopped
from hanzo_compute.adapters.sandbox.interpreters import PINS
from hanzo_compute.adapters.sandbox.settings import Profile, tag
from tests.support.fake_api import KEY, FakeApi
from tests.support.wasm import children, eventually

# At the lowest priority a compiler waits for whatever else runs on the machine.
pytestmark = pytest.mark.timeout(900)

QUICKJS = PINS["javascript"]

USUAL = os.getpriority(os.PRIO_PROCESS, 0)
"""The nice value of this process, which its children have too."""


@pytest.fixture
def cache(tmp_path: Path, wasm_cache: Path) -> Path:
    """A cache that has QuickJS, and nothing compiled."""
    folder = tmp_path / "cache" / "interpreters"
    folder.mkdir(parents=True)
    shutil.copy(wasm_cache / "interpreters" / f"{QUICKJS.sha256}.wasm", folder)
    return folder.parent


def compiled(cache: Path) -> set[Profile]:
    """The profiles that QuickJS is compiled for."""
    known = {profile: Artefacts(cache, profile.value, tag(profile)).name(QUICKJS.sha256) for profile in Profile}
    return {profile for profile, name in known.items() if (cache / "artefacts" / name).exists()}


def compilers(parent: int | None = None) -> list[int]:
    """The nice values of the compilers that a process, or this one, has started."""
    found = []
    for pid in children(parent or os.getpid()):
        try:
            if b"sandbox.compile" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16]))
        except OSError:
            continue
    return found


def wait(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def source(cache: Path) -> Callable[[], bytes]:
    return (cache / "interpreters" / f"{QUICKJS.sha256}.wasm").read_bytes


def test_a_runner_compiles_what_it_has_for_both_profiles(cache: Path, tmp_path: Path) -> None:
    runner = WasmRunner(tmp_path / "state", cache, 1, SystemClock())
    done: list[str] = []
    thread = threading.Thread(target=lambda: done.extend(runner.prepare(wait)))
    thread.start()
    eventually(lambda: NICE in compilers(), "a compiler of the lowest priority")
    thread.join(600)
    assert sorted(done) == [f"{QUICKJS.version} (fast)", f"{QUICKJS.version} (metered)"]
    assert compiled(cache) == {*Profile}
    assert runner.prepare(wait) == []
    runner.close()


def test_a_job_does_not_wait_for_it(cache: Path) -> None:
    artefacts = Artefacts(cache, Profile.METERED.value, tag(Profile.METERED))
    ends: list[object] = []

    def prepare() -> None:
        try:
            ends.append(artefacts.prepare(QUICKJS.sha256, source(cache), wait))
        except Stopped as stopped:
            ends.append(stopped)

    thread = threading.Thread(target=prepare)
    thread.start()
    eventually(lambda: compilers() == [NICE], "a compiler of the lowest priority")
    seen: list[list[int]] = []

    def look(seconds: float) -> bool:
        seen.append(compilers())
        return wait(seconds)

    os.close(artefacts.get(QUICKJS.sha256, source(cache), stopped=look))
    thread.join(120)
    assert isinstance(ends[0], Stopped)
    assert [USUAL] in seen, "it was begun again, at the usual priority"
    assert artefacts.prepare(QUICKJS.sha256, source(cache), wait) is False
    artefacts.close()


def test_it_ends_at_once_when_the_runner_closes(cache: Path, tmp_path: Path) -> None:
    runner = WasmRunner(tmp_path / "state", cache, 1, SystemClock())
    done: list[list[str]] = []
    thread = threading.Thread(target=lambda: done.append(runner.prepare(wait)))
    thread.start()
    eventually(compilers, "a compiler")
    runner.close()
    thread.join(120)
    assert (done, compilers(), compiled(cache)) == ([[]], [], set())


def test_an_agent_does_so_after_its_start_and_stops_at_once(cache: Path, tmp_path: Path) -> None:
    def begin(api: FakeApi) -> subprocess.Popen[bytes]:
        environment = {
            "HZC_URL": api.url,
            "HZC_KEY": KEY,
            "HZC_HOME": str(tmp_path / "home"),
            "HZC_CACHE": str(cache),
            "HZC_AGENT_SLOTS": "1",
            "PATH": os.environ["PATH"],
        }
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "hanzo_compute_agent"], env=environment, stderr=log)

    api = FakeApi()
    api.lease_answers[""] = {"leases": []}
    with api.serving():
        first = begin(api)
        eventually(lambda: compilers(first.pid), "it compiles")
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) == 0
        second = begin(api)
        eventually(lambda: compiled(cache) == {*Profile}, "both are compiled", 500)
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0
    assert b"compiled for jobs to come: quickjs" in (tmp_path / "log").read_bytes()
