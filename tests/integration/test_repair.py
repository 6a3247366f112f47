"""`hzc doctor --repair` on state folders with planted defects: each is found, said and cured, once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute import wiring
from hanzo_compute.adapters.local import schema
from hanzo_compute.config import Config
from hanzo_compute.model import keys
from hanzo_compute.model.function import FunctionSpec
from hanzo_compute.model.job import Job
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.states import State
from hanzo_compute.services import functions, place, reconcile
from hanzo_compute.services.submit import submit
from hanzo_compute_host import orphans
from hanzo_compute_host.repair import repair
from tests.support import statements
from tests.support.cli import Hzc
from tests.support.live import until

NOTHING: list[Any] = []


@dataclass
class Stopped:
    """A state folder without a platform, with one job that waits to be placed and one that is placed."""

    home: Path
    queued: str = ""
    placed: str = ""
    blob: str = ""

    @property
    def config(self) -> Config:
        return Config("local", self.home, "", self.home)

    def make(self) -> None:
        (self.home / "db").mkdir(mode=0o700, parents=True)
        schema.open_for_writing(schema.path_of(self.home)).close()
        with wiring.offline(self.config) as (ctx, _):
            self.blob = ctx.blobs.put("acme", b"input")
            spec = parse_spec(
                {
                    "source": {"code": "1", "language": "python"},
                    "input": {"blob": self.blob},
                    "labels": {"a": "b"},
                }
            )
            self.queued = submit(ctx, "acme", spec, idempotency_key="one").job.id
            self.placed = submit(ctx, "acme", spec, idempotency_key="two").job.id
            place.place(ctx, [self.placed])
            for code in "12":
                version = FunctionSpec.model_validate({"source": {"code": code, "language": "python"}})
                functions.deploy(ctx, "acme", "f", version)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        with closing(sqlite3.connect(schema.path_of(self.home))) as db, db:
            return db.execute(statement, values).fetchall()

    def job(self, job_id: str) -> Job:
        ((body,),) = self.sql("SELECT body FROM records WHERE pk = ? AND sk = 'META'", f"JOB#{job_id}")
        return Job.from_record(json.loads(body))

    def alter(self, job_id: str, **changes: Any) -> None:
        """Change a job's record as no service would: its index entries stay."""
        body = self.job(job_id).record() | changes
        self.sql("UPDATE records SET body = ? WHERE pk = ? AND sk = 'META'", json.dumps(body), f"JOB#{job_id}")

    def record(self, key: keys.Key, body: str) -> None:
        self.sql("INSERT INTO records VALUES (?, ?, 1, ?, NULL)", *key, body)

    def message(self, body: str, queue: str = "dispatch") -> None:
        self.sql("INSERT INTO messages (id, queue, body, sent_ms, visible_ms) VALUES ('m', ?, ?, 0, 0)", queue, body)

    def file(self, name: str, content: str = "x") -> None:
        path = self.home / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(content)

    def repair(self, *, digests: bool = False) -> list[tuple[str, str, bool]]:
        return [(each.check, each.found, each.repaired) for each in repair(self.home, str, digests=digests)]


@pytest.fixture
def stopped(tmp_path: Path) -> Stopped:
    made = Stopped(tmp_path / "home")
    made.make()
    return made


def leave_log(stopped: Stopped) -> None:
    """As a writer leaves it that is killed after a commit."""
    path = schema.path_of(stopped.home)
    code = (
        "import os, sys; from pathlib import Path; from hanzo_compute.adapters.local import schema;"
        "db = schema.open_for_writing(Path(sys.argv[1]));"
        "db.execute(\"INSERT INTO records VALUES ('CREDENTIAL#x', '-', 1, '{}', NULL)\"); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


Plant = Callable[[Stopped], object]
NOW_MS = int(time.time() * 1000)


def old_key(expires_ms: int) -> str:
    """An idempotency key's record."""
    return json.dumps({"job": "j-gone", "digest": "d", "expires_ms": expires_ms})


CURED: list[tuple[str, str, Plant]] = [
    ("index", "entries were others", lambda s: s.sql("DELETE FROM entries WHERE name = 'due'")),
    ("index", "entries were others", lambda s: s.sql("DELETE FROM entries")),
    ("index", "entries were others", lambda s: s.sql("UPDATE records SET entries = NULL WHERE sk = 'META'")),
    ("index", "entries were others", lambda s: s.sql("UPDATE records SET entries = '{' WHERE sk = 'META'")),
    ("index", "of no record", lambda s: s.sql("INSERT INTO entries VALUES ('due', 'DUE#1', '1#x', 'JOB#x', 'META')")),
    ("index", "of no record", lambda s: s.sql("UPDATE entries SET isk = isk || 'x' WHERE name = 'tenant'")),
    ("job", "nothing would place it", lambda s: s.alter(s.queued, due_ms=None)),
    ("job", "nothing would place it", lambda s: s.alter(s.queued, due_ms=NOW_MS + 10**9)),
    ("job", "placed nowhere", lambda s: s.alter(s.placed, pool=None)),
    ("job", "its lease ends too late", lambda s: s.alter(s.placed, state="running", lease_until_ms=10**14)),
    ("job", "nothing would start", lambda s: s.alter(s.placed, state="retrying", due_ms=None)),
    ("job", "nothing would close it", lambda s: s.alter(s.placed, state="failed", due_ms=None)),
    ("job", "is at rest and due", lambda s: s.alter(s.placed, state="failed", due_ms=5, closed=True)),
    ("job", "counts 1 events", lambda s: s.record(keys.event(s.queued, 2), "{}")),
    ("job", "counts 0 attempts", lambda s: s.record(keys.attempt(s.queued, 1), "{}")),
    ("job", "its spec is lost", lambda s: s.sql("DELETE FROM records WHERE sk = 'SPEC' AND pk = ?", f"JOB#{s.queued}")),
    ("orphan", "it belongs to no job", lambda s: s.record(keys.spec("j-gone"), "{}")),
    ("orphan", "it belongs to no job", lambda s: s.record(keys.attempt("j-gone", 1), "{}")),
    ("orphan", "a log of no job", lambda s: s.record(keys.log("j-gone", 1, 1), "{}")),
    ("orphan", "a label of no job", lambda s: s.record(keys.label("acme", "a", "b", "j-gone"), "{}")),
    ("idempotency", "it names no job", lambda s: s.record(keys.idempotency("acme", "k"), old_key(NOW_MS + 10**8))),
    ("idempotency", "it has expired", lambda s: s.record(keys.idempotency("a", "k"), old_key(NOW_MS - 10**8))),
    ("idempotency", "it is there twice", lambda s: s.record(keys.Key("IDEMPOTENCY#acme#one", "x"), "{}")),
    ("function", "lists [1, 2]", lambda s: s.sql("DELETE FROM records WHERE sk = 'VERSION#000000002'")),
    ("function", "does not list", lambda s: s.record(keys.version("acme", "f", 7), "{}")),
    ("function", "belongs to no function", lambda s: s.record(keys.version("acme", "g", 1), "{}")),
    ("outbox", "it names no job", lambda s: s.record(keys.outbox(1, "1#m"), outbox_body("j-gone"))),
    ("outbox", "nobody would find it", lambda s: s.record(keys.outbox(1, "?#m"), outbox_body(s.queued))),
    ("message", "it names no job", lambda s: s.message('{"job": "j-gone"}')),
    ("message", "it names no job", lambda s: s.message('{"job": "j-gone"}', "completion-dlq")),
    ("message", "it cannot be read", lambda s: s.message("?")),
    ("file", "had not finished", lambda s: s.file("blobs/acme/ab/.0123456789abcdef")),
    ("file", "had not finished", lambda s: s.file("keys/.0123456789abcdef")),
    ("file", "had not finished", lambda s: s.file(".credentials.json.ab_d12z4")),
    ("file", "had not finished", lambda s: s.file("run/.platform.json.abcd1234")),
    ("file", "had not finished", lambda s: s.file("keys/.runner.key.abcd1234")),
    ("file", "had not finished", lambda s: s.file("agents/local-1/attempts/.new-0123456789abcdef/in/main.py")),
    ("file", "had not finished", lambda s: s.file("agents/local-1/journal/j-1.2.new")),
    ("attempt", "journal of an attempt that is not", lambda s: s.file("agents/local-1/journal/j-1.2.json")),
    ("attempt", "does not hold", lambda s: s.file("agents/local-9/attempts/j-1.2/lease.json")),
    ("attempt", "does not hold", lambda s: s.file(f"agents/local-9/attempts/{s.placed}.1/lease.json")),
    ("database", "in its log", leave_log),
]


def outbox_body(job: str) -> str:
    return json.dumps({"queue": "dispatch", "not_before_ms": 1, "message": {"job": job, "attempt": 0}})


def test_a_sound_folder_has_no_findings(stopped: Stopped) -> None:
    assert stopped.repair(digests=True) == NOTHING


@pytest.mark.parametrize(("check", "says", "plant"), CURED)
def test_each_defect_is_cured_once(check: str, says: str, plant: Plant, stopped: Stopped) -> None:
    plant(stopped)
    found = stopped.repair()
    mine = [each for each in found if each[0] == check and says in each[1]]
    assert mine, found
    # A job that was altered by hand has the wrong index entries, too.
    assert {each[0] for each in found} <= {check, "index"}
    assert all(repaired for _, _, repaired in found)
    assert stopped.repair() == NOTHING


def test_repaired_jobs_move_again(stopped: Stopped) -> None:
    stopped.alter(stopped.queued, due_ms=None)
    stopped.alter(stopped.placed, pool=None, placed_ms=None)
    stopped.sql("DELETE FROM entries")
    stopped.sql("DELETE FROM messages")
    stopped.repair()
    with wiring.offline(stopped.config) as (ctx, _):
        time.sleep(0.01)
        assert reconcile.reconcile(ctx) == {"dispatch_resent": 2}
        for message in ctx.queue.receive("dispatch"):
            place.place(ctx, [message.body["job"]])
        found = ctx.store.query_index(keys.BY_POOL, keys.pool_partition("local"))
    assert {record.body["id"] for _, record in found} == {stopped.queued, stopped.placed}


def test_a_job_without_its_spec_ends_as_dead(stopped: Stopped) -> None:
    stopped.sql("DELETE FROM records WHERE sk = 'SPEC' AND pk = ?", f"JOB#{stopped.placed}")
    stopped.repair()
    job = stopped.job(stopped.placed)
    assert (job.state, job.category) == (State.DEAD, "platform")
    assert "spec" in str(job.reason)
    bodies = [json.loads(body) for (body,) in stopped.sql("SELECT body FROM messages WHERE queue = 'completion'")]
    assert [body["job"] for body in bodies] == [stopped.placed]


def test_what_cannot_be_repaired_is_left_and_said(stopped: Stopped) -> None:
    path = next((stopped.home / "blobs" / "acme").glob("*/b1-*"))
    hzc = Hzc({"HZC_HOME": str(stopped.home)})
    assert hzc.json("doctor", "--repair")["findings"] == []
    path.write_bytes(b"inpux")
    assert hzc.json("doctor", "--repair")["left"] == 0
    found = hzc.json("doctor", "--repair", "--digests", code=1)
    assert {each["found"].split(",")[0] for each in found["findings"]} == {"it is damaged"}
    path.unlink()
    stopped.alter(stopped.queued, created_ms="then")
    found = hzc.json("doctor", "--repair", code=1)
    assert (found["healthy"], found["left"], found["counts"]) == (False, 3, {"job": 1, "blob": 2})
    shown = hzc("doctor", "--repair", code=1)
    assert "it is missing" in shown.stdout
    assert "0 repaired, 3 left" in shown.stderr
    assert "--repair" in hzc("doctor", "--digests", code=2).stderr


def test_attempts_that_may_still_be_handed_in_stay(stopped: Stopped) -> None:
    with wiring.offline(stopped.config) as (ctx, _):
        from hanzo_compute.services import lease

        (leased,) = lease.acquire(ctx, statements.want("local-1"), "platform")
    stopped.file(f"agents/local-1/attempts/{leased.job}.1/lease.json")
    stopped.file(f"agents/local-1/journal/{leased.job}.1.json")
    assert stopped.repair() == NOTHING
    assert (stopped.home / "agents/local-1/journal" / f"{leased.job}.1.json").exists()


def test_the_files_of_an_agent_that_runs_stay(stopped: Stopped) -> None:
    import fcntl

    stopped.file("agents/local-1/attempts/.new-0123456789abcdef")
    stopped.file("agents/local-1/runner.lock", "")
    with (stopped.home / "agents/local-1/runner.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert stopped.repair() == NOTHING
    assert len(stopped.repair()) == 1


def test_a_damaged_database_is_reported(stopped: Stopped) -> None:
    path = schema.path_of(stopped.home)
    data = bytearray(path.read_bytes())
    data[4096:4104] = b"\xff" * 8
    path.write_bytes(data)
    found = Hzc({"HZC_HOME": str(stopped.home)}).json("doctor", "--repair", code=1)["findings"]
    assert {each["check"] for each in found} == {"database"}
    assert all("hzc restore" in each["remedy"] for each in found)
    path.write_bytes(b"no database" * 1000)
    ((check, says, repaired),) = stopped.repair()
    assert (check, "damaged" in says, repaired) == ("database", True, False)


def test_a_damaged_index_of_the_file_is_rebuilt(stopped: Stopped) -> None:
    """A message is written while the schema does not know of the index, so that the index does not know of it."""

    def change_schema(sql: str, *values: Any) -> None:
        with closing(sqlite3.connect(schema.path_of(stopped.home))) as db, db:
            db.execute("PRAGMA writable_schema = ON")
            db.execute(sql, values)

    (row,) = stopped.sql("SELECT * FROM sqlite_schema WHERE name = 'messages_visible'")
    change_schema("DELETE FROM sqlite_schema WHERE name = 'messages_visible'")
    stopped.message(json.dumps({"job": stopped.queued}))
    change_schema("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", *row)
    found = stopped.repair()
    ((check, says, repaired),) = found
    assert (check, "messages_visible" in says, repaired) == ("database", True, True)
    assert stopped.repair() == NOTHING


def test_a_disk_that_takes_no_more_is_said(stopped: Stopped) -> None:
    stopped.sql("DELETE FROM entries")
    command = f"ulimit -f 1; exec {sys.executable} -m hanzo_compute_host.cli doctor --repair"
    env = {**os.environ, "HZC_HOME": str(stopped.home)}
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "disk" in done.stderr) == (6, True), done
    assert {check for check, _, _ in stopped.repair()} == {"index"}


def test_old_downloads_in_the_cache_go(stopped: Stopped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HZC_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "interpreters"
    folder.mkdir(parents=True)
    for name in ("python.wasm", ".python.wasm.0123456789abcdef", ".python.wasm.fedcba9876543210"):
        (folder / name).touch()
    os.utime(folder / ".python.wasm.0123456789abcdef", (1, 1))
    assert [check for check, _, _ in stopped.repair()] == ["file"]
    assert {path.name for path in folder.iterdir()} == {"python.wasm", ".python.wasm.fedcba9876543210"}


def test_nothing_there(tmp_path: Path) -> None:
    assert "is not there" in Hzc({"HZC_HOME": str(tmp_path / "no")})("doctor", "--repair", code=2).stderr
    assert "no platform's database" in Hzc({"HZC_HOME": str(tmp_path)})("doctor", "--repair", code=2).stderr


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for each in started:
        each.kill()
        each.wait(10)


def test_orphans_are_ended_and_others_are_not(
    stopped: Stopped, processes: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A writer without a platform is one; what merely has the folder in its environment, or another one, is not."""

    def start(home: Path, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "HZC_HOME": str(home), **more}
        processes.append(subprocess.Popen([sys.executable, *arguments], env=env, start_new_session=True))
        return processes[-1]

    (tmp_path / "other").mkdir(mode=0o700)
    module = "hanzo_compute.adapters.local.writer"
    writer = start(stopped.home, "-m", module, "--home", str(stopped.home))
    other = start(tmp_path / "other", "-m", module, "--home", str(tmp_path / "other"))
    waits = "import time; time.sleep(600)"
    bystander = start(stopped.home, "-c", waits, "-m", "hanzo_compute_host.front")
    by_hand = start(stopped.home, "-c", waits, "-m", "hanzo_compute_agent", HZC_AGENT_NAME="mine")
    until((stopped.home / "run" / "writer.sock").exists, 120, "the writer listens")
    until((tmp_path / "other" / "run" / "writer.sock").exists, 120, "the other one listens")
    assert [each.pid for each in orphans.find(stopped.home) if each.pid != bystander.pid] == [writer.pid]
    bystander.kill()
    bystander.wait(10)
    found = stopped.repair()
    assert found == [("process", f"{module} runs without its platform", True)]
    assert writer.wait(60) in (0, -signal.SIGTERM)
    assert other.poll() is None
    assert by_hand.poll() is None
    assert stopped.repair() == NOTHING
