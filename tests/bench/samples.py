"""What the processes of a platform use, and what its database says of its jobs, read beside it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.local import schema
from hanzo_compute.model import keys
from hanzo_compute.model.states import State
from tests.support.live import Platform, children
from tests.support.raw import open_files, rss_kib

NAMES: Final = ("writer", "front-1", "pump", "agent-1")
ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
WAITING: Final = "SELECT ipk, isk FROM entries WHERE name = 'pool'"
UNFINISHED: Final = [State.QUEUED, State.PLACED, State.RUNNING, State.RETRYING]


@dataclass
class Sample:
    """One look at the platform."""

    at_s: float
    ended: int
    waiting: int
    unfinished: int
    age_s: float
    """Time since the oldest job that waits was accepted."""
    db_mib: float
    wal_mib: float
    rss_mib: dict[str, float] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class Sampler:
    """Looks at a platform again and again."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._path = schema.path_of(platform.home)
        self._begin = time.monotonic()

    def sample(self) -> Sample:
        """Look now."""
        db = schema.open_for_reading(self._path)
        try:
            waiting = [isk.rpartition("#")[2] for _, isk in db.execute(WAITING)]
            jobs = _count(db, "ipk LIKE 'TENANT#%' AND name = 'tenant'")
            states = [f"ipk LIKE 'TENANT#%#{state.value}'" for state in UNFINISHED]
            unfinished = _count(db, f"name = 'state' AND ({' OR '.join(states)})")
        finally:
            db.close()
        oldest = min((created_ms(job) for job in waiting), default=None)
        wal = self._path.with_name(self._path.name + "-wal")
        found = Sample(
            at_s=round(time.monotonic() - self._begin, 1),
            ended=jobs - unfinished,
            waiting=len(waiting),
            unfinished=unfinished,
            age_s=0.0 if oldest is None else max(0.0, time.time() - oldest / 1000),
            db_mib=self._path.stat().st_size / 2**20,
            wal_mib=wal.stat().st_size / 2**20 if wal.exists() else 0.0,
        )
        self._processes(found)
        return found

    def _processes(self, found: Sample) -> None:
        pids = {name: self._platform.pid(name) for name in NAMES}
        agent = pids["agent-1"]
        workers = {} if agent is None else {f"worker-{n}": pid for n, pid in enumerate(sorted(children(agent)), 1)}
        for name, pid in {**pids, **workers}.items():
            try:
                if pid is not None:
                    found.rss_mib[name] = rss_kib(pid) / 1024
                    found.files[name] = open_files(pid)
                    found.threads[name] = sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())
            except (OSError, AssertionError):
                continue  # it has just ended


def _count(db: sqlite3.Connection, where: str) -> int:
    found: int = db.execute(f"SELECT count(*) FROM entries WHERE {where}").fetchone()[0]
    return found


def created_ms(job: str) -> int:
    """The time in a job's id."""
    value = 0
    for character in job.partition("-")[2][:10]:
        value = value * 32 + ALPHABET.index(character)
    return value


def growth(samples: list[Sample]) -> dict[str, float]:
    """KiB by which each process grew for 1,000 jobs that ended: the slope of a line through the samples."""
    found = {}
    for name in samples[-1].rss_mib:
        points = [(each.ended / 1000, each.rss_mib[name] * 1024) for each in samples if name in each.rss_mib]
        if len(points) > 1:
            found[name] = round(_slope(points), 1)
    return found


def _slope(points: list[tuple[float, float]]) -> float:
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def audit(home: Path, accepted: set[str]) -> dict[str, Any]:
    """What became of every job: read from the database when the platform is at rest."""
    terminal = {state.value for state in State if state.terminal}
    states: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    db = schema.open_for_reading(schema.path_of(home))
    try:
        jobs = {}
        for pk, body in db.execute("SELECT pk, body FROM records WHERE pk LIKE 'JOB#%' AND sk = 'META'"):
            jobs[pk.removeprefix("JOB#")] = json.loads(body)["state"]
        for pk, body in db.execute("SELECT pk, body FROM records WHERE pk LIKE 'JOB#%' AND sk LIKE 'EVENT#%'"):
            ends[pk.removeprefix("JOB#")] += json.loads(body)["type"] in terminal
        outbox = db.execute("SELECT count(*) FROM records WHERE pk LIKE 'OUTBOX#%'").fetchone()[0]
        messages = db.execute("SELECT count(*) FROM messages").fetchone()[0]
        waiting = _count(db, f"name = '{keys.BY_POOL}'")
    finally:
        db.close()
    states.update(jobs.values())
    return {
        "jobs": len(jobs),
        "lost": len(accepted - jobs.keys()),
        "unknown": len(jobs.keys() - accepted),
        "unfinished": sum(state not in terminal for state in jobs.values()),
        "ended_not_once": sum(ends[job] != 1 for job, state in jobs.items() if state in terminal),
        "states": dict(states),
        "outbox_rows": outbox,
        "messages": messages,
        "waiting_entries": waiting,
    }
