"""Files that are committed and made from others."""

from __future__ import annotations

import sys
from pathlib import Path


def settle(output: Path, wanted: str, source: str, *, check: bool) -> int:
    """Write what a file is to hold, or only see whether it does: the exit code. ``source``: who says so."""
    if not check:
        output.write_text(wanted, "utf-8")
        return 0
    if output.exists() and output.read_text("utf-8") == wanted:
        return 0
    sys.stderr.write(f"{output} is not what {source}: run this without --check\n")
    return 1
