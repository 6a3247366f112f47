"""JSON objects, one a line, over a pair of descriptors: how a supervisor and its worker talk."""

from __future__ import annotations

import json
import os
import select
from typing import Any


class Lines:
    """One end of the conversation; used by one thread at a time."""

    def __init__(self, source: int, sink: int) -> None:
        self._source = source
        self._sink = sink
        self._buffer = b""

    def fileno(self) -> int:
        """The descriptor that becomes readable when the other side has said something."""
        return self._source

    def send(self, message: dict[str, Any]) -> None:
        """Write one message. Raises OSError when the other side is gone."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self._sink, data) :]

    def receive(self) -> dict[str, Any] | None:
        """Wait for the next message; None when the other side has closed."""
        while b"\n" not in self._buffer:
            chunk = os.read(self._source, 1 << 16)
            if not chunk:
                return None
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def ready(self, timeout: float | None, wake: int | None = None) -> bool:
        """Wait until there is something to receive, ``timeout`` seconds pass, or ``wake`` turns readable."""
        if b"\n" in self._buffer:
            return True
        waited = [self._source] if wake is None else [self._source, wake]
        # poll, not select: an agent may have more descriptors open than select can name.
        poller = select.poll()
        for fd in waited:
            poller.register(fd, select.POLLIN)
        events = poller.poll(None if timeout is None else max(timeout, 0) * 1000)
        return any(fd == self._source for fd, _ in events)
