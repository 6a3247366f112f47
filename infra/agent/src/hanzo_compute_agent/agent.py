"""The agent's loop: each slot leases attempts and has them carried to their ends; ports alone, no threads here."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Final

from hanzo_compute.errors import ComputeError
from hanzo_compute.model import bounds
from hanzo_compute.ports import (
    Attester,
    Clock,
    Completed,
    Egress,
    KeyApi,
    KeyVault,
    Lease,
    LeaseApi,
    Runner,
    Spawn,
    Want,
)
from hanzo_compute_agent import granted
from hanzo_compute_agent.carrier import QUICK_S, RETRY_MAX_S, RETRY_S, Attempt, Carrier
from hanzo_compute_agent.confidential import Confidential
from hanzo_compute_agent.journal import Journal
from hanzo_compute_agent.signing import Signer

log = logging.getLogger(__name__)

POLL_S: Final = 5.0
"""How long an idle slot waits for a lease in one call; an agent that is to stop waits for its answer."""
NOT_READY_S: Final = 5.0
"""A slot whose runner is not ready looks again this often."""
AT_ONCE_S: Final = 0.05
"""An attempt that ends within this time is handed in together with others, if the slot has leased more."""
TOGETHER_MAX: Final = 8
"""Attempts that a slot leases at a time while they end at once; all together should take no longer than AT_ONCE_S."""


@dataclass(frozen=True)
class Settings:
    """Who this agent is. ``slots``: attempts at a time; ``drain_s``: how long running ones may go on at the end."""

    name: str
    pool: str
    slots: int
    drain_s: float = 8.0
    egress: Egress | None = None
    """How functions reach other hosts from here; None: not at all."""


class Agent:
    """Leases and carries attempts. ``spawn`` starts a task beside the caller.

    ``evidence``: where keys of sealed jobs come from, and what collects the evidence that they are released on.
    """

    def __init__(
        self,
        api: LeaseApi,
        runner: Runner,
        clock: Clock,
        journal: Journal,
        spawn: Spawn,
        settings: Settings,
        vault: KeyVault,
        evidence: tuple[KeyApi, Attester | None] | None = None,
    ) -> None:
        self._api = api
        self._runner = runner
        self._clock = clock
        self._journal = journal
        self._spawn = spawn
        self._settings = settings
        self.signer = Signer(vault, settings.name)
        confidential = None if evidence is None else Confidential(*evidence, clock, lambda: self.signer.public_key)
        self._carrier = Carrier(api, runner, clock, journal, spawn, self._next, self.signer, confidential)
        self._carrier.egress = settings.egress
        self._leasing: set[int] = set()
        """Slots inside a call that may bring a lease."""

    def start(self) -> None:
        """Hand in what an earlier process of this agent left, and start the slots."""
        left = self._runner.adopt()
        self._journal.keep_only(left)
        for handle in left:
            self._carrier.carrying.add(handle)
            self._spawn(partial(self._carrier.adopted, handle), f"adopt {handle.job}")
        for slot in range(self._settings.slots):
            self._spawn(partial(self._slot, slot), f"slot {slot}")

    def stop(self) -> None:
        """Lease nothing more; what runs may go on for ``drain_s`` seconds, then it is given back."""
        if self._carrier.stop_at is None:
            self._carrier.stop_at = self._clock.monotonic() + self._settings.drain_s

    @property
    def carrying(self) -> int:
        """Attempts that this agent holds, and calls that may bring one."""
        return len(self._carrier.carrying) + len(self._leasing)

    def _slot(self, number: int) -> None:
        wait = RETRY_S
        while self._carrier.stop_at is None:
            try:
                pause = self._turn(number)
                wait = RETRY_S
            except ComputeError as error:
                log.warning("cannot lease: %s", error.message)
                pause, wait = wait, min(wait * 2, RETRY_MAX_S)
            except Exception:  # a defect here must not cost the slot
                log.exception("a slot failed, and goes on")
                pause = RETRY_MAX_S
            if pause and self._carrier.stop_at is None:
                self._clock.sleep(pause)

    def _turn(self, number: int) -> float:
        """Lease and carry as long as there is work; returns the seconds to wait before the next turn."""
        if not self._runner.ready():
            log.warning("the runner cannot take work now (is the disk full, or the limit of open files reached?)")
            return NOT_READY_S
        begun = self._clock.monotonic()
        self._leasing.add(number)
        try:
            leases = self._carrier.hold(self._api.lease(self._want, POLL_S))
        finally:
            self._leasing.discard(number)
        # A platform that answers at once with nothing is about to stop.
        pause = 0.0 if leases or self._clock.monotonic() - begun >= QUICK_S else RETRY_S
        while leases:
            leases = self._run(leases)
        return pause

    @property
    def _want(self) -> Want:
        limit = min(TOGETHER_MAX, max(1, int(AT_ONCE_S / max(self._carrier.pace_s, 0.001))))
        return Want(self._settings.pool, self._settings.name, self.signer.key_id, limit)

    def _run(self, leases: list[Lease]) -> list[Lease]:
        """Carry attempts in turn; returns what was leased when the last of them was handed in.

        Those that end at once are handed in together. When one takes longer nobody waits for it: what has ended is
        handed in, what has not begun is given back.
        """
        waiting = [self._carrier.attempt(lease) for lease in leases]
        ended: list[Attempt] = []
        while waiting:
            attempt = waiting.pop(0)
            if (waiting or ended) and self._at_once(attempt):
                ended.append(attempt)
                continue
            self._hand_in_together(ended, want=None)
            ended = []
            if attempt.failed:
                self._carrier.end(attempt)
                continue
            for other in waiting:
                self._return(other)
            return self._carrier.carry(attempt)
        return self._hand_in_together(ended, want=self._next())

    def _at_once(self, attempt: Attempt) -> bool:
        """Start an attempt; True if it ends at once, with no more to report than fits into a call."""
        handle = attempt.handle
        # A sealed one waits for its key, one with host calls for others; entries are handed in by themselves.
        if attempt.sealed or (attempt.lease is not None and granted.needs(attempt.lease)):
            return False
        try:
            if self._carrier.stop_at is not None or not self._carrier.start(attempt):
                return False
            if not self._runner.poll(handle, AT_ONCE_S):
                return False
            self._carrier.note_pace(attempt)
            collected = self._runner.collect(handle)
            entries, end = self._runner.logs(handle, 0)
            texts = sum(len(entry.text) for entry in entries)
            if max(len(collected.stdout), texts) > bounds.INLINE_OUTPUT_MAX or self._runner.logs(handle, end)[0]:
                return False
            outcome = self._carrier.with_output(attempt, collected)
            attempt.report = self._carrier.report(attempt, outcome, 1 if entries else 0, entries)
        except Exception:  # whatever it was, carrying it alone meets it again, and says so
            log.exception("job %s attempt %d", handle.job, handle.attempt)
            return False
        return True

    def _hand_in_together(self, ended: list[Attempt], want: Want | None) -> list[Lease]:
        """Hand in attempts that have ended at once; returns what was leased with that."""
        reports = [attempt.report for attempt in ended if attempt.report is not None]
        done = Completed([])
        try:
            if reports:
                done = self._api.complete(reports, want=want)
                self._carrier.hold(done.leases)
        except ComputeError as error:  # each by itself, and for as long as it takes
            log.warning("%d outcomes: %s", len(ended), error.message)
        except Exception:  # so is what a defect here keeps back
            log.exception("%d outcomes", len(ended))
        for attempt, state in zip_longest(ended, done.states):
            attempt.settled = isinstance(state, str)
            if not attempt.settled:
                self._carrier.carry(attempt, more=False)
            else:
                self._carrier.end(attempt)
        return done.leases

    def _next(self) -> Want | None:
        """What the slot takes on with its last report."""
        return self._want if self._carrier.stop_at is None and self._runner.ready() else None

    def _return(self, attempt: Attempt) -> None:
        """Give an attempt back that was not begun."""
        try:
            self._carrier.give_back(attempt, "the one before it takes longer than expected")
        finally:
            self._carrier.end(attempt)
