"""The books of a client: which of its requests are applied, durable or lost, and which tickets cover them."""

from __future__ import annotations

from typing import Final

from hanzo_compute.ports import CommitNews

_REMEMBERED: Final = 10_000


class Tickets:
    """Requests are numbered and settled in order; a ticket is the number of the last request it covers."""

    def __init__(self) -> None:
        self.applied = 0
        """The last request that was answered."""
        self._settled = 0
        self._taken = 0
        self._untaken_lost = False
        self._open: dict[int, int] = {}
        """The first request of each ticket that is not settled."""
        self._failures: dict[int, None] = {}
        self._durable: list[int] = []
        self._failed: list[int] = []
        self._woken: dict[str, None] = {}

    @property
    def settled(self) -> bool:
        """True when nothing that was applied can be lost any more."""
        return self._settled >= self.applied

    @property
    def lost(self) -> bool:
        """True when something that no ticket covers yet is lost."""
        return self._untaken_lost

    @property
    def has_news(self) -> bool:
        """True when :meth:`news` would not be empty."""
        return bool(self._durable or self._failed or self._woken)

    def durable(self, number: int) -> None:
        """Everything up to this request is on disk."""
        self._settled = max(self._settled, number)
        ended = [ticket for ticket in self._open if ticket <= number]
        for ticket in ended:
            del self._open[ticket]
        self._durable.extend(ended)

    def lose(self, number: int) -> None:
        """Everything up to this request that was not durable is lost."""
        if number <= self._settled:
            return
        self._settled = number
        self._untaken_lost = self._untaken_lost or number > self._taken
        # A ticket that reaches beyond the lost batch lost a part.
        for ticket in [ticket for ticket, first in self._open.items() if first <= number]:
            del self._open[ticket]
            self._fail(ticket)

    def wake(self, partitions: list[str]) -> None:
        """Partitions that changed."""
        self._woken.update(dict.fromkeys(partitions))

    def take(self) -> int | None:
        """A ticket for what was applied since the last call, or None when all of that is durable."""
        first, ticket = self._taken + 1, self.applied
        if ticket < first:
            return None
        self._taken = ticket
        if self._untaken_lost:
            self._untaken_lost = False
            self._fail(ticket)
        elif self._settled >= ticket:
            return None
        else:
            self._open[ticket] = first
        return ticket

    def news(self) -> CommitNews:
        """What happened since the last call."""
        found = CommitNews(self._durable, self._failed, list(self._woken))
        self._durable, self._failed, self._woken = [], [], {}
        return found

    def outcome(self, ticket: int) -> bool | None:
        """True when the ticket is durable, False when it failed, None while that is open."""
        if ticket in self._open:
            return None
        return ticket not in self._failures

    def forget(self, ticket: int) -> None:
        """Leave a ticket whose outcome is known out of the news."""
        self._durable = [other for other in self._durable if other != ticket]
        self._failed = [other for other in self._failed if other != ticket]

    def _fail(self, ticket: int) -> None:
        self._failed.append(ticket)
        self._failures[ticket] = None
        if len(self._failures) > _REMEMBERED:
            del self._failures[next(iter(self._failures))]
