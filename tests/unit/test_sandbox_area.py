"""The memory that a supervisor shares with a worker, as its lender sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

import pytest

from hanzo_compute.adapters.sandbox import frames
from hanzo_compute.adapters.sandbox.area import LEAST, SIZE, Area, Lender
from hanzo_compute.adapters.sandbox.frames import BadFrame, Invocation, Result


class Pair:
    """A lender, and the worker's side."""

    def __init__(self) -> None:
        self.lender = Lender()
        self.fd = os.dup(self.lender.fd)
        self.area = Area(self.lender.fd)
        self.lender.given()

    def sends(self, *data: bytes) -> tuple[int, bytes]:
        """The frame of such calls."""
        return unframed(self.lender.calls([Invocation(at, 7, 1000, each) for at, each in enumerate(data)]))


def unframed(data: bytes) -> tuple[int, bytes]:
    inbox = frames.Inbox()
    inbox.feed(data)
    found = inbox.take()
    assert found is not None
    assert inbox.take() is None
    return found


def result(data: bytes) -> Result:
    return Result(0, frames.EXITED, 5, 6, data)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.lender.close()
    made.area.close()
    os.close(made.fd)


@pytest.mark.parametrize("size", [0, 1, LEAST, LEAST + 1, SIZE, SIZE + 1])
def test_a_call_that_is_alone_brings_the_memory_and_its_result_brings_it_back(pair: Pair, size: int) -> None:
    request, response = b"a" * size, b"b" * size
    inside = LEAST < size <= SIZE
    for _ in range(3):
        kind, body = pair.sends(request)
        assert kind == frames.LENT
        assert len(body) < 100 or not inside
        call, given = frames.borrowed(body)
        assert call[:3] == (0, 7, 1000)
        assert given == (size if inside else 0)
        assert (pair.area.take(given) if given else call.data) == request
        assert pair.area.put(response) == inside
        back = frames.given_back(result(response)) if inside else frames.done([result(response)])
        assert pair.lender.results(*unframed(back)) == [result(response)]


def test_it_is_not_lent_while_anything_runs(pair: Pair) -> None:
    large = b"x" * SIZE
    assert pair.sends(large)[0] == frames.LENT
    for kind, body in (pair.sends(large), pair.sends(b"1", large)):
        assert kind == frames.CALLS
        assert list(frames.called(body))[-1].data == large
    pair.area.put(b"y" * SIZE)
    assert pair.lender.results(*unframed(frames.given_back(result(b"y" * SIZE))))[0].data == b"y" * SIZE
    assert pair.sends(large)[0] == frames.CALLS  # three have no result yet
    assert len(pair.lender.results(*unframed(frames.done([result(b"")] * 4)))) == 4
    assert pair.sends(large)[0] == frames.LENT


def test_it_is_not_lent_to_several_calls(pair: Pair) -> None:
    assert pair.sends(b"1", b"2")[0] == frames.CALLS


@pytest.mark.parametrize("first", [None, frames.done([]), frames.done([result(b"1")])])
def test_a_result_in_memory_that_is_not_lent_is_none(pair: Pair, first: bytes | None) -> None:
    if first is not None:
        pair.sends(b"1")
        pair.lender.results(*unframed(first))
    with pytest.raises(BadFrame, match="not lent"):
        pair.lender.results(*unframed(frames.given_back(result(b"x" * SIZE))))


def test_a_result_longer_than_the_memory_is_none(pair: Pair) -> None:
    pair.sends(b"1")
    with pytest.raises(BadFrame):
        pair.lender.results(*unframed(frames.given_back(result(b"x" * (SIZE + 1)))))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_result_of_another_length_is_none(pair: Pair, change: int) -> None:
    body = unframed(frames.given_back(result(b"x" * SIZE)))[1]
    pair.sends(b"1")
    with pytest.raises(BadFrame):
        pair.lender.results(frames.BACK, (body + b"\0")[: len(body) + change])


def test_what_was_taken_does_not_change_any_more(pair: Pair) -> None:
    pair.sends(b"1")
    pair.area.put(b"a" * SIZE)
    (found,) = pair.lender.results(*unframed(frames.given_back(result(b"x" * SIZE))))
    pair.area.put(b"b" * SIZE)
    assert found.data == b"a" * SIZE


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_a_worker_cannot_change_its_length(pair: Pair, size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(pair.fd, size)
    assert os.fstat(pair.fd).st_size == SIZE


def test_a_worker_that_gives_its_pages_back_leaves_zeros(pair: Pair) -> None:
    import ctypes

    pair.sends(b"1")
    pair.area.put(b"a" * SIZE)
    punch_hole, keep_size = 2, 1
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_int64(SIZE)
    assert libc.fallocate(pair.fd, punch_hole | keep_size, ctypes.c_int64(0), size) == 0, ctypes.get_errno()
    assert pair.lender.results(*unframed(frames.given_back(result(b"x" * SIZE))))[0].data == bytes(SIZE)


def test_nothing_is_put_into_it_once_it_is_closed(pair: Pair) -> None:
    pair.lender.close()
    pair.lender.close()
    kind, body = pair.sends(b"x" * SIZE)
    assert kind == frames.LENT
    assert frames.borrowed(body)[0].data == b"x" * SIZE


def test_lenders_have_memory_of_their_own(pair: Pair) -> None:
    other = Pair()
    pair.sends(b"a" * SIZE)
    other.sends(b"b" * SIZE)
    found = [each.area.take(SIZE) for each in (pair, other)]
    other.lender.close()
    other.area.close()
    os.close(other.fd)
    assert all(one != two for one, two in pairwise(found))
