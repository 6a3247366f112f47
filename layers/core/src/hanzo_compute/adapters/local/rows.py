"""The database's rows as they lie, whatever they say: for backups and for repairs, which trust nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from pydantic_core import from_json

from hanzo_compute.model.spec import program_blob
from hanzo_compute.model.states import State
from hanzo_compute.model.stored import BlobUse

PROBLEMS_MAX: Final = 20


def integrity(db: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with the file; nothing when it is sound."""
    found = [str(row[0]) for row in db.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})")]
    return [] if found == ["ok"] else found


def count_jobs(db: sqlite3.Connection) -> int:
    """Jobs, by their records."""
    jobs = "SELECT count(*) FROM entries WHERE name = 'tenant' AND ipk >= 'TENANT#' AND ipk < 'TENANT$'"
    count: int = db.execute(jobs).fetchone()[0]
    return count


_USES: Final = (
    "SELECT r.pk, r.sk, r.body, j.body FROM records AS r LEFT JOIN records AS j"
    " ON j.pk = 'JOB#' || substr(r.pk, 5) AND j.sk = 'META'"
    " WHERE r.pk >= 'JOB#' AND r.pk < 'LOG$' AND instr(r.body, '\"b1-') > 0"
)
_VERSIONS: Final = (
    "SELECT pk, body FROM records"
    " WHERE pk >= 'FUNCTION#' AND pk < 'FUNCTION$' AND sk >= 'VERSION#' AND instr(body, '\"b1-') > 0"
)


def blob_uses(db: sqlite3.Connection) -> Iterator[BlobUse]:
    """Every blob that a spec, an outcome, a log or a version names; a job may name one several times."""
    yield from _version_uses(db)
    for pk, sk, body, job in db.execute(_USES):
        try:
            meta, found = from_json(job or "{}"), from_json(body)
            named = _named(sk, found) if pk.startswith("JOB#") else [found.get("blob")]
            tenant, state = meta.get("tenant"), meta.get("state")
        except (ValueError, AttributeError, KeyError, TypeError):
            continue  # not what a record looks like: the repair's affair
        if isinstance(tenant, str):
            unfinished = state in State.__members__.values() and not State(state).terminal
            for blob in named:
                if isinstance(blob, str) and blob.startswith("b1-"):
                    yield BlobUse(tenant, blob, f"job {pk[4:]}", unfinished)


def _version_uses(db: sqlite3.Connection) -> Iterator[BlobUse]:
    for pk, body in db.execute(_VERSIONS):
        try:
            found = from_json(body)
            blob, user = program_blob(found["spec"]["source"]), f"function {found['name']}@{found['number']}"
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(blob, str):
            yield BlobUse(pk.split("#")[1], blob, user, needed=True)


def _named(sk: str, body: dict[str, Any]) -> list[Any]:
    if sk == "SPEC":
        return [program_blob(body.get("source", {})), (body.get("input") or {}).get("blob")]
    if sk.startswith("ATTEMPT#"):
        return [output.get("blob") for output in (body.get("outcome") or {}).get("outputs", [])]
    return []
