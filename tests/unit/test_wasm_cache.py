"""The cache of compiled modules: only what it authenticated itself comes out."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox.cache import ArtefactCache

ONE = hashlib.sha256(b"one").hexdigest()
TWO = hashlib.sha256(b"two").hexdigest()


def loaded(cache: ArtefactCache, digest: str) -> bytes | None:
    fd = cache.sealed(digest)
    if fd is None:
        return None
    with os.fdopen(fd, "rb") as file:
        return os.pread(file.fileno(), 1 << 20, 0)


def test_what_was_stored_is_loaded_and_the_rest_is_absent(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path / "cache", "tag")
    cache.store(ONE, b"artefact")
    assert loaded(cache, ONE) == b"artefact"
    assert loaded(cache, TWO) is None
    # Another process has the same key.
    assert loaded(ArtefactCache(tmp_path / "cache", "tag"), ONE) == b"artefact"


def test_folder_and_key_are_private(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path / "cache", "tag")
    cache.store(ONE, b"artefact")
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "cache" / "artefacts").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "cache" / "artefact.key").stat().st_mode & 0o777 == 0o600
    assert cache.path(ONE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("position", [0, 5, 8, 39])
def test_one_changed_byte_discards_the_entry(tmp_path: Path, position: int) -> None:
    cache = ArtefactCache(tmp_path, "tag")
    cache.store(ONE, b"artefact")
    data = bytearray(cache.path(ONE).read_bytes())
    data[position] ^= 1
    cache.path(ONE).write_bytes(data)
    assert loaded(cache, ONE) is None
    assert not cache.path(ONE).exists()


@pytest.mark.parametrize("size", [0, 1, 32, 39])
def test_a_cut_entry_is_discarded(tmp_path: Path, size: int) -> None:
    cache = ArtefactCache(tmp_path, "tag")
    cache.store(ONE, b"artefact")
    os.truncate(cache.path(ONE), size)
    assert loaded(cache, ONE) is None


def test_an_entry_under_another_name_is_refused(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, "tag")
    cache.store(ONE, b"artefact of one")
    cache.path(ONE).rename(cache.path(TWO))
    assert loaded(cache, TWO) is None


def test_an_entry_signed_with_another_key_is_refused(tmp_path: Path) -> None:
    theirs = ArtefactCache(tmp_path / "theirs", "tag")
    ours = ArtefactCache(tmp_path / "ours", "tag")
    theirs.store(ONE, b"theirs")
    ours.path(ONE).write_bytes(theirs.path(ONE).read_bytes())
    assert loaded(theirs, ONE) == b"theirs"
    assert loaded(ours, ONE) is None


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, "tag")
    cache.store(ONE, b"artefact")
    moved = cache.path(ONE).rename(tmp_path / "elsewhere")
    cache.path(ONE).symlink_to(moved)
    assert loaded(cache, ONE) is None


def test_what_was_checked_cannot_be_changed_any_more(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, "tag")
    cache.store(ONE, b"checked")
    fd = cache.sealed(ONE)
    assert fd is not None
    with os.fdopen(fd, "rb") as file:
        (tmp_path / "other").write_bytes(b"not checked at all" + b"\0" * 32)
        (tmp_path / "other").rename(cache.path(ONE))
        for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.truncate(fd, 1), lambda: os.truncate(fd, 100)):
            with pytest.raises(PermissionError):
                change()
        assert os.pread(file.fileno(), 100, 0) == b"checked"


def test_a_module_that_cannot_be_compiled_is_remembered_for_a_day(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, "tag")
    assert cache.bad(ONE) is None
    cache.remember_bad(ONE, "too large")
    assert ArtefactCache(tmp_path, "tag").bad(ONE) == "too large"
    assert ArtefactCache(tmp_path, "another engine").bad(ONE) is None
    path = cache.path(ONE).with_suffix(".bad")
    path.write_bytes(b"another reason" + path.read_bytes()[-32:])
    assert cache.bad(ONE) is None
    assert not path.exists()
    cache.remember_bad(ONE, "too large")
    os.utime(path, (1000, 1000))
    assert cache.bad(ONE) is None


def test_a_key_that_others_can_read_is_replaced_and_its_entries_with_it(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, "tag")
    cache.store(ONE, b"artefact")
    key = tmp_path / "artefact.key"
    before = key.read_bytes()
    key.chmod(0o644)
    again = ArtefactCache(tmp_path, "tag")
    assert key.read_bytes() != before
    assert key.stat().st_mode & 0o777 == 0o600
    assert loaded(again, ONE) is None


def test_another_engine_has_entries_of_its_own(tmp_path: Path) -> None:
    ArtefactCache(tmp_path, "wasmtime 1").store(ONE, b"for 1")
    assert loaded(ArtefactCache(tmp_path, "wasmtime 2"), ONE) is None
    assert loaded(ArtefactCache(tmp_path, "wasmtime 1"), ONE) == b"for 1"


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_the_least_recently_used_entries_go_when_bytes_or_entries_are_too_many(tmp_path: Path) -> None:
    by_bytes = ArtefactCache(tmp_path / "a", "tag", max_bytes=3 * (100 + 32))
    by_count = ArtefactCache(tmp_path / "b", "tag", max_entries=3)
    for cache in (by_bytes, by_count):
        for number in range(3):
            cache.store(digest(number), b"x" * 100)
            os.utime(cache.path(digest(number)), (1000 + number, 1000 + number))
        assert loaded(cache, digest(0)) is not None  # which makes 1 the oldest
        cache.store(digest(3), b"x" * 100)
        assert [loaded(cache, digest(number)) is not None for number in range(4)] == [True, False, True, True]


def test_an_entry_larger_than_the_bound_is_kept_alone(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, "tag", max_bytes=10)
    cache.store(ONE, b"x" * 100)
    cache.store(TWO, b"y" * 100)
    assert loaded(cache, ONE) is None
    assert loaded(cache, TWO) == b"y" * 100


def test_what_a_killed_worker_left_half_written_is_removed_in_time(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, "tag")
    old, new = (cache.path(ONE).with_suffix(f".{name}.tmp") for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    cache.store(TWO, b"artefact")
    assert not old.exists()
    assert new.exists()


def test_one_at_a_time_holds_the_lock_of_an_entry(tmp_path: Path) -> None:
    first, second = ArtefactCache(tmp_path, "tag"), ArtefactCache(tmp_path, "tag")
    order = []
    entered = threading.Event()

    def wait_for_it() -> None:
        entered.set()
        with second.lock(ONE):
            order.append("second")

    thread = threading.Thread(target=wait_for_it)
    with first.lock(ONE):
        thread.start()
        assert entered.wait(60)
        thread.join(0.05)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
