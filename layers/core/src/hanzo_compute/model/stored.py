"""What lies in a state folder, before anybody has believed it: for repairs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hanzo_compute.model.keys import Key

UNFINISHED: Final = re.compile(
    r"\.(credentials\.json|platform\.json|runner\.key|key)\.[a-z0-9_]{8}|\.[0-9a-f]{16}|\.hzc-unfinished"
)
"""Names of small files in a state folder, ``run`` and ``keys`` that a killed process was writing: one that was to
replace another, a key before it had its name, the mark of a restore."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record; ``body`` and ``entries`` (its index entries, or None) are text that may be anything."""

    key: Key
    rev: int
    body: str
    entries: str | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in a queue; ``body`` is text that may be anything."""

    seq: int
    queue: str
    body: str


@dataclass(frozen=True, slots=True)
class LeftAttempt:
    """What an agent keeps of an attempt: its folder, or only the ``journal`` of its log."""

    agent: str
    job: str
    attempt: int
    path: Path
    journal: bool


@dataclass(frozen=True, slots=True)
class BlobUse:
    """A blob that a record names."""

    tenant: str
    blob: str
    user: str
    """The job or function that uses it, in words."""
    needed: bool
    """It will be read again: the job has not ended, or the version of the function can be called."""
