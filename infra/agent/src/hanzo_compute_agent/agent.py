"""The agent's loop. Each slot leases one attempt at a time and carries it to its end; ports alone, no threads here."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from hanzo_compute.errors import ComputeError, Conflict, StaleFence
from hanzo_compute.model import bounds
from hanzo_compute.model.outcome import Category, Outcome, Output
from hanzo_compute.ports import Beat, Clock, Handle, Lease, LeaseApi, LogEntry, Runner, RunnerOutcome, Spawn
from hanzo_compute_agent.journal import Journal, Shipment

log = logging.getLogger(__name__)

POLL_S: Final = 20.0
"""How long an idle slot waits for a lease in one call."""
BEAT_S: Final = 5.0
"""How long a heartbeat waits for news; the lease is renewed at least this often."""
QUICK_S: Final = 1.0
"""Attempts that end sooner need no heartbeat and ship no log before their outcome."""
FLUSH_S: Final = 15.0
"""Log of a job that nobody follows is sent this often."""
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 15.0


@dataclass(frozen=True)
class Settings:
    """Who this agent is. ``slots``: attempts at a time; ``drain_s``: how long running ones may go on at the end."""

    name: str
    pool: str
    slots: int
    drain_s: float = 8.0


@dataclass
class _Attempt:
    """What the carrying task and the heartbeat task of one attempt tell each other."""

    handle: Handle
    cursor: int = 0
    seq: int = 0
    follow: bool = False
    cancel: str | None = None
    lost: bool = False
    over: bool = False


class Agent:
    """Leases and carries attempts. ``spawn`` starts a task beside the caller."""

    def __init__(
        self, api: LeaseApi, runner: Runner, clock: Clock, journal: Journal, spawn: Spawn, settings: Settings
    ) -> None:
        self._api = api
        self._runner = runner
        self._clock = clock
        self._journal = journal
        self._spawn = spawn
        self._settings = settings
        self._stop_at: float | None = None
        self._carrying: set[Handle] = set()

    def start(self) -> None:
        """Hand in what an earlier process of this agent left, and start the slots."""
        for handle in self._runner.adopt():
            self._carrying.add(handle)
            self._spawn(partial(self._adopted, handle), f"adopt {handle.job}")
        for slot in range(self._settings.slots):
            self._spawn(self._slot, f"slot {slot}")

    def stop(self) -> None:
        """Lease nothing more; what runs may go on for ``drain_s`` seconds, then it is given back."""
        if self._stop_at is None:
            self._stop_at = self._clock.monotonic() + self._settings.drain_s

    @property
    def carrying(self) -> int:
        """Attempts that this agent holds."""
        return len(self._carrying)

    def _slot(self) -> None:
        wait = RETRY_S
        while self._stop_at is None:
            try:
                leases = self._api.lease(self._settings.pool, self._settings.name, 1, POLL_S)
            except ComputeError as error:
                log.warning("cannot lease: %s", error.message)
                self._clock.sleep(wait)
                wait = min(wait * 2, RETRY_MAX_S)
                continue
            wait = RETRY_S
            for lease in leases:
                self._carry(lease)

    def _carry(self, lease: Lease) -> None:
        handle = Handle(lease.job, lease.attempt)
        attempt = _Attempt(handle, follow=lease.follow)
        self._carrying.add(handle)
        try:
            try:
                module = self._api.download(lease.module_url) if lease.module_url else None
                stdin = self._api.download(lease.input_url) if lease.input_url else _inline(lease)
                self._runner.start(lease, module=module, stdin=stdin)
            except (ComputeError, OSError) as error:
                self._failed(attempt, f"it could not be started: {error}")
                return
            if not self._runner.poll(handle, QUICK_S):
                self._spawn(partial(self._beat, attempt), f"beat {lease.job}")
                if not self._watch(attempt):
                    return
            self._hand_in(attempt, self._runner.collect(handle))
        finally:
            self._end(attempt)

    def _adopted(self, handle: Handle) -> None:
        attempt = _Attempt(handle)
        try:
            last = self._journal.last(handle)
            if last.seq:  # it may not have arrived: the same range goes out under the same number
                entries, _ = self._range(handle, last.start, last.end)
                self._retry(attempt, partial(self._send, attempt, last.seq, entries))
            attempt.seq, attempt.cursor = last.seq, last.end
            self._hand_in(attempt, self._runner.collect(handle))
        finally:
            self._end(attempt)

    def _range(self, handle: Handle, start: int, end: int) -> tuple[list[LogEntry], int]:
        entries, cursor = self._runner.logs(handle, start)
        return entries[: len(entries) - (cursor - end)] if cursor > end else entries, end

    def _end(self, attempt: _Attempt) -> None:
        attempt.over = True
        self._runner.reap(attempt.handle)
        self._journal.forget(attempt.handle)
        self._carrying.discard(attempt.handle)

    # While it runs

    def _watch(self, attempt: _Attempt) -> bool:
        """Ship the log until the attempt has ended; False when it is no longer ours."""
        flushed = self._clock.monotonic()
        while not self._runner.poll(attempt.handle, QUICK_S):
            if attempt.lost:
                return False
            now = self._clock.monotonic()
            if self._stop_at is not None and now >= self._stop_at:
                self._give_back(attempt)
                return False
            if attempt.follow or now - flushed >= FLUSH_S:
                self._ship(attempt)
                flushed = now
        return not attempt.lost

    def _ship(self, attempt: _Attempt) -> None:
        """Send what is new in the log, if the platform takes it now; what fails is sent the next time."""
        entries, end = self._runner.logs(attempt.handle, attempt.cursor)
        for chunk, upto in _chunks(entries, attempt.cursor, end):
            shipment = Shipment(attempt.seq + 1, attempt.cursor, upto)
            if shipment.seq >= bounds.LOG_CHUNKS_MAX:
                return
            self._journal.intend(attempt.handle, shipment)
            try:
                self._send(attempt, shipment.seq, chunk)
            except StaleFence:
                attempt.lost = True
                return
            except ComputeError as error:
                log.warning("log of job %s waits: %s", attempt.handle.job, error.message)
                if not error.retryable:
                    return
                self._retry(attempt, partial(self._send, attempt, shipment.seq, chunk))
            attempt.seq, attempt.cursor = shipment.seq, upto

    def _send(self, attempt: _Attempt, seq: int, entries: list[LogEntry]) -> None:
        try:
            self._api.logs(attempt.handle.job, attempt.handle.attempt, seq, entries)
        except StaleFence:
            raise
        except Conflict:
            return  # this number arrived before the restart, and the journal says with which range

    def _beat(self, attempt: _Attempt) -> None:
        seen = Beat(None, attempt.follow)
        handle = attempt.handle
        while not attempt.over:
            try:
                seen = self._api.heartbeat(handle.job, handle.attempt, seen=seen, wait_s=BEAT_S)
            except StaleFence:
                if not attempt.over:
                    log.warning("lost job %s attempt %d", handle.job, handle.attempt)
                    attempt.lost = True
                    self._runner.cancel(handle, Category.CANCELLED.value)
                return
            except ComputeError as error:
                log.warning("heartbeat of job %s: %s", handle.job, error.message)
                self._clock.sleep(RETRY_S)
                continue
            attempt.follow = seen.follow
            if seen.cancel is not None and attempt.cancel is None and not attempt.over:
                attempt.cancel = seen.cancel
                self._runner.cancel(handle, seen.cancel)

    def _give_back(self, attempt: _Attempt) -> None:
        self._runner.cancel(attempt.handle, Category.CANCELLED.value)
        handle = attempt.handle
        self._retry(attempt, partial(self._api.release, handle.job, handle.attempt, "the agent stops"))

    # When it has ended

    def _failed(self, attempt: _Attempt, why: str) -> None:
        outcome = Outcome(category=Category.PLATFORM, detail=why[:4096])
        handle = attempt.handle
        self._retry(attempt, lambda: _ignore(self._api.complete(handle.job, handle.attempt, outcome)))

    def _hand_in(self, attempt: _Attempt, collected: RunnerOutcome) -> None:
        handle = attempt.handle

        def complete() -> None:
            outcome = collected.outcome
            if collected.stdout:
                outcome = outcome.model_copy(update={"outputs": [self._output(handle, collected.stdout)]})
            entries, end = self._runner.logs(handle, attempt.cursor)
            *earlier, last = [*_chunks(entries, attempt.cursor, end, bounds.INLINE_OUTPUT_MAX)] or [([], end)]
            if earlier:
                self._ship(attempt)
                last = ([], end)
            seq = attempt.seq + 1 if last[0] else 0
            try:
                self._api.complete(handle.job, handle.attempt, outcome, log_seq=seq, entries=last[0])
            except StaleFence:
                raise
            except Conflict:  # the log's tail is there already
                self._api.complete(handle.job, handle.attempt, outcome)

        self._retry(attempt, complete)

    def _output(self, handle: Handle, data: bytes) -> Output:
        if len(data) <= bounds.INLINE_OUTPUT_MAX:
            return Output(name="stdout", size=len(data), inline_base64=base64.b64encode(data).decode())
        blob = self._api.upload(handle.job, handle.attempt, data)
        return Output(name="stdout", size=len(data), blob=blob)

    def _retry(self, attempt: _Attempt, call: Callable[[], None]) -> None:
        """Call until the platform has answered: it may be restarting, and what ran must not be lost."""
        wait = RETRY_S
        while not attempt.lost:
            try:
                return call()
            except StaleFence:
                attempt.lost = True
                log.warning("the work on job %s is discarded: it went to another attempt", attempt.handle.job)
            except ComputeError as error:
                if not error.retryable:
                    log.error("job %s: the platform refused: %s", attempt.handle.job, error.message)
                    return self._report(attempt, f"the agent's report was refused: {error.message}")
                if self._stop_at is not None and self._clock.monotonic() > self._stop_at:
                    return None
                self._clock.sleep(wait)
                wait = min(wait * 2, RETRY_MAX_S)
        return None

    def _report(self, attempt: _Attempt, why: str) -> None:
        outcome = Outcome(category=Category.PLATFORM, detail=why[:4096])
        try:
            self._api.complete(attempt.handle.job, attempt.handle.attempt, outcome)
        except ComputeError as error:
            log.error("job %s is left to its lease: %s", attempt.handle.job, error.message)


def _ignore(_: object) -> None:
    """Make a call whose answer is not needed a plain action."""


def _inline(lease: Lease) -> bytes:
    given = lease.spec.get("input") or {}
    if "inline_base64" in given:
        return base64.b64decode(given["inline_base64"])
    return str(given.get("inline", "")).encode()


def _chunks(
    entries: list[LogEntry], start: int, end: int, limit: int = bounds.LOG_CHUNK_MAX // 2
) -> list[tuple[list[LogEntry], int]]:
    """Entries in chunks of at most ``limit`` characters, each with the cursor after it.

    A cursor counts entries: the one before ``entries`` is ``start``, the one after them ``end``.
    """
    if end - start != len(entries):
        raise AssertionError("a log cursor counts entries")
    found: list[tuple[list[LogEntry], int]] = []
    size = limit + 1
    for number, entry in enumerate(entries, start + 1):
        if size + len(entry.text) > limit:
            found.append(([], number))
            size = 0
        found[-1][0].append(entry)
        found[-1] = (found[-1][0], number)
        size += len(entry.text)
    return found
