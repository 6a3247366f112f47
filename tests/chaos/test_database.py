"""A database that is not what it should be: said at the start, what and why and what to do; and never written to."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from hanzo_compute.adapters.local import integrity, schema
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.store import SqliteStore
from hanzo_compute.adapters.local.writer import EXIT_DAMAGED, EXIT_DISK, EXIT_NEWER, EXIT_REFUSED
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Put
from tests.support.engines import need_root
from tests.support.live import Platform, until
from tests.support.load import Load, account
from tests.support.writer import COMMAND, WriterProcess

pytestmark = [pytest.mark.slow]

PAGE = 4096


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a writer that was killed: some of what it holds is in the database, some in the log."""
    home = tmp_path_factory.mktemp("used")
    with WriterProcess(home) as writer:
        fill(home, 40)
        assert writer.stop() == 0
        writer.start()
        fill(home, 3)
        writer.kill()
    shutil.rmtree(home / "run")
    assert integrity.log_of(schema.path_of(home)).stat().st_size > PAGE
    return home


def fill(home: Path, count: int) -> None:
    client = WriterClient(home)
    store = SqliteStore(client)
    for number in range(count):
        store.transact([Put(Key("p", f"{number:04}"), {"x": os.urandom(10_000).hex()})])
    ticket = client.take()
    if ticket is not None:
        client.wait(ticket)
    store.close()
    client.close()


@pytest.fixture
def home(used: Path, tmp_path: Path) -> Path:
    shutil.copytree(used, tmp_path / "home")
    return tmp_path / "home"


@dataclass(frozen=True)
class Case:
    """What happens to the files, and what the writer says to it."""

    harm: Callable[[Path], object]
    code: int
    says: str
    told: str = "hzc restore FILE"


def cut(size: Callable[[int], int]) -> Callable[[Path], object]:
    return lambda path: os.truncate(path, size(path.stat().st_size))


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def header_overwritten(path: Path) -> None:
    """With no log beside it: that of this folder has the first page, too."""
    integrity.log_of(path).unlink()
    overwrite(path, 0, b"\0" * 100)


def replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def of_another_program(path: Path, version: int) -> None:
    for each in path.parent.iterdir():
        each.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE photos (x)")
    db.execute(f"PRAGMA user_version = {version}")
    db.close()


def newer(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()


log_of = integrity.log_of
CASES = {
    "empty": Case(cut(lambda size: 0), EXIT_DAMAGED, "is empty"),
    "gone": Case(lambda path: path.unlink(), EXIT_DAMAGED, "is gone"),
    "cut in the header": Case(cut(lambda size: 50), EXIT_DAMAGED, "damaged|cut off"),
    "cut after the header": Case(cut(lambda size: 100), EXIT_DAMAGED, "damaged|cut off"),
    "cut at the first page": Case(cut(lambda size: PAGE), EXIT_DAMAGED, "cut off"),
    "cut at half": Case(cut(lambda size: size // 2), EXIT_DAMAGED, "cut off"),
    "cut at a page": Case(cut(lambda size: size - 20 * PAGE), EXIT_DAMAGED, "cut off"),
    "cut by a byte": Case(cut(lambda size: size - 1), EXIT_DAMAGED, "cut off"),
    "no database": Case(lambda path: path.write_bytes(b"hello" * 5000), EXIT_DAMAGED, "not a database|cut off"),
    "header overwritten": Case(header_overwritten, EXIT_DAMAGED, "not a database"),
    "folder": Case(replaced_by_folder, EXIT_DAMAGED, "is not a file"),
    "another program": Case(lambda path: of_another_program(path, 0), EXIT_DAMAGED, "another program", "move it away"),
    "another program's version": Case(
        lambda path: of_another_program(path, 1), EXIT_DAMAGED, "another program", "move it away"
    ),
    "newer": Case(newer, EXIT_NEWER, "schema version 99", "install a newer one"),
    "log overwritten": Case(lambda path: log_of(path).write_bytes(b"log" * 9000), EXIT_DAMAGED, "wal is damaged"),
    "log cut in its head": Case(lambda path: os.truncate(log_of(path), 20), EXIT_DAMAGED, "cut off in its head"),
    "log is a folder": Case(lambda path: replaced_by_folder(log_of(path)), EXIT_DAMAGED, "is not a file"),
    "wrong owner": Case(lambda path: os.chown(path, 12345, 12345), EXIT_REFUSED, "belongs to uid 12345", "chown"),
}


def snapshot(home: Path) -> dict[str, bytes | None]:
    """The database and its log; what is beside them SQLite may make anew."""
    path = schema.path_of(home)
    return {each.name: each.read_bytes() if each.is_file() else None for each in (path, log_of(path)) if each.exists()}


def run(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, str(home)], capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("name", CASES)
def test_the_writer_refuses_and_says_what_to_do(home: Path, name: str) -> None:
    if name == "wrong owner":
        need_root()
    case = CASES[name]
    case.harm(schema.path_of(home))
    before = snapshot(home)
    for _ in range(2):  # it changes nothing, so that it says the same again
        refused = run(home)
        assert refused.returncode == case.code, refused.stderr
        assert re.search(case.says, refused.stderr), refused.stderr
        assert case.told in refused.stderr
        assert "Traceback" not in refused.stderr
        after = snapshot(home)
        assert {each: after[each] for each in before} == before


def test_a_log_that_is_cut_off_gives_what_is_whole(home: Path) -> None:
    """As after a power cut, or worse: nobody can tell. What it gives is a prefix of what was written."""
    log = log_of(schema.path_of(home))
    os.truncate(log, log.stat().st_size - 100)
    with WriterProcess(home):
        pass
    db = sqlite3.connect(schema.path_of(home))
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert 40 <= len(db.execute("SELECT sk FROM records").fetchall()) <= 43
    db.close()


def test_an_empty_folder_is_a_beginning(home: Path) -> None:
    shutil.move(schema.path_of(home).parent, home / "away")
    with WriterProcess(home) as writer:
        assert writer.stop() == 0


def test_damage_found_while_it_runs_stops_the_writer_until_it_is_gone(home: Path) -> None:
    path = schema.path_of(home)
    whole = home / "whole"
    with WriterProcess(home) as writer:
        assert writer.stop() == 0
        shutil.copyfile(path, whole)
        writer.start()
        overwrite(path, 2 * PAGE, os.urandom(path.stat().st_size - 2 * PAGE))
        client = WriterClient(home, connect_wait_s=0.1)
        store = SqliteStore(client)
        with pytest.raises(Unavailable) as told:
            store.get(Key("p", "0001"))
        assert "cannot be read" in told.value.message
        assert "damaged" in str(told.value.hint)
        with pytest.raises(Unavailable):
            store.query("p")
        with pytest.raises(Unavailable):
            [store.get(Key("p", f"{number:04}"), fresh=True) for number in range(40)]
        until(lambda: writer.ended is not None, 120, "the writer ends")
        assert writer.ended == EXIT_DISK
        assert "is damaged" in writer.log
        assert "hzc restore FILE" in writer.log
        store.close()
        client.close()
    before = snapshot(home)
    refused = run(home)
    assert (refused.returncode, "hzc restore FILE" in refused.stderr) == (EXIT_DAMAGED, True)
    assert snapshot(home)[path.name] == before[path.name]
    shutil.copyfile(whole, path)  # what a restore does
    log_of(path).unlink(missing_ok=True)
    with WriterProcess(home) as writer:
        assert writer.stop() == 0
    assert not path.with_name(integrity.DAMAGED).exists()


@pytest.mark.parametrize("name", ["cut at half", "empty", "newer", "folder", "wrong owner"])
def test_the_platform_does_not_start_and_says_why(home: Path, name: str) -> None:
    if name == "wrong owner":
        need_root()
    case = CASES[name]
    case.harm(schema.path_of(home))
    before = snapshot(home)
    code, said = Platform(home).fails_to_start()
    assert code == (2 if name == "newer" else 6)
    assert re.search(case.says, said), said
    assert case.told in said
    assert "Traceback" not in said
    assert before.items() <= snapshot(home).items()
    assert (home / "log" / "writer.log").stat().st_size < 2_000


@pytest.mark.timeout(900)
def test_a_platform_whose_database_is_damaged_while_it_runs(tmp_path: Path) -> None:
    """It says so, does not flood its logs, writes no more to the file, and starts again once that is restored."""
    with Platform(tmp_path / "home") as platform:
        path = schema.path_of(platform.home)
        load = Load(platform, "load")
        load.more(10)
        load.end()
        account(load.client, [load], platform.home)
        assert platform.stop() == 0
        whole = tmp_path / "whole"
        shutil.copyfile(path, whole)
        platform.start()
        overwrite(path, PAGE, os.urandom(path.stat().st_size - PAGE))

        def found() -> bool:
            with suppress(Unavailable):  # whoever comes to a damaged page finds it
                load.client.submit(load.spec("more"))
            return path.with_name(integrity.DAMAGED).exists()

        until(found, 120, "the damage is found")
        until(lambda: "is damaged" in platform.log.read_text(), 120, "it is said")
        damaged = path.read_bytes()
        with pytest.raises(Unavailable) as told:
            load.client.list_jobs(limit=1)
        assert told.value.hint
        time.sleep(5)  # several restarts of the writer, none of which may write or flood a log
        assert path.read_bytes() == damaged
        assert platform.log.stat().st_size < 10_000
        assert (platform.home / "log" / "writer.log").stat().st_size < 10_000
        platform.stop()
        shutil.copyfile(whole, path)  # what a restore does
        log_of(path).unlink(missing_ok=True)
        platform.start()
        again = Load(platform, "again")
        again.more(5)
        again.end()
        account(again.client, [load, again], platform.home)


def test_readers_hold_nothing_between_two_reads(tmp_path: Path) -> None:
    """A reading connection inside a transaction would keep the log from being begun anew, and it would grow."""
    with WriterProcess(tmp_path):
        fill(tmp_path, 60)
        client = WriterClient(tmp_path)
        store = SqliteStore(client)
        assert len(store.query("p", limit=3)) == 3
        assert len(store.query("p", limit=1000)) == 60  # more than one page of the writer's answers
        assert store.get(Key("p", "0000")) is not None
        assert store.query_index("due", "x") == []
        db = sqlite3.connect(schema.path_of(tmp_path))
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        db.close()
        assert busy == 0
        store.close()
        client.close()


def test_the_log_stays_bounded_and_shrinks_when_a_reader_lets_go(tmp_path: Path) -> None:
    log = log_of(schema.path_of(tmp_path))
    with WriterProcess(tmp_path) as writer:
        fill(tmp_path, 1)
        reader = sqlite3.connect(f"file:{schema.path_of(tmp_path)}?mode=ro", uri=True, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM records").fetchone()
        for _ in range(25):
            fill(tmp_path, 150)
        assert log.stat().st_size > schema.WAL_BYTES_MAX  # the reader still sees what it saw
        assert "a reader holds it" in writer.log
        assert writer.log.count("a reader holds it") < 5
        reader.execute("COMMIT")
        reader.close()
        for _ in range(6):
            fill(tmp_path, 150)
        assert log.stat().st_size <= schema.WAL_BYTES_MAX
