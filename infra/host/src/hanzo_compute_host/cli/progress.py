"""What a long step is at: one line that changes on a terminal, a line for each new step in a pipe."""

from __future__ import annotations

import sys
import time

from hanzo_compute_host.cli.escape import escape_line
from hanzo_compute_host.cli.session import is_terminal

_CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Call it with texts ``step: detail``; leave it as a context to end the line.

    Nothing is shown of what takes less than ``after_s`` seconds in all.
    """

    def __init__(self, after_s: float = 0.0) -> None:
        self._show_at = time.monotonic() + after_s
        self._terminal = is_terminal(sys.stderr)
        self._step = ""
        self._open = False

    def __call__(self, text: str) -> None:
        if time.monotonic() < self._show_at:
            return
        step = text.partition(":")[0]
        if self._terminal:
            sys.stderr.write(f"{_CLEAR_LINE}{escape_line(text)}")
            self._open = True
        elif step != self._step:
            sys.stderr.write(f"{escape_line(text)}\n")
        self._step = step
        sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            sys.stderr.write("\n")
            sys.stderr.flush()
            self._open = False
