"""Workers of a pool that a guest has taken over: they cost the call that they ran, in time, and nobody else's."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox import frames, pool_worker
from hanzo_compute.adapters.sandbox.frames import Inbox, Result
from hanzo_compute.adapters.sandbox.pool import Pool
from hanzo_compute.adapters.sandbox.process import WorkerProcess
from hanzo_compute.ports.sandboxes import GuestCall, GuestResult
from tests.support.guest_programs import module
from tests.support.wasm import command

SOON_S = 60.0

Says = Callable[[socket.socket], None]


class Services:
    """Answers host calls, and counts them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[bytes | int]]] = []

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        self.asked.append((name, args))
        return 0, b""


class TakenOver:
    """Workers that load and prepare as others do, and answer a call with what the test says."""

    def __init__(self) -> None:
        self.says: Says = lambda _: None
        self.ends: list[socket.socket] = []

    def detach(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.ends += [ours, theirs]
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return ours

    def _serve(self, end: socket.socket) -> None:
        inbox = Inbox()
        with suppress(OSError):
            while data := end.recv(1 << 16):
                inbox.feed(data)
                while (found := inbox.take()) is not None:
                    if found[0] == frames.PREPARE:
                        end.sendall(frames.told(frames.READY, {"ready": True}))
                    elif found[0] in (frames.CALLS, frames.LENT):
                        self.says(end)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[TakenOver]:
    made = TakenOver()
    monkeypatch.setattr(WorkerProcess, "detach", made.detach)
    monkeypatch.setattr(pool_worker, "GRACE_S", 0.1)
    yield made
    for end in made.ends:
        end.close()


@pytest.fixture
def called(tmp_path: Path, taken: TakenOver) -> Callable[..., GuestResult]:
    """What becomes of a call that such a worker runs."""

    def call(says: Says, services: Services | None = None, timeout_s: float = 0.5) -> GuestResult:
        async def one() -> GuestResult:
            pool = Pool(tmp_path / "state", tmp_path / "cache", 1)
            try:
                taken.says = says
                async with asyncio.timeout(SOON_S):
                    return await pool.call(GuestCall(module(command("")), "t", b"", timeout_s, services))
            finally:
                await pool.close()

        return asyncio.run(one())

    return call


def _listen(end: socket.socket) -> None:
    with suppress(OSError):
        while end.recv(1 << 16):
            pass


def for_ever(*data: bytes, pause_s: float = 0.0) -> Says:
    def say(end: socket.socket) -> None:
        threading.Thread(target=_listen, args=(end,), daemon=True).start()
        while True:
            for each in data:
                end.sendall(each)
                time.sleep(pause_s)

    return say


FLOODS: dict[str, Says] = {
    "results of nothing": for_ever(frames.frame(frames.DONE, b""), pause_s=0.05),
    "results of nothing, many": for_ever(frames.frame(frames.DONE, b"") * 5000),
    "lines of a log": for_ever(frames.frame(frames.OUTPUT, b"\0info\0x") * 2000),
    "readiness": for_ever(frames.told(frames.READY, {}) * 2000),
    "half a frame, slowly": for_ever(struct.pack("<BI", frames.OUTPUT, 90 << 20), pause_s=0.05),
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_worker_that_talks_without_end_has_its_time_and_no_more(
    called: Callable[..., GuestResult], what: str
) -> None:
    assert called(FLOODS[what]).category == "timeout"


def test_questions_without_end_are_too_many_for_a_guest(called: Callable[..., GuestResult]) -> None:
    services = Services()
    found = called(for_ever(frames.ask("kv_get", [b"key"]) * 500), services, timeout_s=SOON_S)
    assert found.category == "platform"
    assert len(services.asked) <= 10_000


QUESTIONS = {
    "of nobody": frames.ask("exec", [b"sh"]),
    "of the worker's own": frames.ask("log", [1, b"x"]),
    "with an argument too many": frames.ask("kv_get", [b"key", b"key"]),
    "without arguments": frames.ask("kv_get", []),
    "with numbers for bytes": frames.ask("kv_put", [1, 2, 3]),
}


@pytest.mark.parametrize("what", QUESTIONS)
def test_what_no_guest_can_ask_is_not_passed_on(called: Callable[..., GuestResult], what: str) -> None:
    services = Services()
    found = called(lambda end: end.sendall(QUESTIONS[what]), services, timeout_s=SOON_S)
    assert (found.category, services.asked) == ("platform", [])


def test_a_frame_that_workers_get_ends_it(called: Callable[..., GuestResult]) -> None:
    assert called(lambda end: end.sendall(frames.frame(frames.CALLS, b"")), timeout_s=SOON_S).category == "platform"


def test_a_line_of_a_log_is_cut_to_what_is_kept(called: Callable[..., GuestResult]) -> None:
    line = frames.frame(frames.OUTPUT, b"\0info\0" + b"x" * (8 << 20))
    good = frames.done([Result(0, frames.EXITED, -1, 5, b"ok")])
    found = called(lambda end: end.sendall(line + good), timeout_s=SOON_S)
    assert found.category == "ok"
    assert len(found.errors) <= 64 << 10


def test_more_results_than_calls_end_it_and_not_in_the_log_as_ours(
    called: Callable[..., GuestResult], caplog: pytest.LogCaptureFixture
) -> None:
    twice = frames.done([Result(0, frames.EXITED, -1, 5, b"ok")] * 2)
    with caplog.at_level(logging.ERROR):
        assert called(lambda end: end.sendall(twice), timeout_s=SOON_S).category == "platform"
    assert not caplog.records
