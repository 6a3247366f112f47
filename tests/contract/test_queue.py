"""The contract of Queue: at-least-once, visibility, dead letters."""

from __future__ import annotations

from typing import Any

import pytest

from hanzo_compute.adapters.checks import MESSAGE_MAX
from hanzo_compute.adapters.memory import ManualClock
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, DEAD_LETTERS, Message, Put, Queue, Send, WriteConflict, queue_wake
from tests.support.backends import MAX_RECEIVES, Backend, Process
from tests.support.faults import FaultyQueue, scripted


@pytest.fixture
def queue(process: Process) -> Queue:
    return process.queue


@pytest.fixture
def clock(backend: Backend) -> ManualClock:
    return backend.clock


@pytest.fixture
def name(backend: Backend) -> str:
    return backend.unique("q")


def numbers(messages: list[Message]) -> list[int]:
    return [message.body["n"] for message in messages]


def test_a_message_arrives_and_is_gone_after_ack(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 1, "text": "é"})
    sent_ms = clock.now_ms()
    clock.advance(5)
    (message,) = queue.receive(name)
    assert (message.queue, message.body, message.receive_count) == (name, {"n": 1, "text": "é"}, 1)
    assert message.sent_ms == sent_ms
    queue.ack([message])
    clock.advance(60_000)
    assert queue.receive(name) == []


def test_messages_come_longest_visible_first_and_at_most_limit(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 9}, delay_s=1)
    for n in range(3):
        queue.send(name, {"n": n})
    clock.advance(1000)
    queue.send(name, {"n": 10})
    assert numbers(queue.receive(name, limit=2)) == [0, 1]
    assert numbers(queue.receive(name)) == [2, 9, 10]
    assert queue.receive(name) == []


def test_queues_are_apart(queue: Queue, name: str) -> None:
    queue.send(name, {"n": 1})
    assert queue.receive(name + "x") == []
    assert numbers(queue.receive(name)) == [1]


def test_a_delayed_message_is_hidden_until_then(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 1}, delay_s=900)
    clock.advance(899_999)
    assert queue.receive(name) == []
    clock.advance(1)
    assert numbers(queue.receive(name)) == [1]


def test_an_unacked_message_comes_again_with_its_count(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 1})
    (first,) = queue.receive(name, visibility_s=10)
    clock.advance(9_999)
    assert queue.receive(name) == []
    clock.advance(1)
    (second,) = queue.receive(name)
    assert (second.id, second.receive_count) == (first.id, 2)
    assert second.receipt != first.receipt


def test_a_stale_receipt_changes_nothing(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 1})
    (first,) = queue.receive(name, visibility_s=10)
    clock.advance(10_000)
    queue.ack([first])  # time is up: the receipt is dead before anyone takes the message again
    (second,) = queue.receive(name, visibility_s=10)
    queue.ack([first])
    queue.nack(first)
    assert queue.receive(name) == []
    queue.nack(second)
    (third,) = queue.receive(name)
    assert third.id == first.id
    queue.ack([third])
    queue.ack([third])
    clock.advance(60_000)
    assert queue.receive(name) == []


def test_a_receipt_of_an_earlier_message_does_not_fit_a_later_one(queue: Queue, name: str) -> None:
    queue.send(name, {"n": 1})
    (first,) = queue.receive(name)
    queue.ack([first])
    queue.send(name, {"n": 2})
    (second,) = queue.receive(name)
    queue.ack([first])
    queue.nack(second)
    assert numbers(queue.receive(name)) == [2]


def test_unknown_receipts_are_ignored(queue: Queue, name: str) -> None:
    for receipt in ("", "x", "1:1", "9:9:9", "-1:1"):
        message = Message("msg-x", name, {}, receipt, 1, 0)
        queue.ack([message])
        queue.nack(message)
    queue.ack([])
    assert queue.receive(name) == []


def test_nack_shows_it_again_now_or_later(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 1})
    (message,) = queue.receive(name)
    queue.nack(message)
    (message,) = queue.receive(name)
    queue.nack(message, delay_s=5)
    clock.advance(4_999)
    assert queue.receive(name) == []
    clock.advance(1)
    (message,) = queue.receive(name)
    assert message.receive_count == 3


def receive_often(queue: Queue, clock: ManualClock, name: str, times: int) -> list[int]:
    counts = []
    for _ in range(times):
        counts += [message.receive_count for message in queue.receive(name, visibility_s=1)]
        clock.advance(1000)
    return counts


def test_after_too_many_receives_it_is_a_dead_letter(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 1})
    assert receive_often(queue, clock, name, 7) == [1, 2, 3, 4, 5]
    (dead,) = queue.receive(name + DEAD_LETTERS, visibility_s=1)
    assert (dead.body, dead.queue, dead.receive_count) == ({"n": 1}, name + DEAD_LETTERS, 1)
    clock.advance(1000)
    # Dead letters have no dead letters of their own.
    assert receive_often(queue, clock, name + DEAD_LETTERS, 7) == [2, 3, 4, 5, 6, 7, 8]


def test_a_dead_letter_makes_room_for_live_messages(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 1})
    receive_often(queue, clock, name, 5)
    queue.send(name, {"n": 2})
    assert numbers(queue.receive(name, limit=1)) == [2]


def test_live_messages_are_found_behind_more_dead_ones_than_the_limit(
    queue: Queue, clock: ManualClock, name: str
) -> None:
    for n in range(5):
        queue.send(name, {"n": n})
    receive_often(queue, clock, name, 5)
    queue.send(name, {"n": 5})
    queue.send(name, {"n": 6})
    assert numbers(queue.receive(name, limit=2)) == [5, 6]
    assert sorted(numbers(queue.receive(name + DEAD_LETTERS))) == [0, 1, 2, 3, 4]


def test_the_limit_is_configured_by_queue(queue: Queue, clock: ManualClock) -> None:
    queue.send("twice", {"n": 1})
    assert receive_often(queue, clock, "twice", 5) == list(range(1, MAX_RECEIVES["twice"] + 1))
    (dead,) = queue.receive("twice" + DEAD_LETTERS)
    queue.ack([dead])


def test_redrive_gives_dead_letters_another_life(queue: Queue, clock: ManualClock, name: str) -> None:
    for n in range(3):
        queue.send(name, {"n": n})
    receive_often(queue, clock, name, 6)
    assert queue.redrive(name, limit=2) == 2
    assert receive_often(queue, clock, name, 6) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert queue.redrive(name) == 3
    assert queue.redrive(name) == 0
    assert sorted(numbers(queue.receive(name))) == [0, 1, 2]


def test_a_dead_letter_in_somebody_s_hands_is_not_redriven(queue: Queue, clock: ManualClock, name: str) -> None:
    queue.send(name, {"n": 1})
    receive_often(queue, clock, name, 6)
    (dead,) = queue.receive(name + DEAD_LETTERS)
    assert queue.redrive(name) == 0
    queue.nack(dead)
    assert queue.redrive(name) == 1


def test_two_processes_share_messages(backend: Backend, name: str) -> None:
    one, two = backend.process().queue, backend.process().queue
    for n in range(10):
        one.send(name, {"n": n})
    received = one.receive(name, limit=4) + two.receive(name, limit=4) + one.receive(name, limit=4)
    assert numbers(received) == list(range(10))
    two.ack(received)
    backend.clock.advance(60_000)
    assert one.receive(name) == []


def test_visible_messages_wake_the_queue(process: Process, name: str) -> None:
    def woken() -> bool:
        process.settle()
        return queue_wake(name) in process.commits.news().woken

    process.queue.send(name, {"n": 1}, delay_s=1)
    assert not woken()
    process.queue.send(name, {"n": 2})
    assert woken()
    (message,) = process.queue.receive(name)
    assert not woken()
    process.queue.nack(message, delay_s=1)
    assert not woken()


@pytest.mark.parametrize(
    "body", [{"x": "x" * MESSAGE_MAX}, {"x": (1,)}, {"x": float("nan")}], ids=["large", "tuple", "nan"]
)
def test_bad_bodies_are_refused(queue: Queue, name: str, body: Any) -> None:
    with pytest.raises(ValueError, match="body"):
        queue.send(name, body)
    assert queue.receive(name) == []


def test_arguments_out_of_bounds_are_refused(queue: Queue, name: str) -> None:
    message = Message("m", name, {}, "1:1", 1, 0)
    with pytest.raises(ValueError, match="delay_s"):
        queue.send(name, {}, delay_s=901)
    with pytest.raises(ValueError, match="delay_s"):
        queue.nack(message, delay_s=-1)
    with pytest.raises(ValueError, match="visibility_s"):
        queue.receive(name, visibility_s=43_201)
    for bad in ("", "a b", "a" * 81, "é"):
        with pytest.raises(ValueError, match="queue name"):
            queue.send(bad, {})
        with pytest.raises(ValueError, match="queue name"):
            queue.receive(bad)
        with pytest.raises(ValueError, match="queue name"):
            queue.redrive(bad)
    with pytest.raises(ValueError, match="limit"):
        queue.receive(name, limit=0)
    with pytest.raises(ValueError, match="limit"):
        queue.redrive(name, limit=0)


def test_hidden_messages_can_be_brought_forward(queue: Queue, clock: ManualClock, name: str) -> None:
    """As after a clock that was set back: what was visible, what was taken and what was delayed lie in the future."""
    queue.send(name, {"n": 1})
    (taken,) = queue.receive(name, visibility_s=30)
    queue.send(name, {"n": 2}, delay_s=60)
    queue.send(name, {"n": 3})
    clock.advance(-3_600_000)
    assert queue.receive(name) == []
    assert queue.hasten(name + "x", by_s=3600) == 0
    assert queue.hasten(name, by_s=3600) == 3
    assert numbers(queue.receive(name, visibility_s=600)) == [3]
    clock.advance(29_999)
    assert queue.receive(name) == []
    clock.advance(1)
    (again,) = queue.receive(name, visibility_s=600)
    assert (again.id, again.receive_count) == (taken.id, 2)
    clock.advance(30_000)
    assert numbers(queue.receive(name)) == [2]
    with pytest.raises(ValueError, match="by_s"):
        queue.hasten(name, by_s=-1)


def test_messages_brought_forward_wake_their_queue(process: Process, backend: Backend, name: str) -> None:
    process.queue.send(name, {"n": 1}, delay_s=60)
    process.settle()
    process.commits.news()
    process.queue.hasten(name, by_s=60)
    process.settle()
    assert queue_wake(name) in process.commits.news().woken


def consume(queue: Queue, clock: ManualClock, name: str, rounds: int) -> list[int]:
    """A consumer that survives anything: what it handled, with repetitions."""
    handled: list[int] = []
    for _ in range(rounds):
        try:
            messages = queue.receive(name, visibility_s=1)
            handled += numbers(messages)
            queue.ack(messages)
        except Unavailable:
            pass
        clock.advance(1000)
    return handled


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([], [1, 2]),
        (["receive:before"], [1, 2]),
        (["receive:reply_lost"], [1, 2]),
        (["ack:before"], [1, 2, 1, 2]),
        (["ack:reply_lost"], [1, 2]),
        (["receive:duplicate"], [1, 2, 1, 2]),
        (["receive:reply_lost", "ack:before", "receive:duplicate"], [1, 2] * 4),
    ],
)
def test_no_message_is_lost_whatever_fails(
    queue: Queue, clock: ManualClock, name: str, script: list[str], expected: list[int]
) -> None:
    queue.send(name, {"n": 1})
    queue.send(name, {"n": 2})
    assert consume(FaultyQueue(queue, scripted(*script)), clock, name, 5) == expected
    assert queue.receive(name) == []


def test_a_send_whose_reply_is_lost_may_be_repeated(queue: Queue, name: str) -> None:
    faulty = FaultyQueue(queue, scripted("send:reply_lost"))
    with pytest.raises(Unavailable):
        faulty.send(name, {"n": 1})
    faulty.send(name, {"n": 1})
    assert numbers(queue.receive(name)) == [1, 1]


class TestSentWithATransaction:
    """A store that holds the queues sends with its transactions: all of it happens, or nothing."""

    def test_a_message_comes_with_the_records(self, process: Process, clock: ManualClock, name: str) -> None:
        assert process.store.sends
        sends = [Send(name, {"n": 1}), Send(name, {"n": 2}, delay_s=1)]
        process.store.transact([Put(Key(name, "a"), {})], sends)
        assert numbers(process.queue.receive(name)) == [1]
        clock.advance(1000)
        assert numbers(process.queue.receive(name)) == [2]

    def test_nothing_is_sent_when_an_expectation_fails(self, process: Process, name: str) -> None:
        process.store.transact([Put(Key(name, "a"), {})])
        with pytest.raises(WriteConflict):
            process.store.transact([Put(Key(name, "a"), {}, expect=ABSENT)], [Send(name, {"n": 1})])
        assert process.queue.receive(name) == []

    def test_a_message_that_cannot_be_sent_leaves_nothing_behind(self, process: Process, name: str) -> None:
        for send in (Send("no such/name", {}), Send(name, {"n": 1}, delay_s=901), Send(name, {"n": {1}})):
            with pytest.raises(ValueError, match=r"queue name|seconds|JSON"):
                process.store.transact([Put(Key(name, "a"), {})], [send])
        assert process.store.get(Key(name, "a"), fresh=True) is None

    def test_who_waits_for_the_queue_is_woken(self, backend: Backend, process: Process, name: str) -> None:
        sleeper = backend.process()
        sleeper.commits.news()  # connects: what came before wakes nobody
        process.store.transact([Put(Key(name, "a"), {})], [Send(name, {"n": 1})])
        process.settle()
        woken: list[str] = []
        while queue_wake(name) not in woken:  # bounded by the test's timeout
            woken += sleeper.commits.news().woken
