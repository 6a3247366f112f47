"""What must hold of a platform after whatever was done to it, once it has come to rest.

Each function returns what is wrong, in words, and an empty list when nothing is: so they can be waited for.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hanzo_compute.adapters.http import JobsClient
from hanzo_compute.model.tariff import DEFAULT, FREE
from tests.support.live import pages
from tests.support.trees import root_of

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "timed_out", "expired", "dead"})

KINDS = {
    *("IDEMPOTENCY", "CREDENTIAL", "PROVISIONED", "OUTBOX", "CLOCK", "AGENT"),
    *("TREE", "TILE", "CHECKPOINT", "TARIFF", "FUNCTION", "SCHEDULE", "FNLOG", "PUBLIC"),
    *("KV", "SECRET", "AUDIT", "BATCH", "ROUTING", "TELEMETRY"),
}
"""Kinds of records that belong to no job."""

Rows = list[tuple[str, str, dict[str, Any], dict[str, list[str]]]]


def unfinished(client: JobsClient) -> list[str]:
    """Jobs that have not ended."""
    return [f"{job['id']} is {job['state']}" for job in pages(client) if job["state"] not in TERMINAL]


def wrong_jobs(home: Path, accepted: Iterable[str]) -> list[str]:
    """The accepted jobs and no others are there; each has one end, which is its state, and events without gaps."""
    with _open(home) as db:
        rows = _rows(db)
    db.close()
    states = {pk.removeprefix("JOB#"): str(body["state"]) for pk, sk, body, _ in rows if _is_job(pk, sk)}
    events: dict[str, list[dict[str, Any]]] = {job: [] for job in states}
    for pk, sk, body, _ in rows:
        if pk.startswith("JOB#") and sk.startswith("EVENT#"):
            events[pk.removeprefix("JOB#")].append(body)
    wanted = set(accepted)
    wrong = [f"accepted and not there: {job}" for job in sorted(wanted - set(states))]
    wrong += [f"there and never accepted: {job}" for job in sorted(set(states) - wanted)]
    for job in wanted & set(states):
        ends = [event["type"] for event in events[job] if event["type"] in TERMINAL]
        if ends != [states[job]]:
            wrong.append(f"{job} is {states[job]} and has the ends {ends}")
        if [event["seq"] for event in events[job]] != list(range(1, len(events[job]) + 1)):
            wrong.append(f"{job} has the events {[event['seq'] for event in events[job]]}")
    return wrong


def unsettled(home: Path) -> list[str]:
    """Messages, outbox rows, and jobs that something still has to look at: none may be left."""
    with _open(home) as db:
        found = [f"message in {queue}: {body}" for queue, body in db.execute("SELECT queue, body FROM messages")]
        rows = _rows(db)
    db.close()
    found += [f"outbox row {pk} {sk}" for pk, sk, _, _ in rows if pk.startswith("OUTBOX#")]
    found += [f"job {pk} is not closed" for pk, sk, body, _ in rows if _is_job(pk, sk) and not body.get("closed")]
    found += [f"{pk} {sk} waits for its place in the log" for pk, sk, _, entries in rows if "log" in entries]
    found += [f"{pk} {sk} is due" for pk, sk, _, entries in rows if _is_job(pk, sk) and "due" in entries]
    return found


def stray_rows(home: Path) -> list[str]:
    """Rows that no job, key or credential accounts for: a table that grows by more than its jobs."""
    with _open(home) as db:
        rows = _rows(db)
        entries = Counter(db.execute("SELECT name, ipk, isk, pk, sk FROM entries"))
    db.close()
    jobs = {pk.removeprefix("JOB#"): body for pk, sk, body, _ in rows if _is_job(pk, sk)}
    expected = Counter((name, *entry, pk, sk) for pk, sk, _, found in rows for name, entry in found.items())
    wrong = [f"index entry {entry}" for entry in (entries - expected) + (expected - entries)]
    wrong += [f"{pk} {sk} belongs to nothing" for pk, sk, _, _ in rows if not _accounted(pk, sk, jobs)]
    have = Counter((pk, sk.partition("#")[0]) for pk, sk, _, _ in rows)
    for job, body in jobs.items():
        want = {"META": 1, "SPEC": 1, "EVENT": body["events"], "ATTEMPT": body.get("attempt", 0)}
        wrong += [
            f"job {job} has {have[f'JOB#{job}', part]} rows {part}, not {count}"
            for part, count in want.items()
            if have[f"JOB#{job}", part] != count
        ]
    runners = sum(pk.startswith("CREDENTIAL#") and body["role"] == "runner" for pk, _, body, _ in rows)
    wrong += [f"{runners} credentials of agents"] if runners != 1 else []
    return wrong + _gaps_in_logs(rows) + wrong_log(rows)


def wrong_log(rows: Rows) -> list[str]:
    """Each accepted outcome, and each end without one, has one leaf and one place; nothing else has; and it is billed
    what its usage costs at the tariff of its job."""
    records: dict[str, dict[str, dict[str, Any]]] = {}
    for pk, sk, body, _ in rows:
        records.setdefault(pk, {})[sk] = body
    bundles = sorted(records.get("TILE#0", {}).items())
    log = b"".join(base64.b64decode(body["data"]) for _, body in bundles)
    size = records.get("TREE", {}).get("HEAD", {}).get("size", 0)
    wrong = [f"the log has {len(log) // 32} leaves and its head says {size}"] if len(log) != 32 * size else []
    newest = records.get("CHECKPOINT", {}).get("-", {"size": 0, "root": root_of([]).hex()})
    leaves = [log[at : at + 32] for at in range(0, len(log), 32)]
    if root_of(leaves[: newest["size"]]).hex() != newest["root"]:
        wrong.append("the checkpoint is not of what is in the log")
    places: dict[int, str] = {}
    for pk, parts in records.items():
        if not pk.startswith("JOB#"):
            continue
        job, billed = parts["META"], 0
        found = {sk.partition("#")[2]: body for sk, body in parts.items() if sk.startswith("LEAF#")}
        attempts = {sk.partition("#")[2]: body for sk, body in parts.items() if sk.startswith("ATTEMPT#")}
        outcomes = {number for number, body in attempts.items() if "outcome" in body}
        earlier = "tariff" not in job  # some of its outcomes may be of a release without leaves
        if not (earlier or outcomes <= set(found)) or not set(found) - {"end"} <= outcomes:
            wrong.append(f"{pk} has the outcomes {outcomes} and the leaves {set(found)}")
        for number, body in found.items():
            place, kept = body.get("index"), body if number == "end" else attempts[number]["leaf"]
            if place is None:
                wrong.append(f"{pk} leaf {number} has no place")
                continue
            if place in places or place >= size or leaves[place].hex() != body["leaf"]:
                wrong.append(f"{pk} leaf {number} is not what the log has at {place}")
            places[place] = pk
            bill = int(kept["body"]["bill"]["units"])
            billed += bill
            if number in attempts and "statement" in attempts[number]:
                rates = DEFAULT.find(job["runtime"], "fast", 0) if "tariff" in job else FREE
                assert rates is not None
                if bill != rates.bill(attempts[number]["outcome"]["usage"], int(job.get("most", "0"))):
                    wrong.append(f"{pk} leaf {number} bills {bill} for {attempts[number]['outcome']['usage']}")
        if billed != int(job.get("billed", "0")):
            wrong.append(f"{pk} was billed {job.get('billed')}, its leaves say {billed}")
    wrong += _wrong_batches(records, leaves, places)
    if len(places) != size:
        wrong.append(f"the log has {size} leaves, of which jobs and batches account for {len(places)}")
    return wrong


def _wrong_batches(records: dict[str, dict[str, Any]], log: list[bytes], places: dict[int, str]) -> list[str]:
    """Each batch has one place, costs what its invocations cost together, and no invocation is in two."""
    wrong, seen = [], Counter[str]()
    for pk in [pk for pk in records if pk.startswith("BATCH#")]:
        leaves = {sk.removeprefix("LEAF#"): body for sk, body in records[pk].items() if sk.startswith("LEAF#")}
        bodies = {sk.removeprefix("BODY#"): body for sk, body in records[pk].items() if sk.startswith("BODY#")}
        wrong += [f"{pk} has the leaves {set(leaves)} and the statements {set(bodies)}"] * (set(leaves) != set(bodies))
        for last, body in bodies.items():
            place, rows = leaves.get(last, {}).get("index"), body["rows"]
            if place is None or place in places or place >= len(log) or log[place].hex() != leaves[last]["leaf"]:
                wrong.append(f"{pk} {last} is not what the log has at {place}")
            else:
                places[place] = pk
            if sum(int(row[5]) for row in rows) != int(body["leaf"]["body"]["bill"]["units"]):
                wrong.append(f"{pk} {last} bills {body['leaf']['body']['bill']} for {[row[5] for row in rows]}")
            seen.update(row[1] for row in rows)
    return wrong + [f"{invocation} is in {count} batches" for invocation, count in seen.items() if count > 1]


def stray_files(home: Path) -> list[str]:
    """Files that were on their way somewhere, and attempts that no agent runs any more."""
    found = []
    # Unlike rglob, walk bears that folders go away.
    for folder, folders, files in os.walk(home):
        place = Path(folder).relative_to(home)
        if place.parts[:1] == ("agents",) and len(place.parts) == 3:
            found += [f"attempt or journal {place / name}" for name in (*folders, *files)]
            continue
        for name in files:
            if place.parts[:2] == ("blobs", ".new") or name.startswith(".") or name.endswith((".new", ".tmp")):
                found.append(f"temporary file {place / name}")
            elif place.parts[:1] == ("blobs",) and not (len(place.parts) == 3 and name.startswith("b1-")):
                found.append(f"{place / name} is no blob")
    return found


def orphans() -> list[str]:
    """Sandbox workers whose agent is gone."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"hanzo_compute.adapters.sandbox.worker" in words:
            agent = words[words.index(b"hanzo_compute.adapters.sandbox.worker") + 1].decode()
            if not Path(f"/proc/{agent}").exists():
                found.append(f"worker {entry.name} of agent {agent}")
    return found


def wrong_at_rest(home: Path) -> list[str]:
    """All that files and tables can show."""
    return unsettled(home) + stray_rows(home) + stray_files(home) + orphans()


def _open(home: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{home}/db/hanzo.sqlite3?mode=ro", uri=True)


def _rows(db: sqlite3.Connection) -> Rows:
    found = db.execute("SELECT pk, sk, body, entries FROM records").fetchall()
    return [(pk, sk, json.loads(body), json.loads(entries or "{}")) for pk, sk, body, entries in found]


def _is_job(pk: str, sk: str) -> bool:
    return pk.startswith("JOB#") and sk == "META"


def _accounted(pk: str, sk: str, jobs: dict[str, dict[str, Any]]) -> bool:
    kind, _, rest = pk.partition("#")
    if kind in ("JOB", "LOG"):
        return rest in jobs
    if kind == "OBSERVED":
        return sk.split("#")[1] in jobs
    if kind == "LABEL":
        name, _, value = rest.partition("#")[2].partition("=")
        return sk in jobs and jobs[sk]["labels"].get(name) == value
    return kind in KINDS


def _gaps_in_logs(rows: Rows) -> list[str]:
    chunks: dict[tuple[str, str], list[int]] = {}
    for pk, sk, _, _ in rows:
        if pk.startswith("LOG#"):
            attempt, _, seq = sk.partition("#")
            chunks.setdefault((pk, attempt), []).append(int(seq))
    found = {place: sorted(seqs) for place, seqs in chunks.items()}
    return [f"log {place} has chunks {seqs}" for place, seqs in found.items() if seqs != [*range(1, len(seqs) + 1)]]
