"""Drives the handlers of queues and schedules: the pollers that AWS runs for Lambda.

``python -m hanzo_compute_host.pump`` is a process; one is enough, and one handler runs at a time in it. When there
is nothing to do it sleeps on the writer's descriptor: a queue is looked at when its partition wakes, and once a
second, because a message can also become visible by the passing of time.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from hanzo_compute import ready
from hanzo_compute.errors import ComputeError, Unavailable
from hanzo_compute.ports import WAKE_ALL, Clock, Commits, Ids, Message, Queue, queue_wake
from hanzo_compute_host import process
from hanzo_compute_host.events import failures, from_messages, from_tick
from hanzo_compute_host.functions import Functions
from hanzo_compute_host.manifest import Manifest, QueueSource, Schedule

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""Between two looks at a queue that nobody woke."""
BACKOFF_MAX_S: Final = 30
"""Longest wait before a message that failed is tried again."""


class Pump:
    """Queues and schedules of one platform. ``pause`` waits for the descriptor or a number of seconds."""

    def __init__(
        self,
        manifest: Manifest,
        functions: Functions,
        *,
        queue: Queue,
        commits: Commits | None,
        clock: Clock,
        ids: Ids,
        pause: Callable[[float], None],
    ) -> None:
        self._functions = functions
        self._queue = queue
        self._commits = commits
        self._clock = clock
        self._ids = ids
        self._pause = pause
        now = clock.monotonic()
        self._queues = {queue_wake(source.name): source for source in manifest.queues}
        self._look_at = dict.fromkeys(self._queues, now)
        self._ticks = {schedule.name: (schedule, now) for schedule in manifest.schedules}
        self._stopping = False

    def stop(self) -> None:
        """Return from :meth:`run` after the batch or tick in hand."""
        self._stopping = True

    def run(self) -> None:
        """Work until told to stop."""
        while not self._stopping:
            try:
                if not self.step() and not self._stopping:
                    self._pause(self.idle_s())
            except Unavailable as error:
                log.warning("the store cannot answer now, trying again: %s", error.message)
                if self._commits is not None:
                    self._commits.take()  # what was lost with it comes back by itself: visibility ends
                self._pause(POLL_S)

    def step(self) -> bool:
        """Do what is due, at most a batch of each queue and a tick of each schedule; False: nothing was."""
        self._listen()
        busy = False
        for partition, source in self._queues.items():
            if self._look_at[partition] <= self._clock.monotonic():
                full = self._batch(source)
                busy = busy or full
                # What comes after a batch that was not full wakes the queue, or is gathered.
                self._look_at[partition] = self._clock.monotonic() + (0 if full else source.window_s or POLL_S)
        for schedule, due in list(self._ticks.values()):
            if due <= self._clock.monotonic():
                # What was missed stays missed: a late tick is followed by a whole period.
                self._ticks[schedule.name] = (schedule, self._clock.monotonic() + schedule.every_s)
                self._tick(schedule)
                busy = True
        return busy

    def idle_s(self) -> float:
        """Seconds until something is due if nobody wakes a queue; 0 when somebody has."""
        self._listen()
        due = [*self._look_at.values(), *(at for _, at in self._ticks.values())]
        return max(0.0, min(due, default=self._clock.monotonic() + POLL_S) - self._clock.monotonic())

    def _listen(self) -> None:
        if self._commits is None:
            return
        for woken in self._commits.news().woken:
            for partition, source in self._queues.items():
                if woken in (partition, WAKE_ALL) and not source.window_s:
                    self._look_at[partition] = 0.0

    def _batch(self, source: QueueSource) -> bool:
        """Handle a batch of a queue; whether it was full, so that there may be more."""
        messages = self._queue.receive(source.name, limit=source.batch_size, visibility_s=source.visibility_s)
        if not messages:
            return False
        event = from_messages(messages, now_ms=self._clock.now_ms())
        try:
            returned = self._functions.call(source.function, event, self._request_id())
            failed = failures(returned, messages)
            self._durable()
        except ComputeError as error:
            log.warning("%d messages of %s are tried again: %s", len(messages), source.name, error.message)
            failed = {message.id for message in messages}
        self._finish(messages, failed)
        return len(messages) == source.batch_size

    def _finish(self, messages: Sequence[Message], failed: set[str]) -> None:
        # What cannot be said here is not lost: the messages come back when their visibility ends.
        done = [message for message in messages if message.id not in failed]
        if done:
            self._queue.ack(done)
        for message in messages:
            if message.id in failed:
                delay_s = min(2 ** (message.receive_count - 1), BACKOFF_MAX_S)
                self._queue.nack(message, delay_s=delay_s)

    def _tick(self, schedule: Schedule) -> None:
        event = from_tick(schedule, event_id=self._request_id(), now_ms=self._clock.now_ms())
        try:
            self._functions.call(schedule.function, event, self._request_id())
            self._durable()
        except ComputeError as error:
            log.warning("tick of %s failed: %s", schedule.name, error.message)

    def _durable(self) -> None:
        """Wait until all that was written since the last time is durable. Raises Unavailable."""
        ticket = None if self._commits is None else self._commits.take()
        if self._commits is not None and ticket is not None:
            self._commits.wait(ticket)

    def _request_id(self) -> str:
        return self._ids.new("r", self._clock.now_ms())


class Pause:
    """Sleeps until the store has news, a signal arrives, or time is up."""

    def __init__(self, commits: Commits | None) -> None:
        self._commits = commits
        self._signals, ours = socket.socketpair()
        self._signals.setblocking(False)
        ours.setblocking(False)
        self._ours = ours
        signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)

    def __call__(self, seconds: float) -> None:
        """Sleep at most ``seconds``."""
        watched: list[int] = [self._signals.fileno()]
        if self._commits is not None:
            watched.append(self._commits.fileno())
        readable, _, _ = select.select(watched, [], [], seconds)
        if self._signals.fileno() in readable:
            self._signals.recv(4096)


def main() -> int:
    """The pump's process."""
    manifest = process.prepare()
    consumers = [each.function for each in manifest.queues] + [each.function for each in manifest.schedules]
    functions = Functions(manifest, dict.fromkeys(consumers), watchdog=True)
    container = process.container()
    pump = Pump(
        manifest,
        functions,
        queue=container.queue,
        commits=container.commits,
        clock=container.clock,
        ids=container.ids,
        pause=Pause(container.commits),
    )

    def stop(number: int, frame: FrameType | None) -> None:
        pump.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    ready.say(ready.READY)
    pump.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
