"""Frames come out of an inbox as they went in, however their bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.adapters.sandbox import frames
from hanzo_compute.adapters.sandbox.frames import BadFrame, Inbox

MESSAGES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)


@given(MESSAGES, st.lists(st.integers(1, 400), min_size=1))
def test_frames_survive_any_cuts(messages: list[tuple[int, bytes]], sizes: list[int]) -> None:
    data = b"".join(frames.frame(*message) for message in messages)
    inbox, found, at = Inbox(), [], 0
    for turn in range(len(data) + 1):
        piece = data[at : at + sizes[turn % len(sizes)]]
        if piece:
            inbox.feed(piece)
        at += len(piece)
        while (message := inbox.take()) is not None:
            found.append(message)
    assert found == messages


def test_frames_need_not_be_taken_at_once() -> None:
    inbox = Inbox()
    for number in range(3):
        inbox.feed(frames.frame(number, b"x" * number) + frames.frame(number, b"")[:3])
        inbox.feed(frames.frame(number, b"")[3:])
    assert [inbox.take() for _ in range(7)] == [(0, b""), (0, b""), (1, b"x"), (1, b""), (2, b"xx"), (2, b""), None]


@pytest.mark.parametrize("before", [b"", frames.frame(1, b"abc")])
def test_a_frame_that_is_too_long_is_refused_by_its_head(before: bytes) -> None:
    inbox = Inbox()
    inbox.feed(before + frames._HEAD.pack(1, frames.FRAME_MAX + 1))
    if before:
        assert inbox.take() == (1, b"abc")
    with pytest.raises(BadFrame, match="a frame of"):
        inbox.take()
