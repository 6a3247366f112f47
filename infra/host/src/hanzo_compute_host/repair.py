"""`hzc doctor --repair`: a stopped platform's processes, database and files, looked through and put right."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hanzo_compute import wiring
from hanzo_compute.config import Config, default_cache
from hanzo_compute.errors import InvalidRequest, NotFound
from hanzo_compute.services import repair as services
from hanzo_compute.services.audit import Finding
from hanzo_compute_host import orphans, running

Say = Callable[[str], None]


def repair(home: Path, say: Say, *, digests: bool) -> Iterator[Finding]:
    """Find and repair what is wrong with ``home``; yields each finding when it has been dealt with.

    Raises:
        Conflict: a platform runs there, or the database is of a newer release.
        NotFound: there is no database.
    """
    if not home.is_dir():
        raise NotFound(f"{home} is not there", hint="set HZC_HOME to the state folder")
    with running.hold(home, "hzc doctor --repair"):
        say("looking for processes")
        for orphan in orphans.find(home):
            ended = orphans.end(orphan, home)
            found = f"{orphan.module} runs without its platform"
            yield Finding(
                "process", str(orphan.pid), found, "ended" if ended else f"kill -9 {orphan.pid}", repaired=ended
            )
        try:
            with wiring.offline(Config("local", home, "", default_cache(os.environ))) as (ctx, state):
                yield from services.repair(ctx, state, say, digests=digests)
        except InvalidRequest as error:
            yield Finding("database", "db", error.message, services.RESTORE)
