"""Guests that want files that are not theirs, or more of their own than they may have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.sandbox.call import Bounds, Folder, Report
from tests.support.sandbox import PROFILES, Lab
from tests.support.wasi_script import (
    BADF,
    CREATE,
    DIRECTORY,
    FBIG,
    MFILE,
    NOSPC,
    NOTCAPABLE,
    PERM,
    SUCCESS,
    TRUNCATE,
    Script,
    module,
    results,
)

OUTSIDE = b"out of reach, SECRET-7d1f"
IN, SCRATCH = 3, 4
REFUSED = {PERM, NOTCAPABLE, 2, 32, 44, 54, 58, 69}
"""EPERM, ENOTCAPABLE, EACCES, ELOOP, ENOENT, ENOTDIR, ENOTSUP, EROFS."""
BOUNDS = Bounds(memory_mib=4)


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


class Place:
    """/in and /tmp of a guest, and beside them what it must not reach."""

    def __init__(self, lab: Lab, root: Path, profile: str) -> None:
        self.lab, self.root, self.profile = lab, root, profile
        self.input, self.scratch, self.outside = root / "in", root / "scratch", root / "outside"
        for folder in (self.input, self.scratch, self.outside):
            folder.mkdir()
        (self.outside / "secret").write_bytes(OUTSIDE)
        (self.input / "file").write_bytes(b"input")
        (self.input / "folder").mkdir()

    def run(self, script: Script, bounds: Bounds = BOUNDS, **options: Any) -> Report:
        return self.lab.run(
            module(),
            script.request(),
            entry="reactor",
            profile=self.profile,
            bounds=bounds,
            folders=[Folder(str(self.input), "/in"), Folder(str(self.scratch), "/tmp", writable=True)],
            **options,
        )

    def gives(self, script: Script, bounds: Bounds = BOUNDS) -> list[int]:
        report = self.run(script, bounds)
        assert report.kind == "exit", report
        return results(report.output)

    def unharmed(self) -> None:
        assert (self.outside / "secret").read_bytes() == OUTSIDE
        assert sorted(names(self.outside)) == ["secret"]
        assert sorted(names(self.root)) == ["in", "outside", "scratch"]
        assert (self.input / "file").read_bytes() == b"input"
        assert set(names(self.input)) >= {"file", "folder"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


@pytest.fixture(params=PROFILES)
def place(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(lab, tmp_path, request.param)
    yield made
    made.unharmed()


WAYS_OUT = (
    "..",
    "../outside/secret",
    "./../outside/secret",
    "folder/../../outside/secret",
    "folder/../../in/../outside/secret",
    "../in/../outside/secret",
    "//outside/secret",
    "/",
    "/etc/passwd",
    "/proc/self/environ",
    "/proc/self/mem",
    "link/secret",
    "link/../outside/secret",
    "file-link",
    "absolute",
    "chain",
    "proc/self/environ",
    "root/etc/passwd",
    "up/outside/secret",
)


def hang_links(folder: Path, outside: Path) -> None:
    for name, target in {
        "link": "../outside",
        "file-link": "../outside/secret",
        "absolute": str(outside / "secret"),
        "chain": "hop",
        "hop": "link/secret",
        "proc": "/proc",
        "root": "/",
        "up": "..",
    }.items():
        (folder / name).symlink_to(target)


@pytest.mark.parametrize("folder", [IN, SCRATCH])
def test_there_is_no_way_out(place: Place, folder: int) -> None:
    where = place.input if folder == IN else place.scratch
    hang_links(where, place.outside)
    (where / "folder").mkdir(exist_ok=True)
    script = Script()
    for way in WAYS_OUT:
        script.open(folder, way)
        script.open(folder, way, how=DIRECTORY)
        script.open(folder, way, how=CREATE | TRUNCATE)
        text = way.encode()
        script.add("path_filestat_get", folder, 1, script.blob(text), len(text), script.room(64))
    assert set(place.gives(script)) <= REFUSED | {28}


def test_links_of_its_own_making_lead_nowhere_either(place: Place) -> None:
    """The guest makes the links itself, and goes through them while they are there."""
    script = Script()
    absolute = str(place.outside / "secret").encode()
    for name, target in {
        b"a": b"../outside",
        b"b": b"../outside/secret",
        b"c": absolute,
        b"d": b"/",
        b"e": b"..",
        b"f": b"/proc/self/cwd",
        b"g": b"e/outside",
    }.items():
        script.add("path_symlink", script.blob(target), len(target), SCRATCH, script.blob(name), len(name))
    made = len(script._ops)
    for way in ("a/secret", "b", "c", "d/etc/passwd", "e/outside/secret", "f/etc", "g/secret", "e/e/outside/secret"):
        script.open(SCRATCH, way)
        script.open(SCRATCH, way + "/new", how=CREATE)
        script.path("path_unlink_file", SCRATCH, way + "/secret")
    for way in ("a/new", "e/new", "g/new"):
        script.path("path_create_directory", SCRATCH, way)
        script.path("path_remove_directory", SCRATCH, way)
    found = place.gives(script)
    assert set(found[made:]) <= REFUSED
    place.unharmed()


def test_renames_and_links_do_not_cross_the_border(place: Place) -> None:
    (place.scratch / "mine").write_bytes(b"mine")
    script = Script()

    def two(name: str, one: tuple[int, str], other: tuple[int, str]) -> None:
        first, second = one[1].encode(), other[1].encode()
        head = (one[0], 0) if name == "path_link" else (one[0],)
        script.add(name, *head, script.blob(first), len(first), other[0], script.blob(second), len(second))

    for name in ("path_rename", "path_link"):
        two(name, (SCRATCH, "../outside/secret"), (SCRATCH, "got"))
        two(name, (SCRATCH, "mine"), (SCRATCH, "../outside/put"))
        two(name, (SCRATCH, "mine"), (IN, "put"))
        two(name, (IN, "file"), (SCRATCH, "got"))
        two(name, (IN, "file"), (IN, "moved"))
        two(name, (SCRATCH, str(place.outside / "secret")), (SCRATCH, "got"))
    assert set(place.gives(script)) <= REFUSED
    assert names(place.scratch) == ["mine"]


def test_nothing_can_be_changed_in_a_folder_that_is_for_reading(place: Place) -> None:
    script = Script()
    fd = script.room(4)
    script.open(IN, "new", how=CREATE)
    script.open(IN, "file", how=TRUNCATE)
    script.path("path_unlink_file", IN, "file")
    script.path("path_create_directory", IN, "made")
    script.path("path_remove_directory", IN, "folder")
    text = script.blob(b"file")
    script.add("path_symlink", text, 4, IN, script.blob(b"link"), 4)
    script.add("path_filestat_set_times", IN, 1, text, 4, 0, 0, 2 | 8)
    refused = len(script._ops)
    script.open(IN, "file", at=fd)
    opened = IN + 2
    script.write(opened, b"changed")
    script.add("fd_pwrite", opened, script.iovec((text, 4)), 1, 0, script.room(4))
    script.add("fd_filestat_set_size", opened, 0)
    script.add("fd_allocate", opened, 0, 100)
    script.add("fd_fdstat_set_rights", opened, 0x1FFFFFFF, 0x1FFFFFFF)
    script.write(opened, b"changed")
    script.add("fd_filestat_set_times", opened, 0, 0, 2 | 8)
    found = place.gives(script)
    assert set(found[:refused]) <= REFUSED
    assert 0 not in [found[refused + n] for n in (1, 2, 3, 4, 6, 7)]


def test_paths_that_are_no_paths(place: Place) -> None:
    script = Script()
    for text in (b"\0", b"a\0b", b"\xff\xfe", b"", b"a" * 5000, b"x/" * 2000 + b"x", b"\n\x1b[31m"):
        script.add("path_open", SCRATCH, 1, script.blob(text), len(text), 0, 1, 1, 0, script.room(4))
    assert SUCCESS not in place.gives(script)


def test_bytes_of_scratch_are_counted_whatever_writes_them(place: Place) -> None:
    bounds = replace(BOUNDS, scratch=10_000)
    for way in ("fd_write", "fd_pwrite", "fd_allocate", "fd_filestat_set_size"):
        script = Script().open(SCRATCH, way, how=CREATE)
        fd = SCRATCH + 1
        pieces, ret = script.iovec((65536, 1500)), script.room(4)
        for n in range(10):
            if way == "fd_write":
                script.add(way, fd, pieces, 1, ret)
            elif way == "fd_pwrite":
                script.add(way, fd, pieces, 1, n * 1500, ret)
            elif way == "fd_allocate":
                script.add(way, fd, n * 1500, 1500)
            else:
                script.add(way, fd, 1500)
        report = place.run(script, bounds)
        found = results(report.output)[1:]
        if way == "fd_allocate" and found[0] != SUCCESS:  # not every system has it
            assert set(found) <= {58, NOSPC}
            continue
        assert found == [SUCCESS] * 6 + [NOSPC] * 4, way
        assert report.limits == ["scratch"]
        assert (place.scratch / way).stat().st_size <= 10_000


def test_what_is_asked_in_one_piece_is_counted_before_it_is_done(place: Place) -> None:
    script = Script().open(SCRATCH, "x", how=CREATE)
    fd = SCRATCH + 1
    ret = script.room(4)
    script.add("fd_write", fd, script.iovec(*[(0, 65536)] * 16), 16, ret)
    script.add("fd_write", fd, script.iovec((0, 0xFFFFFFFF), (0, 0xFFFFFFFF)), 2, ret)
    script.add("fd_filestat_set_size", fd, 2**63)
    script.add("fd_filestat_set_size", fd, -1)
    script.add("fd_allocate", fd, 0, 2**62)
    script.add("fd_allocate", fd, 0, -1)
    assert place.gives(script, replace(BOUNDS, scratch=100_000))[1:] == [NOSPC] * 6
    assert (place.scratch / "x").stat().st_size == 0


def test_a_sparse_file_is_no_larger_than_the_scratch(place: Place) -> None:
    script = Script().open(SCRATCH, "sparse", how=CREATE)
    fd, ret = SCRATCH + 1, script.room(8)
    one = script.iovec((script.blob(b"x"), 1))
    for at in (2**30, 2**40, 2**62, 20_000_000):
        script.add("fd_pwrite", fd, one, 1, at, ret)
        script.add("fd_seek", fd, at, 0, ret)
        script.add("fd_write", fd, one, 1, ret)
    found = place.gives(script, replace(BOUNDS, scratch=10_000_000, output=1000))[1:]
    assert SUCCESS not in found[0::3] + found[2::3]
    assert set(found[0::3]) <= {FBIG, 28, 61, NOSPC, 29}
    assert (place.scratch / "sparse").stat().st_size <= 10_000_001


def test_files_are_counted_whatever_makes_them(place: Place) -> None:
    bounds = replace(BOUNDS, scratch_files=6)
    ways = {
        "path_open": lambda s, n: s.open(SCRATCH, f"f{n}", how=CREATE).add("fd_close", SCRATCH + 1),
        "path_create_directory": lambda s, n: s.path("path_create_directory", SCRATCH, f"d{n}"),
        "path_link": lambda s, n: s.add("path_link", SCRATCH, 0, s.blob(b"one"), 3, SCRATCH, s.blob(b"l%d" % n), 2),
        "path_symlink": lambda s, n: s.add("path_symlink", s.blob(b"one"), 3, SCRATCH, s.blob(b"s%d" % n), 2),
    }
    (place.scratch / "one").write_bytes(b"")
    for way, make in ways.items():
        before = len(names(place.scratch))
        script = Script()
        for n in range(9):
            make(script, n)
        report = place.run(script, bounds)
        assert report.limits == ["scratch_files"], way
        assert len(names(place.scratch)) == before + 6
        assert results(report.output).count(NOSPC) == 3


def test_open_files_are_counted_through_closing_and_renumbering(place: Place) -> None:
    bounds = replace(BOUNDS, open_files=5)
    script = Script()
    for _ in range(7):
        script.open(IN, "file")
    report = place.run(script, bounds)
    assert results(report.output) == [SUCCESS] * 5 + [MFILE] * 2
    assert report.limits == ["open_files"]
    script = Script()
    for _ in range(5):
        script.open(IN, "file")
    script.add("fd_renumber", 9, 8).open(IN, "file").open(IN, "file")
    script.add("fd_close", 8).add("fd_close", 8).open(IN, "file").open(IN, "file")
    script.add("fd_renumber", 7, 7).open(IN, "file")
    assert place.gives(script, bounds)[5:] == [
        *(SUCCESS, SUCCESS, MFILE),
        *(SUCCESS, BADF, SUCCESS, MFILE),
        *(SUCCESS, MFILE),
    ]


def test_descriptors_do_not_run_out_in_the_worker(place: Place) -> None:
    """However many calls leave files open."""
    script = Script()
    for _ in range(32):
        script.open(IN, "file")
    for _ in range(20):
        assert set(place.gives(script)) == {SUCCESS}
    assert len(names(Path(f"/proc/{place.lab.worker().pid}/fd"))) < 40


def test_a_folder_that_is_deep_or_wide(place: Place) -> None:
    script = Script()
    depth = 150
    for n in range(1, depth + 1):
        script.path("path_create_directory", SCRATCH, "/".join("d" * n))
    assert set(place.gives(script)) == {SUCCESS}
    script = Script()
    room = script.room(4096)
    script.open(SCRATCH, "/".join("d" * depth), how=DIRECTORY)
    script.add("fd_readdir", SCRATCH + 1, room, 4096, 0, script.room(4))
    for cookie in (0, 1, 2**31, 2**32, 2**63 - 1, -1):
        for size in (0, 1, 23, 24, 25, 4096):
            script.add("fd_readdir", SCRATCH, room, size, cookie, script.room(4))
    script.add("fd_readdir", 99, room, 4096, 0, room)
    found = place.gives(script)
    assert set(found[:2]) == {SUCCESS}
    assert found[-1] == BADF
