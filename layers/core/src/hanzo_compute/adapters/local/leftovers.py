"""Files in a state folder that processes leave when they are killed."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Final

from hanzo_compute.model.stored import UNFINISHED, LeftAttempt

UPLOAD: Final = re.compile(r"\.[0-9a-f]{16}")
"""A blob before it has its name."""
DOWNLOAD: Final = re.compile(r"\..+\.[0-9a-f]{16}")
"""An interpreter before it has its name."""
ABANDONED_S: Final = 3600
"""No download takes this many seconds."""

_ATTEMPT: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,18})")
_NEW_ATTEMPT: Final = ".new-"


def temporary(home: Path, cache: Path) -> Iterator[Path]:
    """Every temporary file or folder. Nobody may be working in ``home``, agents that have their lock excepted.

    Others may be working in ``cache``: there only what is old counts.
    """
    for path in _children(cache / "interpreters"):
        if DOWNLOAD.fullmatch(path.name) and time() - path.stat().st_mtime > ABANDONED_S:
            yield path
    yield from _plain(home)
    yield from _uploads(home)
    for agent in _idle_agents(home):
        yield from (path for path in _children(agent / "attempts") if path.name.startswith(_NEW_ATTEMPT))
        yield from (path for path in _children(agent / "journal") if path.suffix == ".new")


def attempts(home: Path) -> Iterator[LeftAttempt]:
    """Each attempt whose agent does not run, and journals without an attempt."""
    for agent in _idle_agents(home):
        for path in _children(agent / "attempts"):
            match = _ATTEMPT.fullmatch(path.name)
            if match:
                yield LeftAttempt(agent.name, match[1], int(match[2]), path, journal=False)
        for path in _children(agent / "journal"):
            match = _ATTEMPT.fullmatch(path.stem)
            if match and path.suffix == ".json" and not (agent / "attempts" / path.stem).exists():
                yield LeftAttempt(agent.name, match[1], int(match[2]), path, journal=True)


def _plain(home: Path) -> Iterator[Path]:
    for folder in (home, home / "run", home / "keys"):
        for path in _children(folder):
            if path.is_file() and UNFINISHED.fullmatch(path.name):
                yield path


def _uploads(home: Path) -> Iterator[Path]:
    """Of a release that had them beside the blobs; now they are locked, and go when the store is opened."""
    for tenant in _children(home / "blobs"):
        for prefix in _children(tenant):
            if prefix.is_dir() and not prefix.is_symlink():
                with os.scandir(prefix) as entries:
                    names = [entry.name for entry in entries if UPLOAD.fullmatch(entry.name)]
                yield from (prefix / name for name in sorted(names))


def _idle_agents(home: Path) -> Iterator[Path]:
    """Folders of agents, each while its lock is ours: no agent runs in it."""
    for agent in _children(home / "agents"):
        if not agent.is_dir():
            continue
        lock = os.open(agent / "runner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield agent
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def _children(folder: Path) -> list[Path]:
    if not folder.is_dir() or folder.is_symlink():
        return []
    return sorted(folder.iterdir())
