"""A database that an earlier release has filled is taken over by this one: whole, and at any moment of the way."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from hanzo_compute.adapters.local import schema
from hanzo_compute.adapters.local.writer import EXIT_REFUSED
from tests.support import invariants, upgrades
from tests.support.live import Platform, pages, until

DATA = Path(next(iter(upgrades.__path__)))
VERSIONS = range(1, len(schema.MIGRATIONS) + 1)
ENDED = {
    "succeeded": "succeeded",
    "failed": "failed",
    "timed_out": "timed_out",
    "cancelled": "cancelled",
    "dead": "dead",
    "expired": "expired",
    "not_closed": "succeeded",
}
"""What had ended, by label, and how. What had not is run by this release."""
ENDS_NOW = {"retrying", "running", "placed", "queued", "outbox_0", "outbox_1", "outbox_2"}


def old_database(home: Path, version: int) -> str:
    """The database of a release of this schema version, with data of its time or of the one before; the owner's key."""
    given = max(int(path.stem[1:]) for path in DATA.glob("v*.sql") if int(path.stem[1:]) <= version)
    text = (DATA / f"v{given}.sql").read_text()
    path = schema.path_of(home)
    path.parent.mkdir(mode=0o700, parents=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for number in range(1, version + 1):
            for statement in schema.MIGRATIONS[number - 1]:
                db.execute(statement)
            if number == given:
                db.executescript(text)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA user_version = {version}")
    return text.split("-- The owner's key: ")[1].split("\n")[0]


def dump(path: Path) -> tuple[int, list[str]]:
    """Schema version and contents."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0], list(db.iterdump())


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_everything_that_an_earlier_release_had_comes_to_its_end(tmp_path: Path, version: int) -> None:
    home = tmp_path / "home"
    key = old_database(home, version)
    (home / "credentials.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "key": key}))
    home.chmod(0o700)
    with Platform(home) as platform:
        client = platform.client()
        assert platform.key == key
        until(lambda: not invariants.unfinished(client), 120, f"all ends: {invariants.unfinished(client)}")
        jobs = {str(job["labels"]["was"]): job for job in pages(client)}  # type: ignore[index]
        expected = ENDED | dict.fromkeys(ENDS_NOW, "succeeded") | {"cancel_requested": "cancelled"}
        assert {was: job["state"] for was, job in jobs.items()} == expected
        for was in ("succeeded", "failed", "timed_out", "not_closed"):
            assert client.output(str(jobs[was]["id"])) == b"old"
            assert [item["text"] for item in client.logs(str(jobs[was]["id"])).items] == [f"{was}\n"]
        for was in ENDS_NOW:
            assert client.output(str(jobs[was]["id"])) == f"{was}\n".encode()
        # What was repeated then can be repeated now.
        spec = {"source": {"code": "print('queued')", "language": "python"}, "labels": {"was": "queued"}}
        again = client.submit(spec, idempotency_key="key-queued")
        assert (again.job["id"], again.replayed) == (jobs["queued"]["id"], True)
        redriven = client.redrive(str(jobs["dead"]["id"]))["id"]
        assert client.wait(redriven, timeout_s=200)["state"] == "succeeded"
        accepted = [*(str(job["id"]) for job in jobs.values()), redriven]
        until(lambda: not invariants.wrong_at_rest(home), 120, f"{invariants.wrong_at_rest(home)}")
        assert invariants.wrong_jobs(home, accepted) == []
        assert platform.stop() == 0
    assert dump(schema.path_of(home))[0] == len(schema.MIGRATIONS)


LATER = (
    "CREATE TABLE later AS SELECT pk, sk, body FROM records",
    "ALTER TABLE records ADD COLUMN later INTEGER NOT NULL DEFAULT 7",
    "UPDATE records SET later = rev + 7",
    "CREATE INDEX records_later ON records (later)",
)
"""A migration such as a later release may bring."""

OPEN = """
import os, resource, signal, sqlite3, sys
from pathlib import Path
from hanzo_compute.adapters.local import schema, writer
schema.MIGRATIONS = (*schema.MIGRATIONS, tuple(sys.argv[2].split(";")))
calls, fatal = 0, int(sys.argv[3])

class Connection(sqlite3.Connection):
    def execute(self, *args):
        global calls
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*args)

connect = sqlite3.connect
sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Connection, **kwargs)
if int(sys.argv[4]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), resource.RLIM_INFINITY))
writer._serve = lambda *_: print(calls)
sys.exit(writer.main(["--home", sys.argv[1]]))
"""


def open_by_a_later_release(
    home: Path, *, statements: tuple[str, ...] = LATER, fatal_call: int = 0, file_max: int = 0
) -> subprocess.CompletedProcess[str]:
    """Let a release with one more migration open it; the process dies before the given call of SQLite."""
    command = [sys.executable, "-c", OPEN, str(home), ";".join(statements), str(fatal_call), str(file_max)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@contextmanager
def kept(home: Path) -> Iterator[None]:
    """The old release's data is whole, where it was or as a copy beside it, and the old release can use it."""
    path, version = schema.path_of(home), len(schema.MIGRATIONS)
    schema.open_for_writing(path).close()
    before = dump(path)
    yield
    found = dump(path)
    if found[0] == version:
        schema.open_for_writing(path).close()
        assert dump(path) == before
        return
    assert found[0] == version + 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM records WHERE later != rev + 7").fetchone() == (0,)
        assert (
            db.execute("SELECT count(*) FROM later").fetchone() == db.execute("SELECT count(*) FROM records").fetchone()
        )
    copy = schema.copy_of(path, version)
    assert dump(copy) == before
    with pytest.raises(schema.NewerSchema):
        schema.open_for_writing(path)
    copy.replace(path)
    schema.open_for_writing(path).close()


def test_a_migration_keeps_a_copy_for_the_release_before(tmp_path: Path) -> None:
    old_database(tmp_path, VERSIONS[-1])
    with kept(tmp_path):
        assert open_by_a_later_release(tmp_path).returncode == 0
        assert dump(schema.path_of(tmp_path))[0] == len(schema.MIGRATIONS) + 1


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_kill_at_any_moment_of_a_migration_leaves_one_version_or_the_other(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    old_database(whole, VERSIONS[-1])
    calls = int(open_by_a_later_release(whole).stdout)
    assert calls > len(LATER) + 3
    left = set()
    for call in range(1, calls + 1):
        home = tmp_path / f"{call}"
        old_database(home, VERSIONS[-1])
        with kept(home):
            died = open_by_a_later_release(home, fatal_call=call)
            assert died.returncode == -signal.SIGKILL, died
            left.add(dump(schema.path_of(home))[0])
            if call % 3 == 0:  # and the next start goes through with it
                assert open_by_a_later_release(home).returncode == 0
                assert dump(schema.path_of(home))[0] == len(schema.MIGRATIONS) + 1
        assert not [path for path in schema.path_of(home).parent.iterdir() if path.suffix == ".new" and call % 3 == 0]
    assert left <= {len(schema.MIGRATIONS), len(schema.MIGRATIONS) + 1}


@pytest.mark.parametrize("room", [0.7, 1.5, 3.0], ids=["for-no-copy", "for-the-copy", "for-half-of-it"])
def test_a_full_disk_leaves_the_old_version(tmp_path: Path, room: float) -> None:
    old_database(tmp_path, VERSIONS[-1])
    path = schema.path_of(tmp_path)
    large = (*LATER, f"CREATE TABLE large AS SELECT randomblob({6 * path.stat().st_size}) AS x")
    with kept(tmp_path):
        file_max = int(path.stat().st_size * room)
        refused = open_by_a_later_release(tmp_path, statements=large, file_max=file_max)
        assert refused.returncode == EXIT_REFUSED, refused
        assert "Traceback" not in refused.stderr
        assert "disk" in refused.stderr
        assert dump(path)[0] == len(schema.MIGRATIONS)
        if room < 1:
            assert "cannot be copied before it is migrated" in refused.stderr
        assert not list(path.parent.glob("*.new"))
