"""One attempt on an agent: started, its log shipped, kept by heartbeats, handed in until the platform has answered."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from hanzo_compute.errors import ComputeError, Conflict, NoCapacity, StaleFence, Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.model.outcome import Category, Outcome, Output
from hanzo_compute.model.spec import program_blob
from hanzo_compute.ports import (
    Beat,
    Clock,
    Egress,
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
from hanzo_compute.security import sealed
from hanzo_compute_agent import granted
from hanzo_compute_agent.confidential import Confidential, JobKey
from hanzo_compute_agent.granted import LeaseHost
from hanzo_compute_agent.journal import Journal, Shipment
from hanzo_compute_agent.modules import Modules
from hanzo_compute_agent.signing import Signer

log = logging.getLogger(__name__)

BEAT_S: Final = 5.0
"""How long a heartbeat waits for news, at most; the lease is renewed at least three times before it would lapse."""
QUICK_S: Final = 1.0
"""Attempts that end sooner need no heartbeat."""
PACE_S: Final = 0.05
"""How long an attempt is expected to take as long as none has been seen."""
FOLLOW_S: Final = 0.3
"""Log of a job that somebody follows is sent this often, at first."""
FOLLOW_FAST: Final = 256
"""After this many chunks it is sent each second: there is a bound on the chunks of an attempt."""
FLUSH_S: Final = 15.0
"""Log of a job that nobody follows is sent this often."""
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 15.0


@dataclass
class Attempt:
    """What the carrying task and the heartbeat task of one attempt tell each other."""

    handle: Handle
    beat_s: float = BEAT_S
    lease: Lease | None = None
    """None for one of an earlier process, until it is asked for."""
    failed: bool = False
    """It could not be started, which has been reported."""
    key: JobKey | None = None
    """Of a sealed one, once the platform has given it."""
    host: LeaseHost | None = None
    """What answers its host calls, if its function was granted any."""
    outcome: Outcome | None = None
    """With its outputs, once they are sealed: that is done once."""
    beating: bool = False
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

    @property
    def sealed(self) -> bool:
        """Whether its input and all that it leaves are sealed: nothing of it goes out as it is."""
        return self.lease is not None and self.lease.spec.get("data_key") is not None

    @property
    def lost_with(self) -> str | None:
        """What of it went with the process that had started it; None: nothing, it can be handed in."""
        if self.sealed and self.key is None:  # nothing of it may go out as it is
            return "the key of this attempt"
        if self.lease is not None and granted.needs(self.lease) and self.host is None:
            return "what this attempt has left of its entries and outputs"
        return None


class Carrier:
    """Carries attempts; many at a time, each by one task and its heartbeat. ``spawn`` starts a task beside the caller.

    ``pick`` says what a slot wants to lease with its last outcome.
    """

    def __init__(
        self,
        api: LeaseApi,
        runner: Runner,
        clock: Clock,
        journal: Journal,
        spawn: Spawn,
        pick: Callable[[], Want | None],
        signer: Signer,
        confidential: Confidential | None = None,
    ) -> None:
        self._api = api
        self.egress: Egress | None = None
        """How functions reach other hosts; None: not at all."""
        self._runner = runner
        self._clock = clock
        self._journal = journal
        self._spawn = spawn
        self._pick = pick
        self._signer = signer
        self._confidential = confidential
        self._modules = Modules(api.download)
        self.pace_s = PACE_S
        """How long an attempt takes here, at most QUICK_S: an average that forgets."""
        self.stop_at: float | None = None
        """When whatever still runs is given back, on the monotonic clock; None: the agent goes on."""
        self.carrying: set[Handle] = set()

    def hold(self, leases: list[Lease]) -> list[Lease]:
        """From now on these attempts are ours; returns the leases."""
        self.carrying.update(Handle(lease.job, lease.attempt) for lease in leases)
        return leases

    def attempt(self, lease: Lease) -> Attempt:
        """A leased attempt, not started yet."""
        handle = Handle(lease.job, lease.attempt)
        return Attempt(handle, min(BEAT_S, lease.lease_ms / 3000), lease, follow=lease.follow)

    def carry(self, attempt: Attempt, *, more: bool = True) -> list[Lease]:
        """Carry an attempt to its end; returns what was leased then (with ``more``)."""
        handle = attempt.handle
        try:
            if self.stop_at is not None and attempt.started is None:  # it came while the agent was told to stop
                self.give_back(attempt)
            elif self.start(attempt) and self._ended(attempt):
                self.note_pace(attempt)
                self._hand_in(attempt, self._runner.collect(handle), more=more)
        except Exception as error:  # a defect here must cost neither the job nor the slot
            log.exception("job %s attempt %d", handle.job, handle.attempt)
            self._fail(attempt, f"the agent failed: {error!r}")
        finally:
            self.end(attempt)
        return attempt.following

    def adopted(self, handle: Handle) -> None:
        """Hand in an attempt that an earlier process of this agent left."""
        attempt = Attempt(handle)
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
            self.end(attempt)

    def end(self, attempt: Attempt) -> None:
        """Forget an attempt, and what it left on the disk."""
        attempt.over = True
        try:
            # What could not be handed in before this agent stops is left to its next process, to adopt.
            if attempt.settled or attempt.lost or self.stop_at is None:
                self._runner.reap(attempt.handle)
                self._journal.forget(attempt.handle)
        except Exception:  # what is left on the disk is adopted at the next start; the slot goes on
            log.exception("job %s attempt %d is not cleaned up", attempt.handle.job, attempt.handle.attempt)
        finally:
            self.carrying.discard(attempt.handle)

    # While it runs

    def start(self, attempt: Attempt) -> bool:
        """Start an attempt, once; False if it cannot be, which has been reported then."""
        if attempt.started is not None:
            return True
        lease = attempt.lease
        assert lease is not None, "what was adopted has been started"
        try:
            blob = program_blob(lease.spec["source"])
            module = self._modules.get(blob, lease.module_url) if blob and lease.module_url else None
            stdin = self._api.download(lease.input_url) if lease.input_url else _inline(lease)
            if attempt.sealed:
                stdin = self._unsealed(attempt, stdin)
            attempt.started = self._clock.monotonic()
            attempt.host = granted.host_of(self._api, self._clock, self.egress, lease, stdin)
            self._runner.start(lease, module=module, stdin=stdin, service=attempt.host)
        except (ComputeError, OSError) as error:
            if attempt.sealed and self.stop_at is not None:
                attempt.failed = True
                self.give_back(attempt)
                return False
            attempt.failed = True
            self._fail(attempt, f"it could not be started: {error}")
            return False
        return True

    def _unsealed(self, attempt: Attempt, stdin: bytes) -> bytes:
        """The input of a sealed attempt, whose key is asked for first; its lease is kept meanwhile.

        Raises:
            ComputeError: there is no key for this agent, or the input does not open with it.
        """
        lease = attempt.lease
        assert lease is not None
        if self._confidential is None:
            raise NoCapacity("this agent runs no sealed jobs: it has no way to ask for keys")
        self._start_beating(attempt)
        attempt.key = self._confidential.obtain(
            lease, lambda: not attempt.lost and attempt.cancel is None and self.stop_at is None
        )
        attempt.lease = replace(lease, delivered_tier=attempt.key.tier, evidence=attempt.key.evidence)
        return sealed.unseal(attempt.key.key, sealed.INPUT, stdin) if lease.spec.get("input") else stdin

    def _start_beating(self, attempt: Attempt) -> None:
        if not attempt.beating:
            attempt.beating = True
            self._spawn(partial(self._beat, attempt), f"beat {attempt.handle.job}")

    def _ended(self, attempt: Attempt) -> bool:
        """Ship the log until the attempt has ended; False when it is no longer ours to hand in."""
        begun = flushed = self._clock.monotonic()
        while not self._runner.poll(attempt.handle, FOLLOW_S if attempt.follow else QUICK_S):
            now = self._clock.monotonic()
            if attempt.lost:
                return False
            if self.stop_at is not None and now >= self.stop_at:
                self.give_back(attempt)
                return False
            if now - begun >= QUICK_S:
                self._start_beating(attempt)
            follow = attempt.follow and (attempt.seq < FOLLOW_FAST or now - flushed >= QUICK_S)
            if follow or now - flushed >= FLUSH_S:
                self._ship(attempt)
                flushed = now
        return not attempt.lost

    def _ship(self, attempt: Attempt) -> bool:
        """Send what is new in the log, chunk by chunk; False when some of it was not taken."""
        if attempt.sealed:  # it goes sealed, as an output
            return True
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

    def _send(self, attempt: Attempt, seq: int, entries: list[LogEntry]) -> bool:
        """Send one chunk; False when another one of this number had arrived before."""
        try:
            self._api.logs(attempt.handle.job, attempt.handle.attempt, seq, entries)
        except StaleFence:
            raise
        except Conflict:
            return False
        return True

    def _beat(self, attempt: Attempt) -> None:
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

    def give_back(self, attempt: Attempt, why: str = "the agent stops") -> None:
        """Give an attempt back unfinished, stopping it if it runs."""
        handle = attempt.handle
        self._runner.cancel(handle, Category.CANCELLED.value)
        attempt.settled = self._retry(attempt, lambda: self._api.release(handle.job, handle.attempt, why))

    def note_pace(self, attempt: Attempt) -> None:
        """It has ended: that took as long as it took."""
        if attempt.started is not None and attempt.report is None:
            self.pace_s += (min(self._clock.monotonic() - attempt.started, QUICK_S) - self.pace_s) / 4

    # When it has ended

    def _fail(self, attempt: Attempt, why: str) -> None:
        """The platform failed this attempt, not the program."""
        log.warning("job %s attempt %d: %s", attempt.handle.job, attempt.handle.attempt, why)
        attempt.settled = self._retry(attempt, lambda: self._complete(attempt, _lost(attempt.handle, why)))

    def _hand_in(self, attempt: Attempt, collected: RunnerOutcome, *, more: bool = True) -> None:
        """Hand in an outcome, and with ``more`` lease the slot's next attempt in the same call."""
        attempt.ending = True
        handle = attempt.handle

        def complete() -> None:
            if attempt.lease is None:
                attempt.lease = self._api.again(handle.job, handle.attempt)
            if attempt.lost_with is not None:
                why = f"{attempt.lost_with} went with the process that had it"
                self._complete(attempt, _lost(handle, why))
                return
            outcome = self.with_output(attempt, collected)
            entries, end = ([], 0) if attempt.sealed else self._runner.logs(handle, attempt.cursor)
            long = sum(len(entry.text) for entry in entries) > bounds.INLINE_OUTPUT_MAX
            if long or (entries and self._runner.logs(handle, end)[0]):
                if not self._ship(attempt) and self.stop_at is not None:
                    raise Unavailable("the log could not be sent before the agent stops")
                entries = []
            seq = attempt.seq + 1 if entries else 0
            report = self.report(attempt, outcome, seq, entries)
            try:
                self._complete(attempt, report, more=more)
            except StaleFence:
                raise
            except Conflict:  # the log's tail is there already
                self._complete(attempt, replace(report, log_seq=0, entries=()))

        if self._retry(attempt, complete):
            attempt.settled = True
        elif not attempt.lost and self.stop_at is None:
            self._fail(attempt, "the platform refused the agent's report")

    def _complete(self, attempt: Attempt, report: Report, *, more: bool = False) -> None:
        """Hand in one outcome, and with ``more`` lease what comes next. Raises what the report was refused with."""
        want = self._pick() if more and not attempt.following else None
        done = self._api.complete([report], want=want)
        attempt.following += self.hold(done.leases)
        (state,) = done.states
        if isinstance(state, ComputeError):
            raise state

    def report(self, attempt: Attempt, outcome: Outcome, seq: int, entries: list[LogEntry]) -> Report:
        """What is handed in: the outcome under this agent's signature; a failure of the platform needs none."""
        handle, signed = attempt.handle, None
        if outcome.category is not Category.PLATFORM:
            if attempt.lease is None:
                attempt.lease = self._api.again(handle.job, handle.attempt)
            signed = self._signer.sign(attempt.lease, outcome)
        touched = None
        if outcome.category is Category.OK and attempt.host is not None and attempt.lease is not None:
            touched = attempt.host.touched(self._api, attempt.lease)
        return Report(handle.job, handle.attempt, outcome, seq, entries, signed, touched)

    def with_output(self, attempt: Attempt, collected: RunnerOutcome) -> Outcome:
        """The outcome with its outputs, inline or uploaded; of a sealed attempt output and log, both sealed."""
        if attempt.outcome is not None:
            return attempt.outcome
        left = {"stdout": collected.stdout} if collected.stdout else {}
        truncated = list(collected.outcome.truncated)
        if attempt.sealed:
            left["log"] = self._whole_log(attempt.handle)
            left = {name: self._boxed(attempt, name, data, truncated) for name, data in left.items() if data}
        changed: dict[str, Any] = {}
        if attempt.host is not None:
            if collected.outcome.category is Category.OK:
                left |= attempt.host.outputs
            usage = collected.outcome.usage.model_copy(update={"egress_bytes": attempt.host.egress_bytes})
            changed["usage"] = usage
        outputs = self._outputs(attempt.handle, left)
        if outputs:
            changed |= {"outputs": outputs, "truncated": truncated}
        if not changed:
            return collected.outcome
        outcome = collected.outcome.model_copy(update=changed)
        if attempt.sealed:
            attempt.outcome = outcome
        return outcome

    def _boxed(self, attempt: Attempt, name: str, data: bytes, truncated: list[str]) -> bytes:
        assert attempt.key is not None, "it is started once it has its key"
        room = bounds.OUTPUT_MAX - sealed.OVERHEAD
        if len(data) > room and name not in truncated:
            truncated.append(name)
        return sealed.seal(attempt.key.key, name, data[:room])

    def _whole_log(self, handle: Handle) -> bytes:
        texts: list[str] = []
        entries, cursor = self._runner.logs(handle, 0)
        while entries:
            texts += [entry.text for entry in entries]
            entries, cursor = self._runner.logs(handle, cursor)
        return "".join(texts).encode()

    def _outputs(self, handle: Handle, left: dict[str, bytes]) -> list[Output]:
        found, room = [], bounds.INLINE_OUTPUTS_MAX
        for name, data in left.items():
            found.append(self._output(handle, name, data, room))
            room -= 0 if found[-1].blob else len(data)
        return found

    def _output(self, handle: Handle, name: str, data: bytes, room: int) -> Output:
        if len(data) <= min(bounds.INLINE_OUTPUT_MAX, room):
            return Output(name=name, size=len(data), inline_base64=base64.b64encode(data).decode())
        blob = self._api.upload(handle.job, handle.attempt, data)
        return Output(name=name, size=len(data), blob=blob)

    def _retry(self, attempt: Attempt, call: Callable[[], object]) -> bool:
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
                stopped = self.stop_at is not None and self._clock.monotonic() > self.stop_at
                if not error.retryable or stopped:
                    return False
                self._clock.sleep(wait)
                wait = min(wait * 2, RETRY_MAX_S)
            else:
                return True
        return False


def _lost(handle: Handle, why: str) -> Report:
    """What says that the platform failed an attempt."""
    return Report(handle.job, handle.attempt, Outcome(category=Category.PLATFORM, detail=why[:4096]))


def _inline(lease: Lease) -> bytes:
    given = lease.spec.get("input") or {}
    if "inline_base64" in given:
        return base64.b64decode(given["inline_base64"])
    return str(given.get("inline", "")).encode()
