"""The file by which the wall clock of processes under test is set."""

from __future__ import annotations

import os
from pathlib import Path


class Clock:
    """What `time.time` of the platform's processes is off by; new files replace old ones, so that none is read half."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)

    def set(self, seconds: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"TEST_CLOCK_FILE": str(self._file), "PYTHONPATH": os.pathsep.join(path)}
