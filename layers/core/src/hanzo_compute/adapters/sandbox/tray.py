"""The memory in which a call's counts, budgets and output stand: shared by the sandbox and its part in WASM."""

from __future__ import annotations

from typing import Final


class Tray:
    """Where things are in the tray."""

    EXITED: Final = 0
    CODE: Final = 4
    WAITING: Final = (8, 12)
    """Bytes that wait in the regions of stdout and stderr."""
    TOTAL: Final = (16, 20)
    """Bytes written to stdout and stderr."""
    MOST: Final = (24, 28)
    FLAGS: Final = 32
    OPEN: Final = 36
    OPEN_MOST: Final = 40
    FILES: Final = 44
    FILES_MOST: Final = 48
    SCRATCH: Final = 56
    SCRATCH_MOST: Final = 64
    CLOCK: Final = 72
    """ns since the start, of the logical clock."""
    EPOCH: Final = 80
    """What is added for the time of day."""
    COUNTERS: Final = 96
    OWNERS: Final = 192
    """A byte for each descriptor below OWNED: 1 and 2 are our stdout and stderr, 3 is our stdin (deterministic),
    wherever they were renumbered to."""
    OWNED: Final = 128
    REGION: Final = 96_256
    REGIONS: Final = (4096, 4096 + 96_256)
    PAGES: Final = 3

    CUT_STDOUT: Final = 1
    CUT_STDERR: Final = 2
    SCRATCH_FULL: Final = 4
    TOO_MANY_FILES: Final = 8
    TOO_MANY_OPEN: Final = 16
