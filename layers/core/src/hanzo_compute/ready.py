"""How a process tells whoever started it how far it has come, so that nobody has to guess or to wait.

A byte for each step goes into the pipe whose descriptor ``HZC_READY_FD`` names; without one nothing is said.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import MutableMapping
from typing import Final

VARIABLE: Final = "HZC_READY_FD"
TAKEOVER: Final = "HZC_TAKEOVER"
"""Set for a process that is to follow one that still runs and holds what only one can hold."""

STANDING_BY: Final = b"s"
"""It could start, and waits for the process that it is to follow."""
READY: Final = b"r"
"""It does its work."""


def takes_over(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Whether this process is to wait for another one to end; asking is what uses the mark up."""
    return environ.pop(TAKEOVER, "") == "1"


def say(step: bytes, environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell that ``step`` is reached; after ``READY`` nothing more can be said."""
    given = environ.get(VARIABLE, "")
    if not given.isdecimal():
        return
    # Whoever asked may be gone: that is no reason not to work.
    with contextlib.suppress(OSError):
        os.write(int(given), step)
    if step == READY:
        del environ[VARIABLE]
        with contextlib.suppress(OSError):
            os.close(int(given))
