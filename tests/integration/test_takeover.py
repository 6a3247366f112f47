"""What follows a process that still runs: a writer under load, and the cases in which it must not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hanzo_compute import ready
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.store import SqliteStore
from hanzo_compute.adapters.local.writer import EXIT_UPGRADE
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, Put
from tests.support.live import Platform, until
from tests.support.writer import COMMAND, WriterProcess


@contextmanager
def successor(home: Path, *command: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A writer that is to follow the one of ``home``, and the descriptor on which it says how far it is."""
    steps, told = os.pipe()
    environment = os.environ | {ready.VARIABLE: str(told), ready.TAKEOVER: "1"}
    process = subprocess.Popen(
        command or [*COMMAND, str(home)], env=environment, pass_fds=(told,), stderr=subprocess.PIPE, text=True
    )
    os.close(told)
    try:
        yield process, steps
    finally:
        os.close(steps)
        process.kill()
        process.communicate()


class Load(threading.Thread):
    """Writes counters by compare-and-set, each durably; every error is kept."""

    def __init__(self, home: Path, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.client = WriterClient(home)
        self.store = SqliteStore(self.client)
        self.written = 0
        self.failed: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        key = Key("load", self.name)
        while not self.stopping.is_set():
            try:
                self.store.transact([Put(key, {"n": self.written + 1}, expect=self.written or ABSENT)])
                ticket = self.client.take()
                if ticket is not None:
                    self.client.wait(ticket)
                self.written += 1
            except Exception as error:
                self.failed.append(repr(error))
        self.store.close()
        self.client.close()


def test_writers_follow_each_other_under_load_and_no_request_is_lost_or_doubled(tmp_path: Path) -> None:
    with WriterProcess(tmp_path) as first:
        load = [Load(tmp_path, f"{number}") for number in range(4)]
        for each in load:
            each.start()
        until(lambda: all(each.written > 5 for each in load), 120, "it is under load")
        with successor(tmp_path) as (second, steps):
            assert os.read(steps, 1) == ready.STANDING_BY
            assert first.stop() == 0
            assert os.read(steps, 1) == ready.READY
            with successor(tmp_path) as (_, later):
                assert os.read(later, 1) == ready.STANDING_BY
                second.terminate()
                assert os.read(later, 1) == ready.READY
                before = [each.written for each in load]
                until(lambda: all(each.written > n for each, n in zip(load, before, strict=True)), 120, "it goes on")
                for each in load:
                    each.stopping.set()
                    each.join(120)
                    assert each.failed == []
                store = SqliteStore(WriterClient(tmp_path))
                for each in load:  # a transaction that was applied twice would have failed its compare-and-set
                    record = store.get(Key("load", each.name), fresh=True)
                    assert record is not None
                    assert (record.rev, record.body) == (each.written, {"n": each.written})
                store.close()
                store._client.close()


OTHER = """
import sys
from hanzo_compute.adapters.local import {module}, writer
{module}.{name} = {value}
sys.exit(writer.main(["--home", sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("module", "name", "value", "told"),
    [
        ("schema", "MIGRATIONS", "(*schema.MIGRATIONS, ('CREATE TABLE later (x)',))", "migrates the database"),
        ("frames", "PROTOCOL", "frames.PROTOCOL + 1", "speaks protocol"),
    ],
)
def test_a_release_that_cannot_follow_says_so_and_leaves_the_writer_alone(
    tmp_path: Path, module: str, name: str, value: str, told: str
) -> None:
    with WriterProcess(tmp_path):
        program = OTHER.format(module=module, name=name, value=value)
        with successor(tmp_path, sys.executable, "-c", program, str(tmp_path)) as (process, steps):
            _, words = process.communicate(timeout=120)
            assert process.returncode == EXIT_UPGRADE
            assert told in words
            assert "hzc down, then hzc up" in words
            assert os.read(steps, 1) == b""
        client = WriterClient(tmp_path)
        assert client.stats()["clients"] == 1
        client.close()


BROKEN = """
import os, sys
from pathlib import Path
broken = Path(__file__).with_name("broken")
if broken.exists() and broken.read_text() in sys.orig_argv:
    os.write(2, b"this release is broken")
    os._exit(1)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_does_not_come_up_leaves_the_old_one_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = tmp_path / "release"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(patch))
    nobody = Platform(tmp_path / "nobody").hzc("restart")
    assert (nobody.returncode, b"no platform runs" in nobody.stderr) == (2, True)
    with Platform(tmp_path / "home") as platform:
        before = {name: platform.pid(name) for name in ("writer", "front-1", "pump", "agent-1")}
        for module, name, replaced in (
            ("hanzo_compute.adapters.local.writer", "writer", 0),
            ("hanzo_compute_host.front", "front-1", 1),
            ("hanzo_compute_agent", "agent-1", 3),
        ):
            (patch / "broken").write_text(module)
            pid = platform.pid(name)
            failed = platform.hzc("restart", timeout=240)
            assert failed.returncode == Unavailable.exit_code, failed
            assert f"{replaced} of 4 processes were replaced".encode() in failed.stderr
            assert f"a new {name} did not come up: this release is broken".encode() in failed.stderr
            assert platform.pid(name) == pid
            assert platform.client().list_jobs().items == []
        (patch / "broken").unlink()
        assert platform.hzc("restart", timeout=240).returncode == 0
        assert all(platform.pid(name) not in (before[name], None) for name in before)
        assert platform.stop() == 0
