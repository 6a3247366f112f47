"""Sealed jobs: what holds of challenges, decisions and keys at every write, what tenants do, and what is left."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryBlobs, MemoryDatabase
from hanzo_compute.adapters.memory.database import StoredRecord
from hanzo_compute.attestation import Binding, appraise
from hanzo_compute.attestation import policy as documents
from hanzo_compute.errors import Conflict, InvalidRequest, NotFound, Rejected, StaleFence
from hanzo_compute.model import keys
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.model.job import Job
from hanzo_compute.model.keys import Key
from hanzo_compute.model.statement import key_id
from hanzo_compute.model.states import State
from hanzo_compute.ports import Body, Delete, KeyAnswer, Operation, Put
from hanzo_compute.security import hpke, sealed
from hanzo_compute.services import appraisals, policies, read, release_key
from hanzo_compute.services.context import Context
from tests.simulation.host import Answer
from tests.simulation.ports import ENDORSED, ENROLLED
from tests.simulation.runner import Execution
from tests.simulation.scheduler import SECOND, Scheduler
from tests.simulation.violation import require

Call = Callable[[str, Callable[[Context], Answer[Any]]], Any]
Operations = Mapping[Key, Operation]
Before = Mapping[Key, StoredRecord | None]


@dataclass
class SealedWatch:
    """The keys that tenants have, and who got them."""

    known: dict[str, bytes] = field(default_factory=dict)
    """By the digest that a spec has of them."""
    inputs: dict[str, bytes] = field(default_factory=dict)
    """What is in the box that such a job reads."""
    asked: set[tuple[str, int, str, str]] = field(default_factory=set)
    """Job, attempt, sealing key and signing key of every challenge."""
    opened: dict[tuple[str, int], str] = field(default_factory=dict)
    """Which process has opened the key of an attempt."""

    def spec(self, random: Random, blobs: MemoryBlobs, tenant: str, request: str) -> Body:
        """What makes a spec one of a sealed job."""
        key = random.randbytes(sealed.KEY_BYTES)
        digest = hashlib.sha256(key).hexdigest()
        self.known[digest] = key
        made: Body = {"privacy_tier": 1, "data_key": digest}
        if random.random() < 0.5:
            self.inputs[digest] = b"input of " + request.encode()
            box = sealed.seal(key, sealed.INPUT, self.inputs[digest])
            text = base64.b64encode(box).decode()
            made["input"] = {"blob": blobs.put(tenant, box)} if random.random() < 0.6 else {"inline_base64": text}
        return made

    # Writes

    def applied(self, operations: Operations, before: Before, database: MemoryDatabase, now_ms: int) -> None:
        """A transaction has just been applied."""
        for key, operation in operations.items():
            kind, _, subject = key.pk.partition("#")
            old, new = _body(before[key]), operation.body if isinstance(operation, Put) else None
            gone = isinstance(operation, Delete)
            if kind == "CHALLENGE" and (new is not None or gone):
                self._challenge(subject, old, new, operations, now_ms)
            elif kind == "ATTESTATION":
                require(new is not None, f"{key} was removed")
                self._attested(key, subject, old, new or {}, operations, before, database)
            elif kind == "DATAKEY" and (new is not None or old is not None):
                self._kept(subject, old, new, operations, database)
            elif kind == "POLICY" and new is not None:
                _policy(key, old, new, operations)
            elif kind == "LOG" and new is not None:
                meta = _body(database.record(keys.job(subject))) or {}
                require("data_key" not in meta, f"{key}: the log of a sealed job goes out as it is")
            elif kind == "JOB" and key.sk == "META" and old is not None and new is not None:
                _delivered(subject, old, new, operations)

    def _challenge(self, name: str, old: Body | None, new: Body | None, operations: Operations, now_ms: int) -> None:
        if new is None:
            answers = [op for key, op in operations.items() if key.sk.startswith("APPRAISAL#")]
            expired = old is None or old["expires_ms"] <= now_ms
            require(len(answers) == 1 or (expired and not answers), f"challenge {name} was removed, and not answered")
            return
        if old is not None:
            changed = {each for each in old.keys() | new.keys() if old.get(each) != new.get(each)}
            require(changed <= {"activation"}, f"challenge {name} was changed: {changed}")
            require("activation" not in old, f"challenge {name} has got two credentials")
            return
        require(new["expires_ms"] <= now_ms + appraisals.CHALLENGE_MS, f"challenge {name} is good for too long")
        signing = key_id(base64.b64decode(new["signing_key"]))
        self.asked.add((new["job"], new["attempt"], new["sealing_key"], signing))

    def _attested(
        self,
        key: Key,
        job_id: str,
        old: Body | None,
        new: Body,
        operations: Operations,
        before: Before,
        database: MemoryDatabase,
    ) -> None:
        if key.sk.startswith("APPRAISAL#"):
            require(old is None, f"{key} was written twice")
            used = [
                body
                for each, op in operations.items()
                if each.pk.startswith("CHALLENGE#") and isinstance(op, Delete) and (body := _body(before[each]))
            ]
            same = [(b["job"], b["attempt"], b["sealing_key"]) for b in used]
            answered = same == [(job_id, new["attempt"], new["sealing_key"])]
            require(answered, f"an appraisal of {job_id} used up the challenges {same}")
        elif key.sk.startswith("RELEASE#"):
            require(old is None, f"the release {key} was written twice")
            self._released(key, job_id, new, operations, before, database)
        elif key.sk.startswith(keys.LEAF):
            if old is None:
                release = keys.key_release(job_id, new["body"]["attempt"]) in operations
                said = new["body"]["decision"]
                require("index" not in new, f"{key} begins with a place")
                require((said == "released") == release, f"a decision about {job_id} says {said}, released: {release}")
                require(bool(new["body"]["reasons"]) != release, f"{key}: {said} for {new['body']['reasons']}")
            else:
                require("index" not in old, f"{key} has got two places")
                kept = {name: value for name, value in old.items() if name != "at_ms"}
                require({**kept, "index": new["index"]} == new, f"{key} was changed")

    def _released(
        self, key: Key, job_id: str, new: Body, operations: Operations, before: Before, database: MemoryDatabase
    ) -> None:
        """Of the attempt that holds the job, to a runner of the agent that holds it, with its decision."""
        number, meta = new["attempt"], keys.job(job_id)
        move = operations.get(meta)
        require(isinstance(move, Put), f"a key of {job_id} was released without its job")
        assert isinstance(move, Put)
        for job in (_body(before[meta]), move.body):
            assert job is not None
            holds = job["state"] == "running" and job.get("attempt") == number
            require(
                holds,
                f"the key for attempt {number} of {job_id} was released when it was {job['state']}, "
                f"attempt {job.get('attempt')}",
            )
        require(key == keys.key_release(job_id, number), f"{key} is of attempt {number}")
        holder = (job_id, number, new["recipient"], move.body["agent_key"])
        require(holder in self.asked, f"the key for attempt {number} of {job_id} went to one who was not challenged")
        accepted = [
            body
            for sk, stored in database.partitions[key.pk].items()
            if sk.startswith("APPRAISAL#")
            and (body := decode_body(stored.body))["attempt"] == number
            and (body["sealing_key"], body["verdict"]) == (new["recipient"], "accept")
            and body["tier"] >= move.body["tier"]
        ]
        require(accepted, f"the key for attempt {number} of {job_id} went to a runner that proved nothing")
        decisions = [
            op.body["body"]
            for each, op in operations.items()
            if each.pk == key.pk and each.sk.startswith(keys.LEAF) and isinstance(op, Put)
        ]
        found = [(each["attempt"], each["recipient"], each["agent"]) for each in decisions]
        said = [(number, new["recipient"], move.body["agent"])]
        require(found == said, f"the release of {said} was written down as {found}")

    def _kept(
        self, job_id: str, old: Body | None, new: Body | None, operations: Operations, database: MemoryDatabase
    ) -> None:
        meta = _body(database.record(keys.job(job_id)))
        assert meta is not None
        if new is None:
            require(meta.get("closed"), f"the key of {job_id} was removed before it was closed")
            return
        require(old is None, f"the key of {job_id} was written twice")
        require(not State(meta["state"]).terminal, f"a key of {job_id} was taken when it was {meta['state']}")

    # Runners

    def opens(self, process: str, job_id: str, attempt: int, answer: KeyAnswer, database: MemoryDatabase) -> None:
        """A process of an agent has got a key that it can open."""
        first = self.opened.setdefault((job_id, attempt), process)
        require(first == process, f"{first} and {process} have opened the key for attempt {attempt} of {job_id}")
        kept = _body(database.record(keys.key_release(job_id, attempt))) or {}
        same = kept.get("sealed") == base64.b64encode(answer.sealed).decode()
        require(same, f"{process} has got another key for attempt {attempt} of {job_id} than was released")

    # At rest

    def check(
        self,
        database: MemoryDatabase,
        blobs: MemoryBlobs,
        found: Mapping[str, Mapping[str, Body]],
        executions: Mapping[str, Execution],
    ) -> None:
        """Nothing is left of keys, nothing is open that was to be sealed, and appraisals can be made again."""
        left = [pk for pk, rows in database.partitions.items() if pk.startswith("DATAKEY#") and rows]
        require(not left, f"keys are left of jobs that are closed: {left}")
        for job_id, records in found.items():
            job = Job.from_record(records["META"])
            if job.data_key is not None:
                self._job(job, records, database, blobs, [e for e in executions.values() if e.lease.job == job_id])
        self._nothing_open(database, blobs, found, executions)

    def _job(
        self,
        job: Job,
        records: Mapping[str, Body],
        database: MemoryDatabase,
        blobs: MemoryBlobs,
        executions: list[Execution],
    ) -> None:
        assert job.data_key is not None
        key = self.known[job.data_key]
        rows = {
            sk: decode_body(s.body) for sk, s in database.partitions.get(keys.attestation_partition(job.id), {}).items()
        }
        require(not database.partitions.get(keys.log_partition(job.id)), f"{job.id} is sealed, and has a log")
        for each in executions:
            agent = each.name.partition("/")[0]
            opener = self.opened.get((job.id, each.lease.attempt), "")
            require(opener.partition(" ")[0] == agent, f"{each.name} ran with the key of {opener or 'nobody'}")
            read_ = self.inputs.get(job.data_key, b"")
            require(each.stdin == read_, f"{each.name} has read {each.stdin!r}, and not {read_!r}")
        by_name = {each.name: each for each in executions}
        for sk, body in records.items():
            if not sk.startswith("ATTEMPT#"):
                continue
            outcome, number = body.get("outcome") or {}, body["attempt"]
            require("does not open" not in outcome.get("detail", ""), f"{job.id}: {outcome.get('detail')}")
            require("not the one that" not in outcome.get("detail", ""), f"{job.id}: {outcome.get('detail')}")
            execution = by_name.get(outcome.get("runtime_version") or "")
            expected = {} if execution is None else execution.left
            boxes = {each["name"]: _data(blobs, job.tenant, each) for each in outcome.get("outputs", [])}
            require(all(box.startswith(b"hzc1") for box in boxes.values()), f"{job.id} {sk}: an output is not sealed")
            opened = {name: sealed.unseal(key, name, box) for name, box in boxes.items()}
            require(opened == expected, f"{job.id} {sk} left {opened}, written was {expected}")
            if "statement" in body:
                release = rows.get(keys.key_release(job.id, number).sk)
                require(release is not None, f"{job.id} {sk} has a statement, and never had a key")
                assert release is not None
                stated = body["statement"]["body"]
                same = (stated["tier"]["delivered"], stated["evidence"]) == (release["tier"], release["evidence"])
                require(same, f"{job.id} {sk} states {stated['tier']}, {stated['evidence']}, released was {release}")
        for sk, body in rows.items():
            if sk.startswith("APPRAISAL#"):
                _made_again(blobs, job.tenant, body)

    def _nothing_open(
        self,
        database: MemoryDatabase,
        blobs: MemoryBlobs,
        found: Mapping[str, Mapping[str, Body]],
        executions: Mapping[str, Execution],
    ) -> None:
        jobs = {job_id for job_id, records in found.items() if "data_key" in records["META"]}
        texts = {text for e in executions.values() if e.lease.job in jobs for text in e.texts}
        secret = {text.strip().encode() for text in texts}
        for key in self.known.values():
            secret |= {key, key.hex().encode(), base64.b64encode(key)}
        stored = [s.body for rows in database.partitions.values() for s in rows.values()]
        whole = b"\n".join([*stored, *blobs._blobs.values()])
        shown = [each[:40] for each in secret if each in whole]
        require(not shown, f"it can be read in what is stored: {shown}")


def _delivered(job_id: str, old: Body, new: Body, operations: Operations) -> None:
    """What a runner has proved is written with the release alone, and is of its attempt."""
    was, now = ((body.get("delivered", 0), body.get("evidence")) for body in (old, new))
    release = operations.get(keys.key_release(job_id, new.get("attempt", 0)))
    if isinstance(release, Put):
        was = release.body["tier"], release.body["evidence"]
    elif new.get("attempt") != old.get("attempt"):
        was = 0, None
    require(was == now, f"{job_id}: attempt {new.get('attempt')} has delivered {now}, and not {was}")


def _policy(key: Key, old: Body | None, new: Body, operations: Operations) -> None:
    if key.sk != "META":
        require(old is None, f"{key} was written twice")
        return
    require(new["version"] == (old or {"version": 0})["version"] + 1, f"{key} went from {old} to {new}")
    require(
        Key(key.pk, f"{keys.VERSION}{new['version']:09d}") in operations, f"{key} names a version that is not there"
    )


def _made_again(blobs: MemoryBlobs, tenant: str, body: Body) -> None:
    """From what is stored, by who trusts nobody: the same verdict for the same reasons."""
    bundle = json.loads(blobs.get(tenant, body["bundle"]))
    evidence = [Evidence(Platform(each["platform"]), _files(each["files"])) for each in bundle["evidence"]]
    collateral = {Platform(name): _files(files) for name, files in bundle["collateral"].items()}
    bound = {name: bytes.fromhex(bundle["binding"][name]) for name in ("nonce", "sealing_key", "gpu_digest")}
    binding = Binding(signing_key=base64.b64decode(bundle["binding"]["signing_key"]), **bound)
    activated = [(bytes.fromhex(ek), bytes.fromhex(ak)) for ek, ak in bundle["activated"]]
    policy = documents.from_document(bundle["policy"])
    again = appraise(evidence, policy, collateral, bundle["now_ms"], binding=binding, activated=activated)
    found = (again.verdict.value, int(again.tier), list(again.reasons))
    require(found == (body["verdict"], body["tier"], body["reasons"]), f"{body['id']} was {body}, and is {found} again")


def _data(blobs: MemoryBlobs, tenant: str, output: Body) -> bytes:
    return base64.b64decode(output["inline_base64"]) if "blob" not in output else blobs.get(tenant, output["blob"])


def _files(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: base64.b64decode(text) for name, text in files.items()}


def _body(stored: StoredRecord | None) -> Body | None:
    return None if stored is None else decode_body(stored.body)


# What tenants do


def govern(random: Random, scheduler: Scheduler, tenant: str, call: Call) -> None:
    """Put the policy by which runners are appraised, and perhaps others later."""
    version = _put(tenant, call)
    for _ in range(random.choice((0, 0, 1, 2))):
        scheduler.pause(random.randrange(15 * SECOND))
        narrow = random.random() < 0.3
        version = _put(tenant, call, random.randbytes(32).hex(), roots=not narrow, after=version)
        if narrow:  # the second agent is out for a while
            scheduler.pause(random.randrange(SECOND, 6 * SECOND))
            version = _put(tenant, call, after=version)


def _put(tenant: str, call: Call, *more: str, roots: bool = True, after: int = 0) -> int:
    text = ENDORSED.policy(ENROLLED, *more, roots=roots)
    made = call("put policy", lambda ctx: (policies.put(ctx, tenant, policies.DEFAULT, text), ()))
    shown = call("show policy", lambda ctx: (policies.show(ctx, tenant, policies.DEFAULT), ()))
    require(shown["version"] >= made["version"] > after, f"{made} was put after {after}, and {shown} is there")
    call("list policies", lambda ctx: (policies.listed(ctx, tenant, cursor="", limit=10), ()))
    return int(made["version"])


def deposit(random: Random, tenant: str, other: str, job_id: str, key: bytes, call: Call) -> None:
    """Give the platform the key of a job; others, and other keys, are refused."""
    with suppress(Conflict):  # it has ended
        if random.random() < 0.1:
            try:
                call("deposit another", lambda ctx: (release_key.deposit(ctx, tenant, job_id, bytes(32)), ()))
            except InvalidRequest:
                pass
            else:
                require(False, f"{job_id} took another key than its own")
            try:
                call("deposit as another", lambda ctx: (release_key.deposit(ctx, other, job_id, key), ()))
            except NotFound:
                pass
            else:
                require(False, f"{other} could give a key of {job_id}")
        call(f"deposit {job_id}", lambda ctx: (release_key.deposit(ctx, tenant, job_id, key), ()))


def entrust(random: Random, scheduler: Scheduler, tenant: str, job_id: str, key: bytes, call: Call) -> None:
    """Seal the key to each runner of the job whose evidence was accepted, until it has ended."""
    done: set[int] = set()
    while True:
        view = call(f"show {job_id}", lambda ctx: (read.job(ctx, tenant, job_id), ()))
        if State(view["state"]).terminal:
            return
        shown = call(f"attestations {job_id}", lambda ctx: (appraisals.shown(ctx, tenant, job_id), ()))
        for attempt, recipient in [(e["attempt"], e["sealing_key"]) for e in shown if e["verdict"] == "accept"]:
            if attempt in done or attempt != view["attempt"]:
                continue
            to = bytes.fromhex(recipient)
            box = hpke.seal(to, key, hpke.info(job_id, attempt))
            with suppress(StaleFence, Conflict, Rejected):  # it lost the job, or a stale read says so
                call(
                    f"entrust {job_id} {attempt}",
                    lambda ctx, attempt=attempt, to=to, box=box: (
                        release_key.entrust(ctx, tenant, job_id, attempt, to, box),
                        (),
                    ),
                )
                done.add(attempt)
        scheduler.pause(random.randrange(SECOND // 2, 3 * SECOND))
