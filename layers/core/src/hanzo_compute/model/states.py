"""The states of a job and the moves between them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a job is on its way.

    ``failed`` means that the program is at fault and its retries are spent; ``dead`` that the platform gave up.
    """

    QUEUED = "queued"
    PLACED = "placed"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    EXPIRED = "expired"
    DEAD = "dead"

    @property
    def terminal(self) -> bool:
        """True once nothing can change the job any more."""
        return self in TERMINAL


TERMINAL: Final = frozenset(
    {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.TIMED_OUT, State.EXPIRED, State.DEAD}
)

_GIVE_UP = frozenset({State.CANCELLED, State.EXPIRED, State.DEAD})

MOVES: Final[dict[State, frozenset[State]]] = {
    State.QUEUED: frozenset({State.PLACED}) | _GIVE_UP,
    State.PLACED: frozenset({State.RUNNING, State.QUEUED}) | _GIVE_UP,
    State.RUNNING: frozenset({State.RETRYING, State.SUCCEEDED, State.FAILED, State.TIMED_OUT}) | _GIVE_UP,
    State.RETRYING: frozenset({State.PLACED}) | _GIVE_UP,
    **{state: frozenset() for state in TERMINAL},
}
