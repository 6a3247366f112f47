"""Where records live: partition and sort keys of every kind of record, and the indexes they appear in.

A *wake key* is a partition: whoever waits for something to happen to a job waits for writes to its partition.
"""

from __future__ import annotations

import zlib
from hashlib import sha256
from typing import Final, NamedTuple

SHARDS: Final = 8
"""Partitions of the due index and of the outbox: on DynamoDB one partition takes 1,000 writes a second."""


ATTEMPT: Final = "ATTEMPT#"
"""Prefix of the sort keys of a job's attempts."""
VERSION: Final = "VERSION#"
"""Prefix of the sort keys of a function's versions."""
LEAF: Final = "LEAF#"
"""Prefix of the sort keys of a job's leaves."""


SCHEDULE: Final = "SCHEDULE#"
"""Prefix of the partitions of schedules."""
BATCH: Final = "BATCH#"
"""Prefix of the partitions of batches of invocations."""
ATTESTATION: Final = "ATTESTATION#"
"""Prefix of the partitions of what was attested for a job."""
STATEMENTS: Final = "BODY#"
"""Prefix of the sort keys of batches' statements."""
TRACE: Final = "TRACE#"
"""Prefix of the sort keys of a job's placements."""
TELEMETRY_SLOTS: Final = 2_880
"""Records of telemetry that are kept: a day of them."""


class Key(NamedTuple):
    """Primary key of a record."""

    pk: str
    sk: str


def job_partition(job: str) -> str:
    """Partition of a job's record, spec, events and attempts."""
    return f"JOB#{job}"


def job(job_id: str) -> Key:
    """The record that moves."""
    return Key(job_partition(job_id), "META")


def spec(job_id: str) -> Key:
    """The spec, which never changes."""
    return Key(job_partition(job_id), "SPEC")


def event(job_id: str, seq: int) -> Key:
    """One event; ``seq`` from 1."""
    return Key(job_partition(job_id), f"EVENT#{seq:08d}")


def attempt(job_id: str, number: int) -> Key:
    """One attempt and its outcome; ``number`` from 1."""
    return Key(job_partition(job_id), f"{ATTEMPT}{number:08d}")


def trace(job_id: str, number: int) -> Key:
    """Why the attempt that was to come was placed where it was; ``number`` is that attempt's."""
    return Key(job_partition(job_id), f"{TRACE}{number:08d}")


def leaf(job_id: str, number: int | None) -> Key:
    """The leaf of an attempt's outcome; without a number that of a job's end, if no outcome brought it."""
    return Key(job_partition(job_id), f"{LEAF}end" if number is None else f"{LEAF}{number:08d}")


def batch_partition(tenant: str, at_ms: int) -> str:
    """Partition of the batches whose last invocation began at ``at_ms``, or in the same 17 minutes."""
    return f"{BATCH}{tenant}#{at_ms >> 20}"


def batch_leaf(tenant: str, at_ms: int, last: str) -> Key:
    """The leaf of a batch, found by its ``last`` invocation (26 characters), which began at ``at_ms``."""
    return Key(batch_partition(tenant, at_ms), f"{LEAF}{last}")


def batch(tenant: str, at_ms: int, last: str) -> Key:
    """The statements of a batch, which never change."""
    return Key(batch_partition(tenant, at_ms), f"{STATEMENTS}{last}")


def log_partition(job_id: str) -> str:
    """Partition of a job's log chunks."""
    return f"LOG#{job_id}"


def log(job_id: str, number: int, seq: int) -> Key:
    """One log chunk of an attempt."""
    return Key(log_partition(job_id), f"{number:08d}#{seq:08d}")


def label(tenant: str, name: str, value: str, job_id: str) -> Key:
    """Entry of a job under one of its labels."""
    return Key(f"LABEL#{tenant}#{name}={value}", job_id)


def idempotency(tenant: str, key: str) -> Key:
    """What an ``Idempotency-Key`` was used for."""
    return Key(f"IDEMPOTENCY#{tenant}#{key}", "-")


def outbox(shard: int, row: str) -> Key:
    """A message that a transaction wants sent; ``row`` sorts by time."""
    return Key(f"OUTBOX#{shard}", row)


def observed_partition(number: int) -> str:
    """One shard of what became of placements, as far as nobody has learnt from it."""
    return f"OBSERVED#{number}"


def observed(at_ms: int, job_id: str, attempt: int) -> Key:
    """What became of one attempt's placement: written once, removed by who learns from it."""
    return Key(observed_partition(shard(job_id)), f"{at_ms:015d}#{job_id}#{attempt:08d}")


def routing() -> Key:
    """All that was learnt of pools, runtimes and regimes."""
    return Key("ROUTING", "-")


def telemetry(slot: int) -> Key:
    """How busy the platform was in one interval; the slots are used in turn."""
    return Key("TELEMETRY", f"{slot % TELEMETRY_SLOTS:05d}")


def tree_head() -> Key:
    """Size and right edge of the transparency log's tree."""
    return Key("TREE", "HEAD")


def checkpoint() -> Key:
    """The newest signed checkpoint of the transparency log; its partition is the wake key of whoever waits for it."""
    return Key("CHECKPOINT", "-")


def tile(level: int, number: int) -> Key:
    """256 hashes of the transparency log's tree; on level 0, 256 leaves."""
    return Key(f"TILE#{level}", f"{number:015d}")


def agent(lessee: str, name: str) -> Key:
    """The key of an agent, by its name."""
    return Key(f"AGENT#{lessee}#{name}", "-")


def tariff(version: str) -> Key:
    """A tariff; one of the same version never changes."""
    return Key(f"TARIFF#{version}", "-")


def function_partition(tenant: str, name: str) -> str:
    """Partition of a function's record and versions."""
    return f"FUNCTION#{tenant}#{name}"


def function(tenant: str, name: str) -> Key:
    """A function's aliases, and which versions there are; of a removed one, the number that it had come to."""
    return Key(function_partition(tenant, name), "META")


def version(tenant: str, name: str, number: int) -> Key:
    """A version of a function, which never changes; ``number`` from 1."""
    return Key(function_partition(tenant, name), f"{VERSION}{number:09d}")


def kv_partition(tenant: str, name: str) -> str:
    """Partition of a function's key-value entries."""
    return f"KV#{tenant}#{name}"


def kv(tenant: str, name: str, key: bytes) -> Key:
    """A key-value entry, or for a while what is left of one; keys are any bytes, so the sort key is in hex."""
    return Key(kv_partition(tenant, name), key.hex())


def is_kv(key: Key) -> bool:
    """Whether a record is a key-value entry."""
    return key.pk.startswith("KV#")


def secret(tenant: str, name: str) -> Key:
    """A secret, sealed."""
    return Key(f"SECRET#{tenant}#{name}", "-")


def audit_partition(tenant: str) -> str:
    """Partition of the records of who read a tenant's secrets."""
    return f"AUDIT#{tenant}"


def audit(tenant: str, at_ms: int, call: str, secret: str) -> Key:
    """A call has read a secret: it never changes."""
    return Key(audit_partition(tenant), f"{at_ms:015d}#{call}#{secret}")


def is_audit(key: Key) -> bool:
    """Whether a record says who read a secret."""
    return key.pk.startswith("AUDIT#")


def clock() -> Key:
    """The last time that the reconciler saw."""
    return Key("CLOCK", "-")


def schedule_partition(tenant: str, name: str) -> str:
    """Partition of a schedule's record, jobs and runs."""
    return f"{SCHEDULE}{tenant}#{name}"


def schedule(tenant: str, name: str) -> Key:
    """The record of a schedule that moves."""
    return Key(schedule_partition(tenant, name), "META")


def schedule_spec(tenant: str, name: str, digest: str) -> Key:
    """The jobs of a schedule, by their digest: whoever reads them under it reads the right ones."""
    return Key(schedule_partition(tenant, name), f"SPEC#{digest}")


def schedule_run(tenant: str, name: str, slot: int) -> Key:
    """One of the last runs of a schedule; the slots are used in turn."""
    return Key(schedule_partition(tenant, name), f"RUN#{slot:03d}")


def challenge(challenge_id: str) -> Key:
    """A nonce that evidence must answer; it is gone once it was."""
    return Key(f"CHALLENGE#{challenge_id}", "-")


def is_challenge(key: Key) -> bool:
    """Whether a record is a nonce."""
    return key.pk.startswith("CHALLENGE#")


def attestation_partition(job_id: str) -> str:
    """Partition of a job's appraisals, releases and what was decided of them."""
    return f"{ATTESTATION}{job_id}"


def appraisal(job_id: str, appraisal_id: str) -> Key:
    """One appraisal of a runner's evidence; ids sort by time."""
    return Key(attestation_partition(job_id), f"APPRAISAL#{appraisal_id}")


def key_release(job_id: str, number: int) -> Key:
    """The key as it was sealed to the one recipient of an attempt."""
    return Key(attestation_partition(job_id), f"RELEASE#{number:08d}")


def decision(job_id: str, decision_id: str) -> Key:
    """The leaf of a decision about a key; ids sort by time."""
    return Key(attestation_partition(job_id), f"{LEAF}{decision_id}")


def data_key(job_id: str) -> Key:
    """A job's data key, sealed for the broker."""
    return Key(f"DATAKEY#{job_id}", "-")


def policy_partition(tenant: str, name: str) -> str:
    """Partition of the versions of an appraisal policy."""
    return f"POLICY#{tenant}#{name}"


def policy(tenant: str, name: str, number: int | None = None) -> Key:
    """A version of an appraisal policy, which never changes; without a number, which one is current."""
    return Key(policy_partition(tenant, name), "META" if number is None else f"{VERSION}{number:09d}")


def credential(key_id: str) -> Key:
    """An API key: hash, tenant, role."""
    return Key(f"CREDENTIAL#{key_id}", "-")


def function_log(tenant: str, name: str, chunk: str) -> Key:
    """A chunk of what a function's calls have written; ``chunk`` sorts by time."""
    return Key(f"FNLOG#{tenant}#{name}", chunk)


def public_function(name: str) -> Key:
    """Whose function has this name under ``/fn/`` for everybody."""
    return Key(f"PUBLIC#{name}", "-")


def shard(value: str) -> int:
    """The shard of an id: stable across processes and releases."""
    return zlib.crc32(value.encode()) % SHARDS


# Indexes: name -> (partition, sort). Small and fixed in number: each is a secondary index on DynamoDB.

BY_TENANT: Final = "tenant"
BY_STATE: Final = "state"
BY_DUE: Final = "due"
BY_POOL: Final = "pool"
BY_LOG: Final = "log"
INDEXES: Final = (BY_TENANT, BY_STATE, BY_DUE, BY_POOL, BY_LOG)


def tenant_entry(tenant: str, job_id: str) -> tuple[str, str]:
    """All jobs of a tenant, by time of creation."""
    return f"TENANT#{tenant}", job_id


def function_entry(tenant: str, name: str) -> tuple[str, str]:
    """All functions of a tenant, by name."""
    return f"FUNCTIONS#{tenant}", name


def schedules_partition(tenant: str) -> str:
    """All schedules of a tenant, by name, in the index of tenants."""
    return f"SCHEDULES#{tenant}"


def policy_entry(tenant: str, name: str) -> tuple[str, str]:
    """All appraisal policies of a tenant, by name."""
    return f"POLICIES#{tenant}", name


def secret_entry(tenant: str, name: str) -> tuple[str, str]:
    """All secrets of a tenant, by name."""
    return f"SECRETS#{tenant}", name


def state_entry(tenant: str, state: str, job_id: str) -> tuple[str, str]:
    """A tenant's jobs in one state, by time of creation."""
    return f"TENANT#{tenant}#{state}", job_id


def due_partition(number: int) -> str:
    """One shard of what becomes due."""
    return f"DUE#{number}"


def due_entry(due_ms: int, record_id: str) -> tuple[str, str]:
    """What the reconciler must look at, by time."""
    return due_partition(shard(record_id)), due_before(due_ms) + record_id


def expiry_entry(at_ms: int, key: Key) -> tuple[str, str]:
    """A record that is removed at a time; ``expires_ms`` of its body."""
    # Sort keys of indexes are short; those of records that share a partition are told apart by a digest.
    return due_entry(at_ms, key.pk if key.sk == "-" else f"{key.pk}#{sha256(key.sk.encode()).hexdigest()[:16]}")


def due_before(ms: int) -> str:
    """Sort-key prefix that comes after all entries due before ``ms``."""
    return f"{ms:015d}#"


def pool_partition(pool: str) -> str:
    """Jobs placed in a pool and not yet leased; also its wake key."""
    return f"POOL#{pool}"


UNPLACED: Final = "UNPLACED"
"""Partition of the pool index with the jobs that wait and are in no pool yet."""


def unplaced_entry(job_id: str) -> tuple[str, str]:
    """A job that waits to be placed."""
    return UNPLACED, job_id


def pool_entry(pool: str, placed_ms: int, job_id: str) -> tuple[str, str]:
    """First placed, first leased."""
    return pool_partition(pool), f"{placed_ms:015d}#{job_id}"


def unlogged_partition(number: int) -> str:
    """One shard of the leaves that are not in the transparency log yet."""
    return f"UNLOGGED#{number}"


def unlogged_entry(at_ms: int, key: Key) -> tuple[str, str]:
    """A leaf that waits for its place in the transparency log, by time."""
    return unlogged_partition(shard(key.pk)), f"{at_ms:015d}"
