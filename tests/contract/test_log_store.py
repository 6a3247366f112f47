"""The contract of LogStore, on the stores of each family."""

from __future__ import annotations

import pytest

from hanzo_compute.adapters.logs import RecordLogs
from hanzo_compute.errors import Conflict, InvalidRequest, PayloadTooLarge, Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.bounds import INLINE_OUTPUT_MAX, LOG_CHUNK_MAX, LOG_CHUNKS_MAX
from hanzo_compute.ports import LogEntry, LogPage, LogStore
from tests.support.backends import Backend, Process
from tests.support.faults import FaultyStore, scripted


@pytest.fixture
def logs(backend: Backend, process: Process) -> LogStore:
    return RecordLogs(process.store, backend.blobs)


@pytest.fixture
def job(backend: Backend) -> str:
    return backend.unique("job")


def lines(*texts: str) -> list[LogEntry]:
    return [LogEntry(1000 + n, "stdout", text) for n, text in enumerate(texts)]


def test_chunks_come_back_in_order_of_attempt_and_number(logs: LogStore, job: str) -> None:
    logs.append("t", job, 2, 1, lines("d"))
    logs.append("t", job, 1, 1, lines("a", "b"))
    logs.append("t", job, 1, 2, [LogEntry(5, "stderr", "c\u0000\x1b[31m é\n")])
    page = logs.read("t", job)
    assert page.entries == [*lines("a", "b"), LogEntry(5, "stderr", "c\u0000\x1b[31m é\n"), *lines("d")]
    assert logs.read("t", job, page.cursor) == LogPage([], page.cursor)
    logs.append("t", job, 10, 1, lines("e"))
    assert logs.read("t", job, page.cursor).entries == lines("e")


def test_pages_are_limited_in_chunks(logs: LogStore, job: str) -> None:
    for seq in range(1, 6):
        logs.append("t", job, 1, seq, lines(str(seq)))
    seen: list[LogEntry] = []
    cursor = ""
    for expected in (2, 2, 1, 0):
        page = logs.read("t", job, cursor, limit=2)
        assert len(page.entries) == expected
        seen += page.entries
        cursor = page.cursor
    assert [entry.text for entry in seen] == list("12345")


def test_nothing_yet(logs: LogStore, job: str) -> None:
    assert logs.read("t", job) == LogPage([], "")


def test_large_chunks_are_kept_whole(backend: Backend, process: Process, logs: LogStore, job: str) -> None:
    sizes = [INLINE_OUTPUT_MAX - 100, INLINE_OUTPUT_MAX, LOG_CHUNK_MAX]
    for seq, size in enumerate(sizes, start=1):
        logs.append("t", job, 1, seq, lines("é" * (size // 2)))
    assert [len(entry.text.encode()) for entry in logs.read("t", job).entries] == sizes
    bodies = [record.body for record in process.store.query(keys.log_partition(job))]
    assert [sorted(body) for body in bodies] == [["entries", "tenant"], ["blob", "tenant"], ["blob", "tenant"]]
    assert backend.blobs.size("t", bodies[2]["blob"]) is not None


@pytest.mark.parametrize("size", [10, INLINE_OUTPUT_MAX * 2])
def test_the_same_chunk_twice_is_once_and_another_is_refused(logs: LogStore, job: str, size: int) -> None:
    logs.append("t", job, 1, 1, lines("x" * size))
    logs.append("t", job, 1, 1, lines("x" * size))
    with pytest.raises(Conflict, match="chunk 1 of attempt 1"):
        logs.append("t", job, 1, 1, lines("y" * size))
    assert [entry.text for entry in logs.read("t", job).entries] == ["x" * size]


@pytest.mark.parametrize("script", [["transact:before"], ["transact:reply_lost"]])
def test_an_append_is_repeated_safely(backend: Backend, process: Process, job: str, script: list[str]) -> None:
    logs = RecordLogs(FaultyStore(process.store, scripted(*script)), backend.blobs)
    with pytest.raises(Unavailable):
        logs.append("t", job, 1, 1, lines("a"))
    logs.append("t", job, 1, 1, lines("a"))
    assert logs.read("t", job).entries == lines("a")


def test_another_tenant_reads_nothing(logs: LogStore, job: str) -> None:
    logs.append("t", job, 1, 1, lines("a"))
    assert logs.read("other", job).entries == []


@pytest.mark.parametrize("cursor", ["x", "1", "1.", ".1", "1.1.1", "-1.1", "1.999999999", "1.1\n", "\u0661.\u0661"])
def test_a_bad_cursor_is_refused(logs: LogStore, job: str, cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        logs.read("t", job, cursor)


def test_chunks_out_of_bounds_are_refused(logs: LogStore, job: str) -> None:
    with pytest.raises(PayloadTooLarge):
        logs.append("t", job, 1, 1, lines("x" * LOG_CHUNK_MAX, "x"))
    with pytest.raises(PayloadTooLarge):
        logs.append("t", job, 1, LOG_CHUNKS_MAX + 1, lines("x"))
    for attempt, seq in ((0, 1), (1, 0), (10**8, 1)):
        with pytest.raises(InvalidRequest):
            logs.append("t", job, attempt, seq, lines("x"))
    assert logs.read("t", job) == LogPage([], "")
