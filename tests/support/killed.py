"""Runs a command over and over, killed at each of its steps: ``python -m tests.support.killed NAME FOLDER``.

A process of its own without threads, so that it can fork a child for each try. Prints how many steps were tried.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from hanzo_compute import wiring
from hanzo_compute.adapters.local import offline, schema
from hanzo_compute.config import Config
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.services.submit import submit
from hanzo_compute_host import backups
from hanzo_compute_host.repair import repair

STEPS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.scandir", "os.truncate"}
SOURCE = {"code": "1", "language": "python"}


def make_home(home: Path, jobs: int) -> None:
    """A state folder with some jobs and blobs."""
    (home / "db").mkdir(mode=0o700, parents=True)
    schema.open_for_writing(schema.path_of(home)).close()
    with wiring.offline(Config("local", home, "", home)) as (ctx, _):
        for number in range(jobs):
            blob = ctx.blobs.put("acme", f"{home.name} {number}".encode())
            submit(ctx, "acme", parse_spec({"source": SOURCE, "input": {"blob": blob}}), idempotency_key=str(number))


def killed_at(step: int, action: Callable[[], object], count: Callable[[Callable[[], None]], None]) -> bool:
    """Run ``action`` in a child that is killed at its step of this number; False when it ended before."""
    child = os.fork()
    if child == 0:
        left = step

        def tick() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            count(tick)
            action()
            os._exit(0)
        except BaseException as error:
            print(f"step {step}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), f"step {step}: exit code {status}"
    return status != 0


def file_steps(tick: Callable[[], None]) -> None:
    """Count what the interpreter does with files."""
    sys.addaudithook(lambda event, _arguments: tick() if event in STEPS else None)


def statements(tick: Callable[[], None]) -> None:
    """Count the statements of the connection that writes."""
    opened = schema.open_for_writing

    def open_for_writing(path: Path) -> sqlite3.Connection:
        db = opened(path)
        db.set_trace_callback(lambda _: tick())
        return db

    offline.schema.open_for_writing = open_for_writing


def contents(home: Path) -> dict[str, bytes]:
    """What lies in a state folder, but for locks and for what SQLite makes beside its file."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted(home.rglob("*"))
        if path.is_file()
        and path.relative_to(home).parts[0] != "run"
        and path.name != backups.MARK
        and path.suffix not in (".sqlite3-wal", ".sqlite3-shm")
    }


def backup(folder: Path) -> int:
    """A backup has its name when it is whole, or is not there."""
    home, there = folder / "home", folder / "there"
    make_home(home, 3)
    step = whole = 0
    while True:
        step += 1
        there.mkdir()
        killed = killed_at(step, lambda: backups.backup(home, there / "b.tar", force=False, say=str), file_steps)
        if (there / "b.tar").exists():
            whole += 1
            backups.restore(folder / "check", there / "b.tar", force=True, say=str)
        for left in there.iterdir():
            os.utime(left / backups.MARK, (1, 1)) if (left / backups.MARK).exists() else None
        backups.backup(home, there / "c.tar", force=False, say=str)
        names = {path.name for path in there.iterdir() if (path / backups.MARK).exists()}
        assert not names, f"step {step}: {names} are left"
        shutil.rmtree(there)
        if not killed:
            assert whole >= 1
            return step


def restore(folder: Path) -> int:
    """The state folder is the old one or the new one, and the old one is never lost."""
    make_home(folder / "one", 2)
    make_home(folder / "two", 3)
    backups.backup(folder / "two", folder / "b.tar", force=False, say=str)
    os.sync = lambda: None  # nobody pulls the plug here
    backups.restore(folder / "three", folder / "b.tar", force=False, say=str)
    old, new = contents(folder / "one"), contents(folder / "three")
    step = 0
    seen = set()
    place = folder / "place"
    while True:
        step += 1
        place.mkdir()
        shutil.copytree(folder / "one", place / "home")
        killed = killed_at(
            step, lambda: backups.restore(place / "home", folder / "b.tar", force=True, say=str), file_steps
        )
        found = contents(place / "home")
        assert found in (old, new), f"step {step}: neither old nor new: {found.keys()}"
        seen.add(found == old)
        if found == new:
            kept = [path for path in place.glob("home.before-restore-*") if contents(path) == old]
            assert kept, f"step {step}: the old state is gone"
            assert not any((path / backups.MARK).exists() for path in kept)
        again = backups.restore(place / "home", folder / "b.tar", force=True, say=str)
        assert again.set_aside is not None
        assert contents(place / "home") == new
        shutil.rmtree(place)
        if not killed:
            assert seen == {True, False}
            return step


def mend(folder: Path) -> int:
    """A repair that is cut short leaves nothing that the next one does not cure."""
    make_home(folder / "broken", 3)
    with closing(sqlite3.connect(schema.path_of(folder / "broken"))) as db, db:
        db.execute("DELETE FROM entries WHERE name = 'due'")
        db.execute("INSERT INTO entries VALUES ('due', 'DUE#1', '1#x', 'JOB#x', 'META')")
        db.execute("DELETE FROM records WHERE sk = 'SPEC' AND pk = (SELECT min(pk) FROM records WHERE sk = 'SPEC')")
        db.execute("INSERT INTO records VALUES ('LOG#x', '1#1', 1, '{}', NULL)")
        db.execute("INSERT INTO messages (id, queue, body, sent_ms, visible_ms) VALUES ('m', 'dispatch', '?', 0, 0)")
        last = "(SELECT max(pk) FROM records WHERE pk LIKE 'JOB#%')"
        db.execute(f"UPDATE records SET body = json_set(body, '$.due_ms', NULL) WHERE sk = 'META' AND pk = {last}")
    step = 0
    while True:
        step += 1
        shutil.copytree(folder / "broken", folder / "home")
        killed = killed_at(step, lambda: list(repair(folder / "home", str, digests=True)), statements)
        found = list(repair(folder / "home", str, digests=True))
        assert all(each.repaired for each in found), f"step {step}: {found}"
        again = list(repair(folder / "home", str, digests=True))
        assert again == [], f"step {step}: {again}"
        assert killed or found == []
        shutil.rmtree(folder / "home")
        if not killed:
            return step


ACTIONS: dict[str, Any] = {"backup": backup, "restore": restore, "repair": mend}

if __name__ == "__main__":
    os.umask(0o077)
    print(ACTIONS[sys.argv[1]](Path(sys.argv[2])))
