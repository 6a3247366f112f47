"""Following a job's log: server-sent events, or long polls where the platform cannot stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from hanzo_compute import errors
from hanzo_compute.adapters.http import sse
from hanzo_compute.adapters.http.client import ApiClient, backoff
from hanzo_compute.model.bounds import WAIT_S_MAX

OUTAGE_S: Final = 60.0
"""How long a cut stream is taken up again before the outage is reported, seconds."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that came together, and the cursor after them."""

    entries: list[dict[str, Any]]
    cursor: str
    done: bool


class LogFollower:
    """One log, followed to its end through cuts and restarts; ``path`` is that of its pages."""

    def __init__(
        self,
        client: ApiClient,
        path: str,
        *,
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._client = client
        self._path = path
        self._sleep = sleep
        self._monotonic = monotonic

    def entries(self, cursor: str) -> Iterator[dict[str, Any]]:
        """Every entry after ``cursor`` once, until the job has ended.

        Raises:
            Unavailable: nothing was heard for ``OUTAGE_S`` though it was tried again and again.
        """
        quiet, failing_since = 0, None
        while True:
            wait_s = None
            try:
                for batch in self._connection(cursor):
                    failing_since, cursor = None, batch.cursor
                    quiet = 0 if batch.entries else quiet
                    yield from batch.entries
                    if batch.done:
                        return
            except errors.ComputeError as error:
                now = self._monotonic()
                failing_since = now if failing_since is None else failing_since
                if not error.retryable or now - failing_since > OUTAGE_S:
                    raise
                wait_s = error.data.get("retry_after_s")
            quiet += 1
            self._sleep(backoff(quiet, wait_s))

    def _connection(self, cursor: str) -> Iterator[Batch]:
        """What one request brings, an empty batch first to say that it was answered."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": cursor} if cursor else {})
        query = {"follow": 1, "cursor": cursor or None, "wait_s": WAIT_S_MAX}
        with self._client.stream(self._path, query=query, headers=headers) as response:
            yield Batch([], cursor, False)
            pieces = self._client.pieces(response)
            if response.headers.get("Content-Type", "").startswith("text/event-stream"):
                yield from _batches(sse.events(pieces), cursor)
            else:
                page = json.loads(b"".join(pieces))
                yield Batch(page["items"], page["cursor"], page["done"])


def _batches(events: Iterator[sse.Event], cursor: str) -> Iterator[Batch]:
    """Entries wait for the id that ends their batch: so a cut within a batch repeats none of them."""
    held: list[dict[str, Any]] = []
    for event in events:
        if event.event == "end":
            yield Batch(held, cursor, True)
            return
        if event.event == "log":
            held.append(json.loads(event.data))
        if event.id is not None:
            yield Batch(held, event.id, False)
            held, cursor = [], event.id
