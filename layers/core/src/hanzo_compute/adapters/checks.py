"""What every adapter refuses, so that what works on one works on all: callers' mistakes are ValueErrors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json, to_json

from hanzo_compute.model.keys import INDEXES, Key
from hanzo_compute.ports import DEAD_LETTERS, RECORD_MAX, TRANSACTION_MAX, Body, Entries, Operation, Put

TRANSACTION_BYTES_MAX: Final = 4_000_000
"""Bytes of all bodies of one transaction as JSON: DynamoDB's bound."""
PARTITION_KEY_MAX: Final = 2048
SORT_KEY_MAX: Final = 1024
MESSAGE_MAX: Final = 262_144
"""Bytes of a message's body as JSON: SQS's bound before 2025, and still that of many consumers."""
DELAY_S_MAX: Final = 900
VISIBILITY_S_MAX: Final = 43_200
HASTEN_S_MAX: Final = 10**11
MAX_RECEIVES: Final = 5
"""Receives of a message before it is a dead letter, unless the queue's configuration says otherwise."""

_QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")


def encode_body(body: Any, maximum: int = RECORD_MAX) -> bytes:
    """The body as JSON; refuses what would come back changed, and what is over ``maximum`` bytes."""
    try:
        text: bytes = to_json(body)
        same = isinstance(body, dict) and from_json(text, allow_inf_nan=False, cache_strings="keys") == body
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from error
    if not same:
        raise ValueError("the body would come back from JSON changed: use dict, list, str, int, float, bool")
    if len(text) > maximum:
        raise ValueError(f"a body of {len(text)} bytes is over {maximum}: put the large part into a blob")
    return text


def decode_body(text: bytes | str) -> Body:
    """The body that :func:`encode_body` wrote."""
    body: Body = from_json(text, cache_strings="keys")
    return body


def check_operations(operations: Sequence[Operation]) -> list[bytes | None]:
    """Refuse what DynamoDB would refuse; returns the encoded body of each Put, None for other operations."""
    if not 1 <= len(operations) <= TRANSACTION_MAX:
        raise ValueError(f"a transaction has 1 to {TRANSACTION_MAX} operations, not {len(operations)}")
    if len({operation.key for operation in operations}) != len(operations):
        raise ValueError("a transaction names a key twice: merge its operations on one record")
    bodies: list[bytes | None] = []
    for operation in operations:
        check_key(operation.key)
        if isinstance(operation, Put):
            _check_entries(operation.index)
            bodies.append(encode_body(operation.body))
        else:
            bodies.append(None)
    if sum(len(body) for body in bodies if body is not None) > TRANSACTION_BYTES_MAX:
        raise ValueError(f"the bodies of a transaction are over {TRANSACTION_BYTES_MAX} bytes together")
    return bodies


def check_key(key: Key) -> None:
    """Refuse an empty, overlong or unencodable key."""
    _check_key_part(key.pk, PARTITION_KEY_MAX)
    _check_key_part(key.sk, SORT_KEY_MAX)


def check_index(index: str) -> None:
    """Refuse an index that does not exist."""
    if index not in INDEXES:
        raise ValueError(f"no index {index!r}: there are {', '.join(INDEXES)}")


def _check_entries(entries: Entries) -> None:
    for index, (pk, sk) in entries.items():
        check_index(index)
        check_key(Key(pk, sk))


def _check_key_part(text: str, maximum: int) -> None:
    if not 0 < len(text.encode()) <= maximum:
        raise ValueError(f"a key part has 1 to {maximum} bytes: {text[:60]!r}")


def check_limit(limit: int) -> None:
    """Refuse to read nothing."""
    if limit < 1:
        raise ValueError(f"limit is at least 1, not {limit}")


def check_queue(queue: str) -> None:
    """Refuse a queue name that SQS would refuse."""
    if not _QUEUE_NAME.fullmatch(queue):
        raise ValueError(f"not a queue name: {queue!r}")


def check_seconds(name: str, seconds: int, maximum: int) -> None:
    """Refuse a delay or visibility timeout that SQS would refuse."""
    if not 0 <= seconds <= maximum:
        raise ValueError(f"{name} is 0 to {maximum} seconds, not {seconds}")


def max_receives(limits: dict[str, int], queue: str) -> int | None:
    """Receives before a message of ``queue`` is a dead letter; None for the dead letters themselves."""
    return limits.get(queue, None if queue.endswith(DEAD_LETTERS) else MAX_RECEIVES)


def page(found: list[Any], limit: int, reverse: bool) -> list[Any]:
    """The first ``limit`` of what is in ascending order, or the last ones backwards."""
    return found[::-1][:limit] if reverse else found[:limit]
