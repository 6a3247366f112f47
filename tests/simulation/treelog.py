"""What must hold of the transparency log: by the definition of its tree, and by arithmetic of its own for the bills."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from typing import Any

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryDatabase
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.ports import Body
from tests.simulation.violation import require
from tests.support.trees import entries_of, root_of

RATES = {"attempts": Fraction(200), "wall_ms": Fraction(10_000, 1000), "memory_mib_ms": Fraction(16_667, 1_024_000)}
"""The built-in tariff for programs that are not deterministic."""


def extends(database: MemoryDatabase, new: Body, old: Body | None) -> None:
    """A checkpoint has been signed: it is of what is in the log, and the one before is a beginning of it."""
    leaves = entries_of(database)
    require(len(leaves) >= new["size"], f"a checkpoint of {new['size']} leaves was signed over {len(leaves)}")
    require(root_of(leaves[: new["size"]]).hex() == new["root"], "a checkpoint is not of what is in the log")
    if old is not None:
        require(old["size"] <= new["size"], f"the log went from {old['size']} leaves to {new['size']}")
        require(root_of(leaves[: old["size"]]).hex() == old["root"], "a checkpoint does not extend the one before")


def waiting(database: MemoryDatabase) -> str | None:
    """What is not under a checkpoint yet."""
    left = [list(rows) for (index, _), rows in database.entries.items() if index == keys.BY_LOG and rows]
    if left:
        return f"leaves wait for their place: {left}"
    head, point = database.record(keys.tree_head()), database.record(keys.checkpoint())
    if head is not None and (point is None or decode_body(point.body)["size"] != decode_body(head.body)["size"]):
        return "leaves wait for a checkpoint"
    return None


def check(database: MemoryDatabase, found: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Every leaf of every job has one place, nothing else has one, and the bills are what usage costs."""
    log = entries_of(database)
    places: dict[int, str] = {}
    for job_id, records in found.items():
        leaves = {sk: body for sk, body in records.items() if sk.startswith(keys.LEAF)}
        for sk, body in leaves.items():
            require(body["index"] not in places, f"{job_id} {sk} has the place of {places.get(body['index'])}")
            places[body["index"]] = job_id
            kept = body if "salt" in body else records[sk.replace(keys.LEAF, "ATTEMPT#")]["leaf"]
            made = hashlib.sha256(bytes.fromhex(kept["salt"]) + _plain(kept["body"])).hexdigest()
            require(made == body["leaf"] == log[body["index"]].hex(), f"{job_id} {sk} is not what the log has")
        outcomes = {sk for sk, body in records.items() if sk.startswith("ATTEMPT#") and "outcome" in body}
        expected = {sk.replace("ATTEMPT#", keys.LEAF) for sk in outcomes}
        require(expected <= set(leaves) <= expected | {f"{keys.LEAF}end"}, f"{job_id} has the leaves {list(leaves)}")
        _bills(Job.from_record(records["META"]), records, leaves)
    for pk, records in database.partitions.items():
        for sk, stored in records.items() if pk.startswith(keys.ATTESTATION) else ():
            if sk.startswith(keys.LEAF):
                leaf = decode_body(stored.body)
                require(leaf["index"] not in places, f"{pk} {sk} has the place of {places.get(leaf['index'])}")
                places[leaf["index"]] = pk
                made = hashlib.sha256(bytes.fromhex(leaf["salt"]) + _plain(leaf["body"])).hexdigest()
                require(made == leaf["leaf"] == log[leaf["index"]].hex(), f"{pk} {sk} is not what the log has")
        for sk, stored in records.items() if pk.startswith(keys.BATCH) else ():
            if sk.startswith(keys.LEAF):
                index, kept = _batch(records, sk, decode_body(stored.body), log)
                require(index not in places, f"{kept} has the place of {places.get(index)}")
                places[index] = kept
    require(sorted(places) == list(range(len(log))), f"the log has {len(log)} leaves, and these are known: {places}")


def _batch(records: Any, sk: str, leaf: Body, log: list[bytes]) -> tuple[int, str]:
    """The place of a batch, and its name."""
    kept = decode_body(records[sk.replace(keys.LEAF, keys.STATEMENTS)].body)["leaf"]
    made = hashlib.sha256(bytes.fromhex(kept["salt"]) + _plain(kept["body"])).hexdigest()
    require(made == leaf["leaf"] == log[leaf["index"]].hex(), f"batch {sk} is not what the log has")
    return leaf["index"], kept["body"]["batch"]


def _bills(job: Job, records: dict[str, dict[str, Any]], leaves: dict[str, dict[str, Any]]) -> None:
    total = 0
    for sk, leaf in leaves.items():
        attempt = records.get(sk.replace(keys.LEAF, "ATTEMPT#"), {})
        units = int((leaf.get("body") or attempt["leaf"]["body"])["bill"]["units"])
        total += units
        paid = "statement" in attempt
        used = {**attempt["outcome"]["usage"], "attempts": 1} if paid else {}
        cost = math.ceil(sum(rate * used[name] for name, rate in RATES.items())) if paid else 0
        require(units == min(cost, int(job.most)), f"{job.id} {sk}: billed {units}, used {cost} of {job.most}")
        lost = attempt.get("outcome", {}).get("category", "platform") == "platform"
        require(paid or lost or units == 0, f"{job.id} {sk}: {units} billed without a statement")
    require(str(total) == job.billed, f"{job.id} was billed {job.billed}, its leaves say {total}")


def _plain(body: dict[str, Any]) -> bytes:
    import jcs

    return bytes(jcs.canonicalize(body))
