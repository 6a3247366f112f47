"""Processes of a platform that has ended: found by their environment, ended only when they are surely ours."""

from __future__ import annotations

import os
import re
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODULES: Final = frozenset(
    {
        "hanzo_compute.adapters.local.writer",
        "hanzo_compute_host.front",
        "hanzo_compute_host.provision",
        "hanzo_compute_host.pump",
        "hanzo_compute_agent",
    }
)
"""What a supervisor starts. Workers end with their agent."""
GRACE_S: Final = 5.0
KILLED_S: Final = 5.0

_OUR_AGENT: Final = re.compile(r"local-[0-9]+")


@dataclass(frozen=True, slots=True)
class Orphan:
    """A process and the module that it runs."""

    pid: int
    module: str


def find(home: Path) -> Iterator[Orphan]:
    """Processes that a supervisor started for ``home``; call it while no platform can run there."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            module = _module(int(entry.name), home)
            if module is not None:
                yield Orphan(int(entry.name), module)


def end(orphan: Orphan, home: Path) -> bool:
    """End it, gracefully at first; False when it does not end, or is not ours after all."""
    try:
        descriptor = os.pidfd_open(orphan.pid)
    except OSError:  # it has ended
        return True
    try:
        # Now that the descriptor holds the process, its number cannot mean another one.
        if _module(orphan.pid, home) != orphan.module:
            return _ended(descriptor, 0)
        for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, KILLED_S)):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if _ended(descriptor, patience):
                return True
        return False
    except PermissionError:
        return False
    finally:
        os.close(descriptor)


def _ended(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def _module(pid: int, home: Path) -> str | None:
    """The module of ours that a process runs for this home, or None."""
    folder = Path("/proc", str(pid))
    try:
        if folder.stat().st_uid != os.geteuid():
            return None
        command = (folder / "cmdline").read_bytes().split(b"\0")
        pairs = (pair.partition(b"=") for pair in (folder / "environ").read_bytes().split(b"\0"))
        environment = {name: os.fsdecode(value) for name, _, value in pairs}
    except OSError:
        return None
    if b"-m" not in command[:-1]:
        return None
    module = os.fsdecode(command[command.index(b"-m") + 1])
    theirs = environment.get(b"HZC_HOME")
    if module not in MODULES or not theirs or Path(theirs).resolve() != home.resolve():
        return None
    if module == "hanzo_compute_agent" and not _OUR_AGENT.fullmatch(environment.get(b"HZC_AGENT_NAME", "")):
        return None  # started by hand: it goes on with the next platform
    return module
