"""The cache of collateral: whole entries or none, private, bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hanzo_compute.adapters.collateral.cache import Entry, FileCache
from hanzo_compute.adapters.collateral.wanted import DAY_MS, Kept

KEY = "https://kds.example/vcek/v1/Milan/cert_chain"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "collateral"


def entry_path(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_written_is_read(folder: Path) -> None:
    cache = FileCache(folder)
    assert cache.read(KEY) is None
    cache.write(KEY, Kept(b"one\ntwo", None), 5)
    assert cache.read(KEY) == Entry(b"one\ntwo", 5, None)
    cache.write(KEY, Kept(b"other", 7), 6)
    assert FileCache(folder).read(KEY) == Entry(b"other", 6, 7)
    assert cache.read(KEY + "?") is None


def test_only_the_owner_can_read_it(folder: Path) -> None:
    old = os.umask(0)
    try:
        FileCache(folder).write(KEY, Kept(b"chip id", None), 0)
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert entry_path(folder).stat().st_mode & 0o777 == 0o600


def test_a_name_tells_nothing(folder: Path) -> None:
    FileCache(folder).write("https://kds.example/../../etc", Kept(b"", None), 0)
    assert len(entry_path(folder).name) == 64


def test_every_damaged_byte_is_found(folder: Path) -> None:
    cache = FileCache(folder)
    cache.write(KEY, Kept(b"content", 7), 5)
    path = entry_path(folder)
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        found = cache.read(KEY)
        assert found is None, f"byte {index}"
        assert not path.exists(), "it is thrown away"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert cache.read(KEY) is None
    path.write_bytes(b"[" * 8000 + b"\n")
    assert cache.read(KEY) is None
    path.write_bytes(whole)
    assert cache.read(KEY) == Entry(b"content", 5, 7)


def test_an_entry_under_the_name_of_another_is_none(folder: Path) -> None:
    cache = FileCache(folder)
    cache.write(KEY, Kept(b"content", None), 5)
    moved = entry_path(folder).read_bytes()
    cache.write("other", Kept(b"x", None), 5)
    for path in folder.iterdir():
        path.write_bytes(moved)
    assert cache.read("other") is None


def test_the_least_recently_used_go_first(folder: Path) -> None:
    cache = FileCache(folder, max_entries=3)
    for number in range(3):
        cache.write(f"k{number}", Kept(b"x", None), 0)
    for age, number in enumerate([1, 2, 0]):
        assert cache.read(f"k{number}") is not None
        os.utime(cache._path(f"k{number}"), (age, age))
    cache.write("k3", Kept(b"x", None), 0)
    assert cache.read("k1") is None
    assert all(cache.read(f"k{number}") for number in (0, 2, 3))


def test_it_is_bounded_in_bytes(folder: Path) -> None:
    cache = FileCache(folder, max_bytes=4000)
    for number in range(9):
        cache.write(f"k{number}", Kept(bytes(1000), None), 0)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 4000
    assert cache.read("k8") is not None
    cache.write("large", Kept(bytes(5000), None), 0)
    assert cache.read("large") is None
    assert cache.read("k8") is not None


def test_what_a_killed_process_left_is_removed_in_time(folder: Path) -> None:
    cache = FileCache(folder)
    cache.write(KEY, Kept(b"x", None), 0)
    old, fresh, foreign = folder / f".{'a' * 16}", folder / f".{'b' * 16}", folder / "README"
    for path in (old, fresh, foreign):
        path.write_bytes(b"half")
    hour_ago = time.time() - 3600
    for path in (old, foreign):
        os.utime(path, (hour_ago, hour_ago))
    cache.write(KEY, Kept(b"y", None), 0)
    assert {path.name for path in folder.iterdir()} >= {fresh.name, foreign.name}
    assert not old.exists()


WRITER = """
import itertools, sys
from pathlib import Path
from hanzo_compute.adapters.collateral.cache import FileCache
from hanzo_compute.adapters.collateral.wanted import Kept
cache = FileCache(Path(sys.argv[1]))
for number in itertools.count():
    cache.write(sys.argv[2], Kept(b"%d " % (number % 10) * 100_000, None), number)
    print(number, flush=True)
"""


def test_a_kill_in_the_middle_leaves_the_old_or_the_new(folder: Path) -> None:
    for round_ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, folder, KEY], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(3 + round_ * 7):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = FileCache(folder).read(KEY)
        assert found is not None
        assert found.content == b"%d " % (found.stored_ms % 10) * 100_000


def test_times() -> None:
    ever = Entry(b"", 0, None)
    assert ever.is_good(10**15)
    assert not ever.is_due(10**15)
    week = Entry(b"", 0, 7 * DAY_MS)
    assert week.is_good(7 * DAY_MS - 1)
    assert not week.is_good(7 * DAY_MS)
    assert [week.is_due(at) for at in (DAY_MS - 1, DAY_MS)] == [False, True]
    short = Entry(b"", 0, 1000)
    assert [short.is_due(at) for at in (899, 900)] == [False, True]
