"""Backups of a small state folder: what is in them, what is refused, and what a refusal leaves as it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute import wiring
from hanzo_compute.adapters.local import archive, backup, restore, schema
from hanzo_compute.config import Config
from hanzo_compute.errors import Conflict, InternalError, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model.function import FunctionSpec
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.services import functions
from hanzo_compute.services.submit import submit
from hanzo_compute_host import backups, running
from tests.support.cli import Hzc
from tests.support.packages import python_package
from tests.support.wasm import wat

INPUT = b"some input " * 100


def make_home(home: Path) -> tuple[str, str]:
    """A state folder with one job; returns the job and the blob that it needs."""
    (home / "db").mkdir(mode=0o700, parents=True)
    schema.open_for_writing(schema.path_of(home)).close()
    with wiring.offline(Config("local", home, "", home)) as (ctx, _):
        blob = ctx.blobs.put("acme", INPUT)
        other = ctx.blobs.put("b.c", b"of another tenant")
        assert other != blob
        spec = parse_spec({"source": {"code": "1", "language": "python"}, "input": {"blob": blob}})
        job = submit(ctx, "acme", spec, idempotency_key="k").job.id
    running.write_private(home / "credentials.json", json.dumps({"url": "http://127.0.0.1:1", "key": "hzk_x"}))
    return job, blob


def put_blob(home: Path, data: bytes) -> None:
    with wiring.offline(Config("local", home, "", home)) as (ctx, _):
        ctx.blobs.put("acme", data)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_home(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a backup."""
    folder = tmp_path_factory.mktemp("made")
    make_home(folder / "home")
    backups.backup(folder / "home", folder / "b.tar", force=False, say=str)
    return (folder / "b.tar").read_bytes()


def records_of(home: Path) -> list[Any]:
    with closing(sqlite3.connect(schema.path_of(home))) as db:
        return db.execute("SELECT * FROM records ORDER BY 1, 2").fetchall()


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sync", lambda: None)


def tree(folder: Path) -> dict[str, Any]:
    """Names, modes and contents below a folder, without the lock."""
    return {
        str(path.relative_to(folder)): (oct(path.lstat().st_mode), path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
        if "run" not in path.relative_to(folder).parts
    }


def test_a_backup_is_a_plain_tar_that_only_its_owner_can_read(home: Path, tmp_path: Path) -> None:
    (home / "log").mkdir()
    (home / "log" / "front-1.log").write_text("not in it")
    (home / "blobs" / "acme" / "ab").mkdir(exist_ok=True)
    (home / "blobs" / "acme" / "ab" / ".0123456789abcdef").write_text("an upload in progress")
    report = backups.backup(home, tmp_path / "b.tar", force=False, say=str)
    assert (report.jobs, report.blobs, report.lost) == (1, 2, [])
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "b.tar") as tar:
        names = tar.getnames()
        data = {name: tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]
    assert [name.split("/")[0] for name in names] == [
        *("backup.json", "credentials.json", "keys", "db", "blobs", "blobs", "digests.jsonl")
    ]
    listed = [json.loads(line) for line in data.pop("digests.jsonl").splitlines()]
    assert [(each["name"], each["size"], each["sha256"]) for each in listed] == [
        (name, len(content), hashlib.sha256(content).hexdigest()) for name, content in data.items()
    ]
    head = json.loads(data["backup.json"])
    assert (head["format"], head["schema"]) == (1, len(schema.MIGRATIONS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "home"]


def test_restored_is_what_was_backed_up(home: Path, tmp_path: Path) -> None:
    backups.backup(home, tmp_path / "b.tar", force=False, say=str)
    there = tmp_path / "deep" / "there"
    assert backups.restore(there, tmp_path / "b.tar", force=False, say=str).set_aside is None
    before, after = tree(home), tree(there)
    database = "db/hanzo.sqlite3"
    for name in (f"{database}-shm", f"{database}-wal", "db/made", "blobs/.new"):  # made anew at each start
        before.pop(name, None)
    assert before.pop(database)[0] == after.pop(database)[0] == oct(0o100600)
    assert after == before
    assert records_of(home) == records_of(there) != []
    assert [path.name for path in there.parent.iterdir()] == ["there"]


def test_a_backup_sees_one_moment_while_others_write(home: Path, tmp_path: Path) -> None:
    """Two records that change together are never seen apart, and the backup ends although they go on changing."""
    db = schema.open_for_writing(schema.path_of(home))
    for key in "ab":
        db.execute("INSERT INTO records VALUES (?, '-', 1, '0', NULL)", (key,))
    for number in range(3000):  # several steps of the copy
        db.execute("INSERT INTO records VALUES (?, '-', 1, ?, NULL)", (f"pad{number:05d}", "x" * 2000))
    steps = 0

    def meanwhile(text: str) -> None:
        nonlocal steps
        if text.startswith("copying"):
            steps += 1
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE records SET body = ? WHERE pk IN ('a', 'b')", (str(steps),))
            db.execute("COMMIT")

    backups.backup(home, tmp_path / "b.tar", force=False, say=meanwhile)
    db.close()
    assert steps > 1
    backups.restore(tmp_path / "there", tmp_path / "b.tar", force=False, say=str)
    copy = sqlite3.connect(schema.path_of(tmp_path / "there"))
    assert copy.execute("SELECT body FROM records WHERE pk IN ('a', 'b')").fetchall() == [("0",), ("0",)]
    copy.close()


def test_missing_and_damaged_blobs_are_named(home: Path, tmp_path: Path) -> None:
    (blob,) = (home / "blobs" / "acme").glob("*/b1-*")
    blob.write_bytes(b"other bytes")
    (home / "blobs" / "acme" / "ff").mkdir(exist_ok=True)
    (home / "blobs" / "acme" / "ff" / ("b1-ff" + "0" * 62)).symlink_to("/etc/passwd")
    hzc = Hzc({"HZC_HOME": str(home)})
    report = hzc.json("backup", str(tmp_path / "b.tar"), code=1)
    assert (report["lost"], report["lost_blobs"]) == (1, [str(blob.relative_to(home))])
    assert blob.name in hzc("backup", str(tmp_path / "c.tar"), code=1).stderr
    blob.unlink()
    assert hzc.json("backup", str(tmp_path / "b.tar"), "--force", code=1)["lost"] == 1
    backups.restore(tmp_path / "there", tmp_path / "b.tar", force=False, say=str)
    assert [path.read_bytes() for path in (tmp_path / "there").glob("blobs/*/*/*")] == [b"of another tenant"]


@pytest.mark.parametrize("kind", ["module", "package"])
def test_a_function_needs_its_module_or_package_and_counts_as_no_job(home: Path, tmp_path: Path, kind: str) -> None:
    data = wat('(module (func (export "_start")))') if kind == "module" else python_package()
    with wiring.offline(Config("local", home, "", home)) as (ctx, state):
        blob = ctx.blobs.put("acme", data)
        source = {kind: blob} if kind == "module" else {kind: blob, "language": "python"}
        functions.deploy(ctx, "acme", "f", FunctionSpec.model_validate({"source": source}))
        assert [(use.blob, use.user, use.needed) for use in state.blob_uses() if use.blob == blob] == [
            (blob, "function f@1", True)
        ]
    hzc = Hzc({"HZC_HOME": str(home)})
    report = hzc.json("backup", str(tmp_path / "a.tar"))
    assert (report["jobs"], report["lost"]) == (1, 0)
    path = home / "blobs" / "acme" / blob[3:5] / blob
    path.unlink()
    report = hzc.json("backup", str(tmp_path / "b.tar"), code=1)
    assert report["lost_blobs"] == [str(path.relative_to(home))]


def test_targets_that_are_refused(home: Path, tmp_path: Path) -> None:
    hzc = Hzc({"HZC_HOME": str(home)})
    assert "lies in the state folder" in hzc("backup", str(home / "b.tar"), code=2).stderr
    assert "lies in the state folder" in hzc("backup", str(home / "keys" / "b.tar"), code=2).stderr
    assert "is no folder" in hzc("backup", str(tmp_path / "no" / "b.tar"), code=2).stderr
    assert "is a folder" in hzc("backup", str(tmp_path), code=2).stderr
    (tmp_path / "b.tar").write_text("mine")
    assert "--force" in hzc("backup", str(tmp_path / "b.tar"), code=2).stderr
    assert (tmp_path / "b.tar").read_text() == "mine"
    hzc("backup", str(tmp_path / "b.tar"), "--force")
    assert (tmp_path / "b.tar").stat().st_size > 10_000
    empty = Hzc({"HZC_HOME": str(tmp_path / "empty")})
    assert "no platform's database" in empty("backup", str(tmp_path / "c.tar"), code=2).stderr
    assert not (tmp_path / "c.tar").exists()


def test_the_default_name_is_the_time(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Hzc({"HZC_HOME": str(home)})("backup")
    (made,) = tmp_path.glob("hanzo-20*Z.tar")
    assert made.stat().st_size > 10_000


def test_a_damaged_database_is_not_backed_up(home: Path, tmp_path: Path) -> None:
    path = schema.path_of(home)
    data = bytearray(path.read_bytes())
    data[4096:4104] = b"\xff" * 8  # the head of a table's first page
    path.write_bytes(data)
    with pytest.raises(InternalError, match="damaged"):
        backups.backup(home, tmp_path / "b.tar", force=False, say=str)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("blocks", [8, 120])
def test_a_disk_that_takes_no_more_leaves_nothing(blocks: int, home: Path, tmp_path: Path) -> None:
    """By the limit of a shell, in blocks of 1 KiB: for the copy of the database, or only for the backup itself."""
    (tmp_path / "there").mkdir()
    for number in range(10):
        put_blob(home, str(number).encode() * 10_000)
    command = f"ulimit -f {blocks}; exec {sys.executable} -m hanzo_compute_host.cli backup {tmp_path}/there/b.tar"
    env = {**os.environ, "HZC_HOME": str(home)}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "cannot hold it" in done.stderr) == (6, True), done.stderr
    assert list((tmp_path / "there").iterdir()) == []


def test_a_database_over_8_gib_has_a_place() -> None:
    large = archive.Member(archive.DATABASE, 9 << 30)
    info = tarfile.TarInfo.frombuf(archive._header(large, 1), "utf-8", "strict")
    assert (info.name, info.size, info.type) == (large.name, large.size, tarfile.REGTYPE)


def refused(home: Path, data: bytes, tmp_path: Path) -> str:
    """The message with which a restore refuses these bytes; nothing may have changed."""
    file = tmp_path / "bad.tar"
    file.write_bytes(data)
    before = tree(home)
    with pytest.raises(InvalidRequest) as caught:
        backups.restore(home, file, force=True, say=str)
    assert tree(home) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "home"]
    return caught.value.message


@pytest.mark.usefixtures("unsynced")
def test_every_flipped_byte_is_found(made: bytes, tmp_path: Path) -> None:
    """Of headers, padding, contents and the end: one in a few hundred bytes, all of the small members' ones."""
    scratch = tmp_path / "scratch"
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        edges = {member.offset for member in tar} | {member.offset_data for member in tar}
    places = {*range(0, len(made), 997), *(edge + step for edge in edges for step in (0, 1, 100, 130, 150, 156, 511))}
    places |= {len(made) - 1, len(made) - 1024}
    for place in sorted(place for place in places if place < len(made)):
        bad = bytearray(made)
        bad[place] ^= 0x5A
        scratch.mkdir()
        with pytest.raises(InvalidRequest):
            restore.unpack(io.BytesIO(bad), len(bad), scratch, str)
        shutil.rmtree(scratch)


@pytest.mark.usefixtures("unsynced")
def test_every_truncation_is_found(made: bytes, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    for size in [*range(0, len(made), 1511), len(made) - 1, len(made) - 512]:
        scratch.mkdir()
        with pytest.raises(InvalidRequest):
            restore.unpack(io.BytesIO(made[:size]), size, scratch, str)
        shutil.rmtree(scratch)
    scratch.mkdir()
    with pytest.raises(InvalidRequest, match="end"):
        restore.unpack(io.BytesIO(made + b"\0"), len(made) + 1, scratch, str)


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


EVIL: list[tuple[str, Callable[[], tarfile.TarInfo]]] = [
    ("leads out", lambda: member("/etc/cron.d/x")),
    ("leads out", lambda: member("blobs/../../x")),
    ("leads out", lambda: member("..")),
    ("is a link", lambda: member("keys/presign.key", tarfile.SYMTYPE, link="/etc/shadow")),
    ("is a link", lambda: member("keys/x", tarfile.LNKTYPE, link="credentials.json")),
    ("is a device", lambda: member("keys/x", tarfile.CHRTYPE)),
    ("is a device", lambda: member("keys/x", tarfile.FIFOTYPE)),
    ("no plain file", lambda: member("keys", tarfile.DIRTYPE)),
    ("no plain file", lambda: member("keys/x", tarfile.XHDTYPE)),
    ("no plain file", lambda: member("keys/x", tarfile.GNUTYPE_LONGNAME)),
    ("no place", lambda: member("run/lock")),
    ("no place", lambda: member("keys/.hidden")),
    ("no place", lambda: member("blobs/a/00/b1-" + "11" * 32)),
    ("no place", lambda: member("blobs/.a/11/b1-" + "11" * 32)),
    ("bytes", lambda: member("keys/x", size=1 << 30)),
    ("not one of a backup", lambda: member("keys/y")),
    ("twice", lambda: member("backup.json")),
]


@pytest.mark.parametrize(("says", "evil"), EVIL)
def test_evil_members_are_refused(says: str, evil: Callable[[], tarfile.TarInfo], made: bytes, tmp_path: Path) -> None:
    make_home(tmp_path / "home")
    info = evil()
    if says == "twice":
        info = tarfile.TarInfo.frombuf(made[:512], "utf-8", "strict")
    head = made[:1024]  # backup.json
    data = head + info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)
    assert says in refused(tmp_path / "home", data, tmp_path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no backup"),
        (b"x" * 4096, "no backup"),
        (bytes(4096), "no backup"),
        (b"\x1f\x8b" + bytes(600), "no backup"),
    ],
)
def test_what_is_no_backup(data: bytes, says: str, home: Path, tmp_path: Path) -> None:
    assert says in refused(home, data, tmp_path)


def test_another_tar_is_no_backup(home: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(home / "credentials.json", "credentials.json")
    assert "no backup" in refused(home, buffer.getvalue(), tmp_path)


@pytest.mark.parametrize(("field", "says"), [("schema", "schema version 99"), ("format", "format 99")])
def test_newer_backups_are_refused(
    field: str, says: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = archive.BackupHead
    monkeypatch.setattr(
        backup, "BackupHead", lambda *given: made(*given, format=99) if field == "format" else made(99, *given[1:])
    )
    backups.backup(home, tmp_path / "b.tar", force=False, say=str)
    data = (tmp_path / "b.tar").read_bytes()
    (tmp_path / "b.tar").unlink()
    assert says in refused(home, data, tmp_path)


def test_a_database_that_is_not_one_is_refused(home: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    writer = archive.Writer(buffer, archive.BackupHead(len(schema.MIGRATIONS), "0", "then", 1), tmp_path)
    writer.add(archive.DATABASE, b"no database" * 1000)
    writer.finish()
    assert "damaged" in refused(home, buffer.getvalue(), tmp_path)


def test_restore_refuses_what_holds_something(home: Path, made: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(made)
    with pytest.raises(Conflict, match="holds a platform's state"):
        backups.restore(home, tmp_path / "b.tar", force=False, say=str)
    before = tree(home)
    aside = backups.restore(home, tmp_path / "b.tar", force=True, say=str).set_aside
    assert aside is not None
    assert tree(aside) == before
    assert tree(home) != before
    with pytest.raises(NotFound):
        backups.restore(home, tmp_path / "no.tar", force=True, say=str)


def test_restore_refuses_where_a_platform_runs(home: Path, made: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(made)
    hzc = Hzc({"HZC_HOME": str(home)})
    with running.claim(home):
        assert "hzc down" in hzc("restore", str(tmp_path / "b.tar"), "--force", code=2).stderr
        assert "hzc down" in hzc("doctor", "--repair", code=2).stderr
        assert hzc.json("backup", str(tmp_path / "c.tar"))["jobs"] == 1
    with running.hold(home, "hzc restore"):
        assert "a command works on" in hzc("restore", str(tmp_path / "b.tar"), "--force", code=2).stderr
        assert "was not running" in hzc("down").stderr
    assert "restored" in hzc("restore", str(tmp_path / "b.tar"), "--force").stderr


def test_leftovers_of_killed_commands_go_and_nothing_else_does(home: Path, made: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(made)
    names = (
        "home.restoring-x",
        "home.before-restore-x",
        "home.before-restore-kept",
        ".hzc-backup-x",
        "home.restoring-y",
    )
    for name in names:
        (tmp_path / name).mkdir()
        if name != "home.before-restore-kept":
            (tmp_path / name / backups.MARK).touch()
    for name in names[:4]:
        if (tmp_path / name / backups.MARK).exists():
            os.utime(tmp_path / name / backups.MARK, (1, 1))
    backups.restore(home, tmp_path / "b.tar", force=True, say=str)
    left = {path.name for path in tmp_path.iterdir() if "20" not in path.name}
    assert left == {"b.tar", "home", "home.before-restore-kept", "home.restoring-y", ".hzc-backup-x"}


def test_a_state_folder_on_a_mount_point_says_so(
    home: Path, made: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(one: Path, other: Path) -> None:
        raise OSError(16, "Device or resource busy")

    (tmp_path / "b.tar").write_bytes(made)
    monkeypatch.setattr(backups, "_exchange", busy)
    before = tree(home)
    with pytest.raises(Unavailable, match="busy"):
        backups.restore(home, tmp_path / "b.tar", force=True, say=str)
    assert tree(home) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "home"]


@pytest.fixture(autouse=True)
def private() -> Iterator[None]:
    """As a supervisor runs: what is made is for its owner only."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def no_files_stay_open() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
