"""On the path of processes under test: their wall clock is off by the seconds that a file says, at any moment."""

import os
import time

_file = os.environ["TEST_CLOCK_FILE"]
_time, _time_ns = time.time, time.time_ns


def _offset() -> int:
    try:
        with open(_file) as file:  # noqa: PTH123 — pathlib itself would be imported too early here
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


time.time = lambda: _time() + _offset()
time.time_ns = lambda: _time_ns() + _offset() * 1_000_000_000
