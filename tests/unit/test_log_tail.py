"""The log of an attempt, read from files that grow: every byte once, never a character cut in two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanzo_compute.adapters.runner.wasm.logtail import PIECE, LogTail
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import bounds
from hanzo_compute.ports import LogEntry


class Streams:
    """Two files and a follower that reads them to the end of what is there."""

    def __init__(self, folder: Path, limit: int = bounds.LOG_LIMIT_MAX) -> None:
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        self.tail = LogTail(self.stdout, self.stderr, limit)
        self.cursor = 0
        self.entries: list[LogEntry] = []

    def write(self, stream: str, data: bytes) -> None:
        with getattr(self, stream).open("ab") as file:
            file.write(data)

    def follow(self, *, ended: bool = False) -> list[LogEntry]:
        new: list[LogEntry] = []
        while True:
            entries, self.cursor = self.tail.read(self.cursor, ended=ended, at_ms=7)
            if not entries:
                self.entries += new
                return new
            new += entries

    def text(self, stream: str) -> str:
        return "".join(entry.text for entry in self.entries if entry.stream == stream)


def test_whole_lines_come_at_once_and_the_rest_at_the_end(tmp_path: Path) -> None:
    streams = Streams(tmp_path)
    assert streams.follow() == []
    streams.write("stdout", b"one\ntwo\nthr")
    assert streams.follow() == [LogEntry(7, "stdout", "one\ntwo\n")]
    streams.write("stdout", b"ee")
    assert streams.follow() == []
    streams.write("stderr", b"oops\n")
    assert streams.follow() == [LogEntry(7, "stderr", "oops\n")]
    assert streams.follow(ended=True) == [LogEntry(7, "stdout", "three")]
    assert streams.follow(ended=True) == []


def test_a_cursor_means_the_same_to_another_reader(tmp_path: Path) -> None:
    streams = Streams(tmp_path)
    streams.write("stdout", b"one\n")
    streams.write("stderr", b"two\n")
    streams.follow()
    streams.write("stdout", b"three\n")
    again = LogTail(tmp_path / "stdout", tmp_path / "stderr", bounds.LOG_LIMIT_MAX)
    assert again.read(streams.cursor, ended=True, at_ms=9)[0] == [LogEntry(9, "stdout", "three\n")]


def test_a_long_line_comes_in_pieces_without_cutting_a_character(tmp_path: Path) -> None:
    streams = Streams(tmp_path)
    text = "x" + "☃" * PIECE
    streams.write("stdout", text.encode())
    streams.follow(ended=True)
    assert streams.text("stdout") == text
    assert all(len(entry.text.encode()) <= PIECE for entry in streams.entries)


def test_bytes_that_are_not_text_are_shown_escaped(tmp_path: Path) -> None:
    streams = Streams(tmp_path)
    streams.write("stdout", b"\xff\xfe ok \xe2\x98\n")
    assert streams.follow()[0].text == "\\xff\\xfe ok \\xe2\\x98\n"


def test_a_run_of_continuation_bytes_does_not_stall(tmp_path: Path) -> None:
    streams = Streams(tmp_path)
    streams.write("stdout", b"\x80" * (3 * PIECE))
    streams.follow(ended=True)
    assert streams.text("stdout") == "\\x80" * (3 * PIECE)


def test_both_streams_together_stay_within_the_limit(tmp_path: Path) -> None:
    streams = Streams(tmp_path, limit=1024)
    streams.write("stdout", b"a" * 600 + b"\n")
    streams.follow()
    assert not streams.tail.truncated()
    streams.write("stderr", b"b" * 600 + b"\n")
    streams.follow(ended=True)
    assert streams.text("stdout") + streams.text("stderr") == "a" * 600 + "\n" + "b" * 423
    assert streams.tail.truncated()


def test_one_call_gives_at_most_one_chunk_even_as_json(tmp_path: Path) -> None:
    streams = Streams(tmp_path)
    streams.write("stdout", b"\0" * 3_000_000)
    streams.write("stderr", b"\n" * 1_000_000)
    total, cursor = 0, 0
    while True:
        entries, cursor = streams.tail.read(cursor, ended=True, at_ms=1_700_000_000_000)
        if not entries:
            break
        shown = [{"at_ms": e.at_ms, "stream": e.stream, "text": e.text} for e in entries]
        assert len(json.dumps(shown)) <= bounds.LOG_CHUNK_MAX
        total += sum(len(entry.text) for entry in entries)
    assert total == 4_000_000


@pytest.mark.parametrize("cursor", [-1, 1 << 60])
def test_a_cursor_that_we_never_gave_is_refused(tmp_path: Path, cursor: int) -> None:
    with pytest.raises(InvalidRequest):
        Streams(tmp_path).tail.read(cursor, ended=True, at_ms=0)


CHUNKS = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.one_of(
            st.binary(max_size=40),
            st.text(max_size=20).map(str.encode),
            st.integers(PIECE - 5, 3 * PIECE).map(lambda size: ("é☃" * size).encode()[:size]),
        ),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(chunks=CHUNKS)
def test_a_follower_sees_every_byte_once_however_the_files_grow(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[tuple[str, bytes]]
) -> None:
    streams = Streams(tmp_path_factory.mktemp("log"))
    written = {"stdout": b"", "stderr": b""}
    for stream, data in chunks:
        streams.write(stream, data)
        written[stream] += data
        streams.follow()
    streams.follow(ended=True)
    for stream, data in written.items():
        assert streams.text(stream) == data.decode("utf-8", "backslashreplace")
