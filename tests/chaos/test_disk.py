"""A disk that is full or read-only, under a whole platform: clear errors, nothing lost, recovery without hands."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hanzo_compute.errors import Unavailable
from hanzo_compute_host.running import is_ready
from tests.support.hostile import Failing, remount, small_disk
from tests.support.live import Platform, until
from tests.support.load import Load, account

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(900)]

MEBIBYTES = 96


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", MEBIBYTES) as folder:
        yield folder


@pytest.fixture
def platform(disk: Path, tmp_path: Path) -> Iterator[Platform]:
    """Its home is on the small disk; its interpreters and what `hzc up` says are not."""
    with Platform(disk / "home", log=tmp_path / "up.log") as started:
        yield started


def fill(disk: Path) -> Path:
    """Take all room that is left, to the last byte."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        while os.statvfs(disk).f_bavail:  # what runs there may give something back
            for size in (2**20, 4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * size)
    return filler


def test_a_full_disk(platform: Platform, disk: Path) -> None:
    load = Load(platform, "load")
    load.more(10)
    before = {name: platform.pid(name) for name in ("writer", "front-1", "pump", "agent-1")}
    filler = fill(disk)

    until(lambda: load.refused, 120, "a submission is refused")
    (error, *_) = load.refused
    assert isinstance(error, Unavailable)
    assert "lost" in error.message or "could not write" in error.message
    assert "full disk" in str(error.hint) or "disk is full" in str(error.hint)
    with pytest.raises(Unavailable) as refused:  # uploads say it in the same words
        load.client.upload_blob(os.urandom(2**20))
    assert "disk" in str(refused.value.hint)
    accepted = len(load.accepted)
    assert is_ready(platform.url, 5)  # what can be read is served
    job = next(iter(load.accepted.values()))
    assert load.client.get(job)["id"] == job
    time.sleep(8)  # longer than the agent's waits and a message's visibility: what fails now fails again and again
    filler.unlink()
    load.more(10)
    load.end()
    jobs = account(load.client, [load], platform.home)
    assert len(jobs) >= accepted + 10
    # Nothing had to be started again, by hand or otherwise.
    assert {name: platform.pid(name) for name in before} == before
    assert platform.stop() == 0


def test_a_disk_that_fills_up_slowly_and_is_emptied_again_and_again(platform: Platform, disk: Path) -> None:
    load = Load(platform, "load", pause_s=0.02)
    for _ in range(4):
        load.more(5)
        filler = fill(disk)
        seen = len(load.refused)
        until(lambda seen=seen: len(load.refused) > seen, 120, "a submission is refused")  # type: ignore[misc]
        filler.unlink()
    load.end()
    account(load.client, [load], platform.home)
    assert platform.stop() == 0


def test_a_platform_that_starts_on_a_full_disk(platform: Platform, disk: Path) -> None:
    """Killed as a whole, and started while there is no room: it starts once there is, with all that it had accepted."""
    load = Load(platform, "load")
    load.more(10)
    filler = fill(disk)
    platform.kill_supervisor()
    load.stopping.set()
    code, said = platform.fails_to_start()
    assert code != 0
    assert "No space left on device" in said or "full" in said
    assert "Traceback" not in said
    filler.unlink()
    platform.start()
    load.join(120)
    account(load.client, [load], platform.home)


def test_a_platform_that_starts_on_a_read_only_disk(platform: Platform, disk: Path) -> None:
    load = Load(platform, "load")
    load.more(5)
    load.end()
    assert platform.stop() == 0
    remount(disk, "ro")
    code, said = platform.fails_to_start()
    assert code == 2
    assert "Read-only file system" in said
    assert "Traceback" not in said
    remount(disk, "rw")
    platform.start()
    account(load.client, [load], platform.home)


def test_a_disk_that_turns_read_only_under_the_writer(tmp_path: Path) -> None:
    """As a file system does after an error: its files stay open, and every write to them is refused."""
    with Platform(tmp_path / "home") as platform:
        load = Load(platform, "load")
        load.more(5)
        pid = platform.pid("writer")
        assert pid is not None
        calls = ("pwrite64", "ftruncate", "fallocate")
        readonly = [f"{call}:error=EROFS" for call in calls]
        with Failing(pid, tmp_path / "trace", *readonly, trace=",".join(calls)) as strace:
            until(lambda: load.refused, 120, "a submission is refused")
            assert "disk" in str(load.refused[-1].hint)
            assert load.client.list_jobs(limit=1).items
            until(lambda: strace.injected > 5, 120, "it goes on trying")
        load.more(10)
        load.end()
        account(load.client, [load], platform.home)
        assert platform.stop() == 0
