"""Queues and schedules drive handlers as on AWS: acknowledged when durable, failures back with a growing delay."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from hanzo_compute.adapters.memory import ManualClock, MemoryQueue, SeededIds
from hanzo_compute.errors import Unavailable
from hanzo_compute.ports import DEAD_LETTERS, Message, queue_wake
from hanzo_compute_host.functions import Functions
from hanzo_compute_host.manifest import Manifest, QueueSource, Schedule
from hanzo_compute_host.pump import BACKOFF_MAX_S, POLL_S, Pump
from tests.support.host import FakeCommits, manifest_of

WORK = "dispatch"
Handler = Callable[[Any, Any], Any]


class Bench:
    """A pump on a queue in memory, stepped by hand on a clock that stands still."""

    def __init__(self, handler: Handler, tick: Handler | None = None) -> None:
        self.clock = ManualClock()
        self.queue = MemoryQueue(self.clock, {WORK: 3})
        self.commits = FakeCommits()
        self.pauses: list[float] = []
        plain = manifest_of({"handler": handler, "tick": tick or (lambda event, context: None)})
        self.manifest: Manifest = replace(
            plain,
            queues=(QueueSource(WORK, "handler", 10, 0, 30, 3, WORK + DEAD_LETTERS),),
            schedules=(Schedule("Tick", "Schedule", "tick", 5),) if tick else (),
        )
        self.pump = Pump(
            self.manifest,
            Functions(self.manifest),
            queue=self.queue,
            commits=self.commits,
            clock=self.clock,
            ids=SeededIds(Random(1)),
            pause=self.pause,
        )

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(round(seconds * 1000))

    def send(self, *bodies: dict[str, Any]) -> None:
        for body in bodies:
            self.queue.send(WORK, body)

    def drain(self) -> None:
        while self.pump.step():
            pass

    def waiting(self, queue: str = WORK) -> list[Message]:
        """What is visible now."""
        return self.queue.receive(queue, visibility_s=1)


@pytest.fixture
def bench() -> Any:
    made: list[Bench] = []

    def make(handler: Handler, tick: Handler | None = None) -> Bench:
        made.append(Bench(handler, tick))
        return made[-1]

    yield make
    for each in made:
        each.commits.close()


def bodies(event: Any) -> list[dict[str, Any]]:
    return [json.loads(record["body"]) for record in event["Records"]]


def test_a_batch_is_handled_and_acknowledged(bench: Any) -> None:
    seen: list[dict[str, Any]] = []
    rig = bench(lambda event, context: seen.extend(bodies(event)))
    rig.send({"job": "a"}, {"job": "b"})
    rig.drain()
    assert seen == [{"job": "a"}, {"job": "b"}]
    rig.clock.advance(3_600_000)
    assert rig.waiting() == []


def test_only_what_failed_comes_again_after_a_delay_that_doubles(bench: Any) -> None:
    calls: list[list[str]] = []

    def handler(event: Any, context: Any) -> Any:
        calls.append([body["job"] for body in bodies(event)])
        failed = [r["messageId"] for r in event["Records"] if json.loads(r["body"])["job"] == "bad"]
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    rig = bench(handler)
    rig.send({"job": "good"}, {"job": "bad"})
    rig.drain()
    assert calls == [["good", "bad"]]
    for delay_ms in (1_000, 2_000):
        rig.clock.advance(delay_ms - 1)
        assert rig.queue.receive(WORK, visibility_s=1) == []
        rig.clock.advance(1)
        rig.pump._look_at = dict.fromkeys(rig.pump._look_at, 0.0)
        rig.drain()
    assert calls == [["good", "bad"], ["bad"], ["bad"]]
    rig.clock.advance(60_000)
    rig.drain()
    assert [message.body for message in rig.waiting(WORK + DEAD_LETTERS)] == [{"job": "bad"}]
    assert len(calls) == 3


def test_a_handler_that_raises_fails_its_whole_batch(bench: Any) -> None:
    calls: list[int] = []

    def handler(event: Any, context: Any) -> Any:
        calls.append(len(event["Records"]))
        if len(calls) == 1:
            raise ValueError("broken")

    rig = bench(handler)
    rig.send({"job": "a"}, {"job": "b"})
    rig.drain()
    rig.clock.advance(1_000)
    rig.drain()
    assert calls == [2, 2]
    rig.clock.advance(3_600_000)
    assert rig.waiting() == []


def test_nothing_is_acknowledged_before_it_is_durable(bench: Any) -> None:
    order: list[str] = []

    class Watched(FakeCommits):
        def wait(self, ticket: int, timeout_s: float = 30.0) -> None:
            order.append("durable")
            super().wait(ticket, timeout_s)

    def handler(event: Any, context: Any) -> None:
        rig.commits.write()
        order.append("handled")

    rig = bench(handler)
    rig.commits.close()
    rig.pump._commits = rig.commits = Watched()
    acknowledge = rig.queue.ack
    rig.queue.ack = lambda messages: (order.append("acknowledged"), acknowledge(messages))
    rig.send({"job": "a"})
    rig.drain()
    assert order == ["handled", "durable", "acknowledged"]


def test_messages_whose_writes_were_lost_come_again(bench: Any) -> None:
    class Lost(FakeCommits):
        def wait(self, ticket: int, timeout_s: float = 30.0) -> None:
            raise Unavailable("the write was lost")

    calls: list[int] = []

    def handler(event: Any, context: Any) -> None:
        rig.commits.write()
        calls.append(1)

    rig = bench(handler)
    rig.commits.close()
    rig.pump._commits = rig.commits = Lost()
    rig.send({"job": "a"})
    rig.drain()
    rig.clock.advance(1_000)
    assert len(calls) == 1
    assert [message.body for message in rig.waiting()] == [{"job": "a"}]


def test_a_wake_ends_the_pause_and_idling_polls_once_a_second(bench: Any) -> None:
    looks: list[float] = []
    rig = bench(lambda event, context: None)
    receive = rig.queue.receive
    rig.queue.receive = lambda *args, **named: (looks.append(rig.clock.monotonic()), receive(*args, **named))[1]
    rig.drain()
    assert rig.pump.idle_s() == pytest.approx(POLL_S)
    rig.commits.commit("JOB#1")
    assert rig.pump.idle_s() == pytest.approx(POLL_S)
    rig.commits.commit(queue_wake(WORK))
    assert rig.pump.idle_s() == 0
    rig.drain()
    rig.commits.commit("*")
    assert rig.pump.idle_s() == 0

    looks.clear()
    begin = rig.clock.monotonic()
    while rig.clock.monotonic() < begin + 10:
        if not rig.pump.step():
            rig.pause(rig.pump.idle_s())
    assert len(looks) <= 12


def test_a_tick_comes_every_period_and_what_was_missed_stays_missed(bench: Any) -> None:
    ticks: list[dict[str, Any]] = []
    rig = bench(lambda event, context: None, lambda event, context: ticks.append(event))
    rig.drain()
    assert len(ticks) == 1
    assert ticks[0]["source"] == "aws.events"
    rig.clock.advance(4_999)
    rig.drain()
    assert len(ticks) == 1
    rig.clock.advance(1)
    rig.drain()
    assert len(ticks) == 2
    rig.clock.advance(60_000)
    rig.drain()
    assert len(ticks) == 3


def test_a_slow_tick_is_followed_by_a_whole_period_and_a_failing_one_by_the_next(bench: Any) -> None:
    ticks: list[float] = []

    def tick(event: Any, context: Any) -> None:
        ticks.append(rig.clock.monotonic())
        rig.clock.advance(3_000)
        raise ValueError("broken")

    rig = bench(lambda event, context: None, tick)
    rig.pump.step()
    rig.clock.advance(1_999)
    rig.pump.step()
    assert len(ticks) == 1
    rig.clock.advance(1)
    rig.pump.step()
    assert len(ticks) == 2


def test_a_store_that_cannot_answer_is_tried_again(bench: Any) -> None:
    seen: list[dict[str, Any]] = []

    def handler(event: Any, context: Any) -> None:
        seen.extend(bodies(event))
        rig.pump.stop()

    rig = bench(handler)
    rig.send({"job": "a"})
    receive = rig.queue.receive
    failures = iter([Unavailable("no writer"), Unavailable("no writer")])

    def unreliable(*args: Any, **named: Any) -> list[Message]:
        for failure in failures:
            raise failure
        found: list[Message] = receive(*args, **named)
        return found

    rig.queue.receive = unreliable
    rig.pump.run()
    assert seen == [{"job": "a"}]
    assert rig.pauses == [POLL_S, POLL_S]


def test_the_delay_is_bounded() -> None:
    assert BACKOFF_MAX_S <= 900
