"""Frames survive any cut of the stream."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.adapters.local import frames

texts = st.text(max_size=20)


@given(st.lists(st.dictionaries(texts, texts, max_size=3), max_size=5), st.integers(1, 30))
def test_frames_come_out_as_they_went_in(sent: list[dict[str, str]], step: int) -> None:
    stream = b"".join(frames.encode(frame) for frame in sent)
    decoder = frames.Decoder()
    received = []
    for start in range(0, len(stream), step):
        received += list(decoder.feed(stream[start : start + step]))
    assert received == sent


def test_a_frame_over_the_bound_is_refused_before_it_is_read() -> None:
    decoder = frames.Decoder(100)
    with pytest.raises(frames.FrameTooLarge):
        list(decoder.feed((101).to_bytes(4, "big")))
    assert list(frames.Decoder(100).feed(frames.encode({"a": "x" * 80}))) == [{"a": "x" * 80}]


def test_short_paths_are_used_as_they_are(tmp_path: Path) -> None:
    with frames.address(Path("/a/b.sock")) as name:
        assert name == "/a/b.sock"
    with frames.address(tmp_path / "b.sock") as name:
        assert len(name) <= 107
