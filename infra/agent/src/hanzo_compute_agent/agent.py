"""The agent's loop. Each slot leases one attempt at a time and carries it to its end; ports alone, no threads here."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import Final

from hanzo_compute.errors import ComputeError, Conflict, StaleFence, Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.outcome import Category, Outcome, Output
from hanzo_compute.ports import (
    Beat,
    Clock,
    Completed,
    Handle,
    Lease,
    LeaseApi,
    LogEntry,
    Report,
    Runner,
    RunnerOutcome,
    Spawn,
    Want,
)
from hanzo_compute_agent.journal import Journal, Shipment
from hanzo_compute_agent.modules import Modules

log = logging.getLogger(__name__)

POLL_S: Final = 5.0
"""How long an idle slot waits for a lease in one call; an agent that is to stop waits for its answer."""
BEAT_S: Final = 5.0
"""How long a heartbeat waits for news, at most; the lease is renewed at least three times before it would lapse."""
QUICK_S: Final = 1.0
"""Attempts that end sooner need no heartbeat."""
FOLLOW_S: Final = 0.3
"""Log of a job that somebody follows is sent this often, at first."""
FOLLOW_FAST: Final = 256
"""After this many chunks it is sent each second: there is a bound on the chunks of an attempt."""
FLUSH_S: Final = 15.0
"""Log of a job that nobody follows is sent this often."""
NOT_READY_S: Final = 5.0
"""A slot whose runner is not ready looks again this often."""
AT_ONCE_S: Final = 0.05
"""An attempt that ends within this time is handed in together with others, if the slot has leased more."""
TOGETHER_MAX: Final = 8
"""Attempts that a slot leases at a time while they end at once; all together should take no longer than AT_ONCE_S."""
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
    beat_s: float = BEAT_S
    lease: Lease | None = None
    """None for one of an earlier process."""
    failed: bool = False
    """It could not be started, which has been reported."""
    started: float | None = None
    report: Report | None = None
    """What it came to, if it ended at once."""
    cursor: int = 0
    seq: int = 0
    follow: bool = False
    cancel: str | None = None
    lost: bool = False
    """Another attempt holds the job, or it has ended."""
    settled: bool = False
    """The platform has taken what this attempt came to."""
    ending: bool = False
    """Its outcome is being handed in."""
    over: bool = False
    following: list[Lease] = field(default_factory=list)
    """What was leased when its outcome was handed in."""


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
        self._modules = Modules(api.download)
        self.pace_s = AT_ONCE_S
        """How long an attempt takes here: an average that forgets."""
        self._stop_at: float | None = None
        self._carrying: set[Handle] = set()
        self._leasing: set[int] = set()
        """Slots inside a call that may bring a lease."""

    def start(self) -> None:
        """Hand in what an earlier process of this agent left, and start the slots."""
        left = self._runner.adopt()
        self._journal.keep_only(left)
        for handle in left:
            self._carrying.add(handle)
            self._spawn(partial(self._adopted, handle), f"adopt {handle.job}")
        for slot in range(self._settings.slots):
            self._spawn(partial(self._slot, slot), f"slot {slot}")

    def stop(self) -> None:
        """Lease nothing more; what runs may go on for ``drain_s`` seconds, then it is given back."""
        if self._stop_at is None:
            self._stop_at = self._clock.monotonic() + self._settings.drain_s

    @property
    def carrying(self) -> int:
        """Attempts that this agent holds, and calls that may bring one."""
        return len(self._carrying) + len(self._leasing)

    def _slot(self, number: int) -> None:
        wait = RETRY_S
        while self._stop_at is None:
            try:
                pause = self._turn(number)
                wait = RETRY_S
            except ComputeError as error:
                log.warning("cannot lease: %s", error.message)
                pause, wait = wait, min(wait * 2, RETRY_MAX_S)
            except Exception:  # a defect here must not cost the slot
                log.exception("a slot failed, and goes on")
                pause = RETRY_MAX_S
            if pause and self._stop_at is None:
                self._clock.sleep(pause)

    def _turn(self, number: int) -> float:
        """Lease and carry as long as there is work; returns the seconds to wait before the next turn."""
        if not self._runner.ready():
            log.warning("the runner cannot take work now (is the disk full, or the limit of open files reached?)")
            return NOT_READY_S
        begun = self._clock.monotonic()
        self._leasing.add(number)
        try:
            leases = self._hold(self._api.lease(self._want, POLL_S))
        finally:
            self._leasing.discard(number)
        # A platform that answers at once with nothing is about to stop.
        pause = 0.0 if leases or self._clock.monotonic() - begun >= QUICK_S else RETRY_S
        while leases:
            leases = self._run(leases)
        return pause

    @property
    def _want(self) -> Want:
        limit = min(TOGETHER_MAX, max(1, int(AT_ONCE_S / max(self.pace_s, 0.001))))
        return Want(self._settings.pool, self._settings.name, limit)

    def _hold(self, leases: list[Lease]) -> list[Lease]:
        self._carrying.update(Handle(lease.job, lease.attempt) for lease in leases)
        return leases

    def _run(self, leases: list[Lease]) -> list[Lease]:
        """Carry attempts in turn; returns what was leased when the last of them was handed in.

        Those that end at once are handed in together. When one takes longer nobody waits for it: what has ended is
        handed in, what has not begun is given back.
        """
        waiting = [self._attempt(lease) for lease in leases]
        ended: list[_Attempt] = []
        while waiting:
            attempt = waiting.pop(0)
            if (waiting or ended) and self._at_once(attempt):
                ended.append(attempt)
                continue
            self._hand_in_together(ended, want=None)
            ended = []
            if attempt.failed:
                self._end(attempt)
                continue
            for other in waiting:
                self._return(other)
            return self._carry(attempt)
        return self._hand_in_together(ended, want=self._next())

    def _attempt(self, lease: Lease) -> _Attempt:
        handle = Handle(lease.job, lease.attempt)
        return _Attempt(handle, min(BEAT_S, lease.lease_ms / 3000), lease, follow=lease.follow)

    def _at_once(self, attempt: _Attempt) -> bool:
        """Start an attempt; True if it ends at once, with no more to report than fits into a call."""
        handle = attempt.handle
        try:
            if self._stop_at is not None or not self._started(attempt):
                return False
            if not self._runner.poll(handle, AT_ONCE_S):
                return False
            self._note_pace(attempt)
            collected = self._runner.collect(handle)
            entries, end = self._runner.logs(handle, 0)
            texts = sum(len(entry.text) for entry in entries)
            if max(len(collected.stdout), texts) > bounds.INLINE_OUTPUT_MAX or self._runner.logs(handle, end)[0]:
                return False
            outcome = self._with_output(handle, collected)
            attempt.report = Report(handle.job, handle.attempt, outcome, 1 if entries else 0, entries)
        except Exception:  # whatever it was, carrying it alone meets it again, and says so
            log.exception("job %s attempt %d", handle.job, handle.attempt)
            return False
        return True

    def _hand_in_together(self, ended: list[_Attempt], want: Want | None) -> list[Lease]:
        """Hand in attempts that have ended at once; returns what was leased with that."""
        reports = [attempt.report for attempt in ended if attempt.report is not None]
        done = Completed([])
        try:
            if reports:
                done = self._api.complete(reports, want=want)
                self._hold(done.leases)
        except ComputeError as error:  # each by itself, and for as long as it takes
            log.warning("%d outcomes: %s", len(ended), error.message)
        except Exception:  # so is what a defect here keeps back
            log.exception("%d outcomes", len(ended))
        for attempt, state in zip_longest(ended, done.states):
            attempt.settled = isinstance(state, str)
            if not attempt.settled:
                self._carry(attempt, more=False)
            else:
                self._end(attempt)
        return done.leases

    def _next(self) -> Want | None:
        """What the slot takes on with its last report."""
        return self._want if self._stop_at is None and self._runner.ready() else None

    def _return(self, attempt: _Attempt) -> None:
        """Give an attempt back that was not begun."""
        try:
            self._give_back(attempt)
        finally:
            self._end(attempt)

    def _carry(self, attempt: _Attempt, *, more: bool = True) -> list[Lease]:
        """Carry an attempt to its end; returns what was leased then (with ``more``)."""
        handle = attempt.handle
        try:
            if self._stop_at is not None and attempt.started is None:  # it came while the agent was told to stop
                self._give_back(attempt)
            elif self._started(attempt) and self._ended(attempt):
                self._note_pace(attempt)
                self._hand_in(attempt, self._runner.collect(handle), more=more)
        except Exception as error:  # a defect here must cost neither the job nor the slot
            log.exception("job %s attempt %d", handle.job, handle.attempt)
            self._fail(attempt, f"the agent failed: {error!r}")
        finally:
            self._end(attempt)
        return attempt.following

    def _note_pace(self, attempt: _Attempt) -> None:
        if attempt.started is not None and attempt.report is None:
            self.pace_s += (min(self._clock.monotonic() - attempt.started, QUICK_S) - self.pace_s) / 4

    def _started(self, attempt: _Attempt) -> bool:
        if attempt.started is not None:
            return True
        lease = attempt.lease
        assert lease is not None, "what was adopted has been started"
        try:
            module = self._modules.get(lease.spec["source"]["module"], lease.module_url) if lease.module_url else None
            stdin = self._api.download(lease.input_url) if lease.input_url else _inline(lease)
            attempt.started = self._clock.monotonic()
            self._runner.start(lease, module=module, stdin=stdin)
        except (ComputeError, OSError) as error:
            attempt.failed = True
            self._fail(attempt, f"it could not be started: {error}")
            return False
        return True

    def _ended(self, attempt: _Attempt) -> bool:
        """Ship the log until the attempt has ended; False when it is no longer ours to hand in."""
        begun = flushed = self._clock.monotonic()
        beating = False
        while not self._runner.poll(attempt.handle, FOLLOW_S if attempt.follow else QUICK_S):
            now = self._clock.monotonic()
            if attempt.lost:
                return False
            if self._stop_at is not None and now >= self._stop_at:
                self._give_back(attempt)
                return False
            if not beating and now - begun >= QUICK_S:
                beating = True
                self._spawn(partial(self._beat, attempt), f"beat {attempt.handle.job}")
            follow = attempt.follow and (attempt.seq < FOLLOW_FAST or now - flushed >= QUICK_S)
            if follow or now - flushed >= FLUSH_S:
                self._ship(attempt)
                flushed = now
        return not attempt.lost

    def _adopted(self, handle: Handle) -> None:
        attempt = _Attempt(handle)
        try:
            last = self._journal.last(handle)
            if last.seq:  # whether it arrived is not known
                entries, end = self._runner.logs(handle, last.start)
                arrived: list[bool] = []
                if not self._retry(attempt, lambda: arrived.append(not self._send(attempt, last.seq, entries))):
                    return  # lost, or left to the next process: what comes after must not go without it
                attempt.seq, attempt.cursor = last.seq, last.end if any(arrived) else end
            self._hand_in(attempt, self._runner.collect(handle), more=False)
        except Exception as error:
            log.exception("adopted job %s attempt %d", handle.job, handle.attempt)
            self._fail(attempt, f"the agent failed: {error!r}")
        finally:
            self._end(attempt)

    def _end(self, attempt: _Attempt) -> None:
        attempt.over = True
        try:
            # What could not be handed in before this agent stops is left to its next process, to adopt.
            if attempt.settled or attempt.lost or self._stop_at is None:
                self._runner.reap(attempt.handle)
                self._journal.forget(attempt.handle)
        except Exception:  # what is left on the disk is adopted at the next start; the slot goes on
            log.exception("job %s attempt %d is not cleaned up", attempt.handle.job, attempt.handle.attempt)
        finally:
            self._carrying.discard(attempt.handle)

    # While it runs

    def _ship(self, attempt: _Attempt) -> bool:
        """Send what is new in the log, chunk by chunk; False when some of it was not taken."""
        while not attempt.lost and attempt.seq < bounds.LOG_CHUNKS_MAX - 1:
            entries, end = self._runner.logs(attempt.handle, attempt.cursor)
            if not entries:
                break
            seq = attempt.seq + 1
            self._journal.intend(attempt.handle, Shipment(seq, attempt.cursor, end))
            if not self._retry(attempt, partial(self._send, attempt, seq, entries)):
                return False
            attempt.seq, attempt.cursor = seq, end
        return True

    def _send(self, attempt: _Attempt, seq: int, entries: list[LogEntry]) -> bool:
        """Send one chunk; False when another one of this number had arrived before."""
        try:
            self._api.logs(attempt.handle.job, attempt.handle.attempt, seq, entries)
        except StaleFence:
            raise
        except Conflict:
            return False
        return True

    def _beat(self, attempt: _Attempt) -> None:
        seen = Beat(None, attempt.follow)
        handle = attempt.handle
        while not attempt.over:
            begun = self._clock.monotonic()
            try:
                told = self._api.heartbeat(handle.job, handle.attempt, seen=seen, wait_s=attempt.beat_s)
            except StaleFence:
                if not attempt.ending:  # else it may be our own outcome that ended the lease
                    log.warning("lost job %s attempt %d", handle.job, handle.attempt)
                    attempt.lost = True
                    self._runner.cancel(handle, Category.CANCELLED.value)
                return
            except ComputeError as error:
                log.warning("heartbeat of job %s: %s", handle.job, error.message)
                self._clock.sleep(RETRY_S)
                continue
            if told == seen and self._clock.monotonic() - begun < QUICK_S:
                self._clock.sleep(RETRY_S)  # a platform that is stopping answers at once
            seen = told
            attempt.follow = seen.follow
            if seen.cancel is not None and attempt.cancel is None and not attempt.over:
                attempt.cancel = seen.cancel
                self._runner.cancel(handle, seen.cancel)

    def _give_back(self, attempt: _Attempt) -> None:
        handle = attempt.handle
        self._runner.cancel(handle, Category.CANCELLED.value)
        why = "the agent stops"
        attempt.settled = self._retry(attempt, lambda: self._api.release(handle.job, handle.attempt, why))

    # When it has ended

    def _fail(self, attempt: _Attempt, why: str) -> None:
        """The platform failed this attempt, not the program."""
        log.warning("job %s attempt %d: %s", attempt.handle.job, attempt.handle.attempt, why)
        outcome = Outcome(category=Category.PLATFORM, detail=why[:4096])
        report = Report(attempt.handle.job, attempt.handle.attempt, outcome)
        attempt.settled = self._retry(attempt, lambda: self._complete(attempt, report))

    def _hand_in(self, attempt: _Attempt, collected: RunnerOutcome, *, more: bool = True) -> None:
        """Hand in an outcome, and with ``more`` lease the slot's next attempt in the same call."""
        attempt.ending = True
        handle = attempt.handle

        def complete() -> None:
            outcome = self._with_output(handle, collected)
            entries, end = self._runner.logs(handle, attempt.cursor)
            long = sum(len(entry.text) for entry in entries) > bounds.INLINE_OUTPUT_MAX
            if long or (entries and self._runner.logs(handle, end)[0]):
                if not self._ship(attempt) and self._stop_at is not None:
                    raise Unavailable("the log could not be sent before the agent stops")
                entries = []
            seq = attempt.seq + 1 if entries else 0
            report = Report(handle.job, handle.attempt, outcome, seq, entries)
            try:
                self._complete(attempt, report, more=more)
            except StaleFence:
                raise
            except Conflict:  # the log's tail is there already
                self._complete(attempt, replace(report, log_seq=0, entries=()))

        if self._retry(attempt, complete):
            attempt.settled = True
        elif not attempt.lost and self._stop_at is None:
            self._fail(attempt, "the platform refused the agent's report")

    def _complete(self, attempt: _Attempt, report: Report, *, more: bool = False) -> None:
        """Hand in one outcome, and with ``more`` lease what comes next. Raises what the report was refused with."""
        want = self._next() if more and not attempt.following else None
        done = self._api.complete([report], want=want)
        attempt.following += self._hold(done.leases)
        (state,) = done.states
        if isinstance(state, ComputeError):
            raise state

    def _with_output(self, handle: Handle, collected: RunnerOutcome) -> Outcome:
        if not collected.stdout:
            return collected.outcome
        return collected.outcome.model_copy(update={"outputs": [self._output(handle, collected.stdout)]})

    def _output(self, handle: Handle, data: bytes) -> Output:
        if len(data) <= bounds.INLINE_OUTPUT_MAX:
            return Output(name="stdout", size=len(data), inline_base64=base64.b64encode(data).decode())
        blob = self._api.upload(handle.job, handle.attempt, data)
        return Output(name="stdout", size=len(data), blob=blob)

    def _retry(self, attempt: _Attempt, call: Callable[[], object]) -> bool:
        """Call until the platform has answered: it may be restarting, and what ran must not be lost.

        False when it refused, when the attempt lost its job, or when this agent must stop before.
        """
        wait = RETRY_S
        while not attempt.lost:
            try:
                call()
            except StaleFence:
                attempt.lost = True
                log.warning("the work on job %s is discarded: it went to another attempt", attempt.handle.job)
            except ComputeError as error:
                log.warning("job %s: %s", attempt.handle.job, error.message)
                stopped = self._stop_at is not None and self._clock.monotonic() > self._stop_at
                if not error.retryable or stopped:
                    return False
                self._clock.sleep(wait)
                wait = min(wait * 2, RETRY_MAX_S)
            else:
                return True
        return False


def _inline(lease: Lease) -> bytes:
    given = lease.spec.get("input") or {}
    if "inline_base64" in given:
        return base64.b64decode(given["inline_base64"])
    return str(given.get("inline", "")).encode()
