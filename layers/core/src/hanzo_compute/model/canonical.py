"""The canonical form of JSON values: RFC 8785 (JSON Canonicalization Scheme), UTF-8."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import rfc8785

EXACT_MAX: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exact; larger ones are written as decimal strings."""

DEPTH_MAX: Final = 64

_encode: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical(value: Any) -> bytes:
    """The one text that stands for a JSON value.

    Raises:
        ValueError: it has a form in no JSON, such as NaN, a lone surrogate, or an integer over ``EXACT_MAX``; or it
            is nested deeper than ``DEPTH_MAX``.
    """
    if isinstance(value, dict | list):
        _check_depth(value, DEPTH_MAX)
    if _plain(value):
        return _encode(value).encode()  # the same text, from the standard library's encoder in C
    return rfc8785.dumps(value)


def digest(value: Any) -> str:
    """SHA-256, hex, of a value's canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _check_depth(value: dict[str, Any] | list[Any], depth: int) -> None:
    if not depth:
        raise ValueError(f"it is nested deeper than {DEPTH_MAX}")
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            _check_depth(item, depth - 1)


def _plain(value: Any) -> bool:
    """Whether both encoders write a value alike: no floats, no big integers, ASCII names (whose order is the same)."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-EXACT_MAX <= value <= EXACT_MAX)
    if kind is dict:
        return all(type(name) is str and name.isascii() and _plain(item) for name, item in value.items())
    if kind is list:
        return all(map(_plain, value))
    return False
