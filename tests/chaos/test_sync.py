"""A disk that does not confirm what it was given: nothing called durable is lost, nothing lost was called durable."""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.local import integrity, schema
from hanzo_compute.adapters.local.writer import EXIT_DISK, EXIT_REFUSED
from tests.support.engines import need_strace
from tests.support.hostile import Failing
from tests.support.live import until
from tests.support.writer import COMMAND, Load, WriterProcess

pytestmark = [pytest.mark.kill, pytest.mark.slow]

SYNCS = "fdatasync,fsync"


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[WriterProcess]:
    with WriterProcess(tmp_path) as process:
        yield process


@pytest.fixture
def loads(writer: WriterProcess) -> Iterator[list[Load]]:
    """Two clients that write pairs of records until the test ends."""
    made = [Load(writer.home, f"load{number}") for number in range(2)]
    for each in made:
        each.start()
    yield made
    end(made)


def end(loads: list[Load]) -> None:
    for each in loads:
        each.ended.set()
    for each in loads:
        each.join(120)
        assert not each.is_alive()


def more(loads: list[Load], count: int) -> None:
    """Wait until so many more writes were called durable."""
    enough = sum(len(each.durable) for each in loads) + count
    until(lambda: sum(len(each.durable) for each in loads) >= enough, 120, f"{count} more durable writes")


def check(database: Path, loads: list[Load], *, least: dict[str, int] | None = None) -> None:
    """What was called durable is there, and every pair is whole. ``least``: how many of each load are looked for."""
    db = sqlite3.connect(database)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for each in loads:
            halves = [
                {int(sk) for (sk,) in db.execute("SELECT sk FROM records WHERE pk = ?", (f"{each.name}/{half}",))}
                for half in "ab"
            ]
            assert halves[0] == halves[1]
            durable = each.durable if least is None else each.durable[: least[each.name]]
            assert set(durable) <= halves[0]
            assert halves[0] <= set(range(1, each.tried + 1))
    finally:
        db.close()


@pytest.mark.parametrize("when", ["3", "2..4"])
def test_a_sync_that_fails_and_comes_back(writer: WriterProcess, loads: list[Load], tmp_path: Path, when: str) -> None:
    more(loads, 20)
    trace = f"{SYNCS},pwrite64,ftruncate"
    failing = (f"fdatasync:error=EIO:when={when}", f"fsync:error=EIO:when={when}")
    with Failing(writer.pid, tmp_path / "trace", *failing, trace=trace) as strace:
        until(lambda: strace.injected, 120, "a sync fails")
        end_of_writer = _revived(writer, loads)
        seen = strace.seen
    end(loads)
    assert _distrusted(seen, writer.home) or end_of_writer, seen
    assert writer.kill() == -signal.SIGKILL
    writer.start()
    check(schema.path_of(writer.home), loads)
    assert "did not confirm" in writer.log or "does not confirm" in writer.log


def _revived(writer: WriterProcess, loads: list[Load]) -> bool:
    """Wait until writes succeed again; as the supervisor does, start the writer if it gave up. True: it had."""
    gave_up = False
    before = sum(len(each.durable) for each in loads)
    deadline = time.monotonic() + 120
    while sum(len(each.durable) for each in loads) < before + 20:
        assert time.monotonic() < deadline
        if writer.ended == EXIT_DISK:
            gave_up = True
            writer.start()
        time.sleep(0.01)
    return gave_up


def _distrusted(seen: list[str], home: Path) -> bool:
    """After the sync that failed nothing was added to the log before all of it was in the database, and synced."""
    log, database = str(integrity.log_of(schema.path_of(home))), f"{schema.path_of(home)}>"
    first = next(number for number, line in enumerate(seen) if "(INJECTED)" in line)
    synced = False
    for line in seen[first + 1 :]:
        call = re.sub(r"^\d+ +", "", line)
        if "(INJECTED)" in call:
            synced = False
        elif call.startswith(("fdatasync", "fsync")) and database in call and call.endswith("= 0"):
            synced = True
        elif call.startswith("ftruncate") and log in call and ", 0)" in call:
            return synced
        elif call.startswith("pwrite64") and log in call:
            return False
    return False


def test_a_kill_at_the_sync_that_failed(writer: WriterProcess, loads: list[Load], tmp_path: Path) -> None:
    """The kernel holds pages for written that are not: what a new writer reads of them it must write once more."""
    more(loads, 20)
    fatal = [f"{call}:error=EIO:signal=SIGKILL:when=4" for call in SYNCS.split(",")]
    with Failing(writer.pid, tmp_path / "trace", *fatal, trace=SYNCS):
        until(lambda: writer.ended is not None, 120, "it is killed")
    durable = {each.name: len(each.durable) for each in loads}
    for each in loads:
        each.ended.set()
    writer.start()
    # The log may vanish now: all that was ever called durable is in the database itself.
    alone = tmp_path / "alone.sqlite3"
    shutil.copyfile(schema.path_of(writer.home), alone)
    check(alone, loads, least=durable)


def test_the_database_does_not_sync_while_the_log_does(
    writer: WriterProcess, loads: list[Load], tmp_path: Path
) -> None:
    """Checkpoints fail, again and again: the log keeps everything until they do not."""
    failing = [f"{call}:error=EIO:when=1+" for call in SYNCS.split(",")]
    database = schema.path_of(writer.home)
    with Failing(writer.pid, tmp_path / "trace", *failing, trace=SYNCS, path=database) as strace:
        until(lambda: strace.injected > 2, 120, "checkpoints fail")
        more(loads, 50)
    more(loads, 50)
    end(loads)
    assert writer.kill() == -signal.SIGKILL
    writer.start()
    check(database, loads)


def test_a_disk_that_never_confirms_is_refused_at_the_start(tmp_path: Path) -> None:
    need_strace()
    with WriterProcess(tmp_path) as process:
        load = Load(tmp_path, "load")
        load.start()
        more([load], 50)
        end([load])
        process.kill()
    inject = [word for call in SYNCS.split(",") for word in ("-e", f"inject={call}:error=EIO")]
    refused = subprocess.run(
        ["strace", "-f", "-q", "-o", "/dev/null", "-e", f"trace={SYNCS}", *inject, *COMMAND, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert refused.returncode == EXIT_REFUSED, refused.stderr
    assert "disk I/O error" in refused.stderr
    assert "failing" in refused.stderr
    with WriterProcess(tmp_path):
        check(schema.path_of(tmp_path), [load])
