"""Every documented bound of the API, in one place: docs, OpenAPI and checks read these."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

BODY_MAX: Final = 1 * MIB
"""A request body, bytes (blobs go by presigned URL)."""
JSON_VALUES_MAX: Final = 10_000
"""Values in a request body."""
PROBLEMS_MAX: Final = 20
"""Field problems in one refusal; there may be more."""
BLOB_MAX: Final = 8 * MIB
"""A single-chunk blob, bytes."""
PACKAGE_ENTRIES_MAX: Final = 2000
"""Files and folders of a package, with those of the wheels in it."""
PACKAGE_SIZE_MAX: Final = 32 * MIB
"""All of them unpacked, bytes."""
PACKAGE_RATIO_MAX: Final = 200
"""A file of a package is at most so many times as large as it is packed …"""
PACKAGE_RATIO_FREE: Final = 1 * MIB
"""… unless it is no larger than this, bytes."""
PACKAGE_PATH_MAX: Final = 512
"""A path in a package, bytes."""
PACKAGE_DEPTH_MAX: Final = 32
"""Parts of a path in a package."""
INLINE_MAX: Final = 64 * KIB
"""An inline input or inline source code, bytes after decoding."""
INLINE_OUTPUT_MAX: Final = 16 * KIB
"""Output or log that rides in the outcome, bytes; what is larger becomes a blob."""
INLINE_OUTPUTS_MAX: Final = 64 * KIB
"""All inline outputs of an outcome together, bytes."""
OUTPUT_MAX: Final = BLOB_MAX
"""Standard output that is kept as the job's result, bytes; the rest is cut and flagged."""
LOG_CHUNK_MAX: Final = 256 * KIB
"""One log chunk, bytes."""
LOG_ENTRIES_MAX: Final = 2000
"""Entries of one log chunk."""
LOG_CHUNKS_MAX: Final = 4096
"""Log chunks of one attempt."""

RESPONSE_MAX: Final = 4 * MIB
"""What a function may answer, bytes: a Lambda's response has 6 MB, in base64."""

ARGS_MAX: Final = 256
ENV_MAX: Final = 256
TEXT_MAX: Final = 32 * KIB
"""All args together, and all of env together, bytes."""
LABELS_MAX: Final = 8

MEMORY_MIB_MIN: Final = 1
MEMORY_MIB_MAX: Final = 4096
MEMORY_MIB_DEFAULT: Final = 256
TIMEOUT_S_MAX: Final = 3600
TIMEOUT_S_DEFAULT: Final = 60
FUEL_MAX: Final = 2**53 - 1
"""Largest fuel limit: the largest integer that every JSON reader keeps exact."""
LOG_LIMIT_MIN: Final = 1 * KIB
LOG_LIMIT_MAX: Final = 8 * MIB
LOG_LIMIT_DEFAULT: Final = 1 * MIB
ATTEMPTS_MAX: Final = 10
BACKOFF_S_MAX: Final = 900
DEADLINE_S_MAX: Final = 30 * 24 * 3600

FUNCTIONS_MAX: Final = 1000
"""Functions of one tenant."""
VERSIONS_MAX: Final = 99
"""Versions of a function that are kept: it is removed, they with it, in one transaction of 100 operations."""
ALIASES_MAX: Final = 10
WEIGHTS_MAX: Final = 4
"""Versions that one alias divides calls among."""
HISTORY_MAX: Final = 20
"""Changes of a function's aliases that are told of, and settings of one alias that can be gone back to."""
CONCURRENCY_MAX: Final = 1000
CONCURRENCY_DEFAULT: Final = 10
SECRETS_MAX: Final = 32
ORIGINS_MAX: Final = 32
KV_KEY_MAX: Final = 512
"""A key of a function's key-value store, bytes."""
KV_VALUE_MAX: Final = 256 * KIB
KV_TOUCHED_MAX: Final = 40
"""Keys that one call reads or writes: they are committed with its outcome, in one transaction."""
KV_WRITTEN_MAX: Final = 2 * MIB
"""Bytes of all values that one call writes: a transaction holds 4 MB, and values are stored in base64."""
SECRET_VALUE_MAX: Final = 64 * KIB
TENANT_SECRETS_MAX: Final = 1000
"""Secrets of one tenant."""
EGRESS_REQUEST_MAX: Final = 1 * MIB
EGRESS_RESPONSE_MAX: Final = 4 * MIB
EGRESS_HOPS_MAX: Final = 3
"""Redirects that one call of ``http`` follows."""
EGRESS_S_MAX: Final = 60
"""Seconds that one call of ``http`` takes at most, and never longer than the call that it is part of."""
CALL_OUTPUTS_MAX: Final = 16
"""Named outputs of one call; together of OUTPUT_MAX bytes."""
DESCRIPTION_MAX: Final = 500
"""Characters."""

PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 20
WAIT_S_MAX: Final = 20
"""Longest long poll, seconds (an HTTP API integration ends at 30)."""
IDEMPOTENCY_KEY_MAX: Final = 255

CRON_MAX: Final = 200
"""Characters of a cron expression."""
SCHEDULES_MAX: Final = 1000
"""Schedules of one tenant."""
SCHEDULE_JOBS_MAX: Final = 20
"""Jobs that a schedule submits at a time."""
SCHEDULE_RUNS_KEPT: Final = 50
"""Runs of a schedule that are remembered."""
MISSED_MAX: Final = 100
"""Missed runs that are made up for by `missed: all`."""

PLAN_PARTS_MAX: Final = 4
"""Factors, and modalities, of a planning problem."""
PLAN_NAMES_MAX: Final = 64
"""States of a factor, its actions, or outcomes of a modality."""
PLAN_HORIZON_MAX: Final = 16
"""Steps that a plan looks ahead."""
PLAN_POLICIES_MAX: Final = 65_536
"""Plans that are compared."""
PLAN_TABLE_MAX: Final = 1 << 20
"""Joint states times joint outcomes times joint actions."""
PLAN_WORK_MAX: Final = 1 << 27
"""Joint states times joint outcomes times joint actions times beginnings of plans times the questions of a trace."""
PLAN_NATS_MAX: Final = 1_000_000
"""Largest preference, and largest precision."""
PLAN_CANDIDATES_MAX: Final = 64
"""First actions that a trace lists."""
