"""Workers that were taken over: nothing that one says is believed, and it ends in time."""

from __future__ import annotations

import random
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox import area, frames, process
from hanzo_compute.adapters.sandbox.call import Report
from hanzo_compute.adapters.sandbox.frames import FRAME_MAX, BadFrame, Inbox
from hanzo_compute.adapters.sandbox.process import Answered, Overdue, WorkerDied, WorkerProcess
from tests.support.sandbox import Lab
from tests.support.wasm import command

SOON_S = 60.0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


class Impostor:
    """A worker whose other end is the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worker = WorkerProcess()
        self.worker._socket.close()
        self.worker._socket, self.socket = socket.socketpair()
        monkeypatch.setattr(process, "READY_S", 5.0)

    def says(self, *data: bytes) -> None:
        """Bytes in the name of the worker, from another thread: a socket does not hold them all."""

        def say() -> None:
            try:
                for each in data:
                    self.socket.sendall(each)
            except OSError:
                pass

        threading.Thread(target=say, daemon=True).start()

    def listens(self) -> None:
        """Read what it is told."""

        def read() -> None:
            with suppress(OSError):
                while self.socket.recv(1 << 16):
                    pass

        threading.Thread(target=read, daemon=True).start()


@pytest.fixture
def impostor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Impostor]:
    made = Impostor(monkeypatch)
    yield made
    made.socket.close()
    made.worker.kill()


def collected(impostor: Impostor, seconds: float = 0.5) -> list[Answered]:
    """What it answers to a call."""
    impostor.worker.send([frames.Invocation(0, 0, 0, b"")])
    return impostor.worker.collect(1, time.monotonic() + seconds)


def told(report: object, blobs: bytes = b"", **more: object) -> bytes:
    import json

    text = json.dumps({"report": report, **more}).encode()
    data = struct.pack("<I", len(text)) + text + blobs
    return frames.done([frames.Result(0, frames.TOLD, -1, 5, data)])


GOOD = {
    **dict.fromkeys(("output", "stdout", "stderr", "wall_ms", "cpu_ms", "memory_bytes"), 0),
    "kind": "exit",
    "exit_code": 0,
    "trap": None,
    "detail": "",
    "fuel": None,
    "at_memory_limit": False,
    "limits": [],
    "counters": {},
}


def test_a_report_of_the_right_form_is_taken(impostor: Impostor) -> None:
    impostor.says(told({**GOOD, "stdout": 3}, b"abc"))
    (answered,) = collected(impostor, 60)
    assert answered.report == Report("exit", exit_code=0, stdout=b"abc")


NONSENSE: dict[str, bytes] = {
    "a frame of 4 GiB": struct.pack("<BI", frames.DONE, 2**32 - 1),
    "a frame just too long": struct.pack("<BI", frames.OUTPUT, FRAME_MAX + 1),
    "a frame of no kind": frames.frame(0, b""),
    "a frame that workers get": frames.frame(frames.CALLS, b""),
    "a result cut short": frames.frame(frames.DONE, b"\0" * 10),
    "a result longer than its frame": frames.frame(frames.DONE, struct.pack("<IBqII", 0, 0, 0, 0, 100)),
    "a result in no memory": frames.frame(frames.BACK, b""),
    "two results": frames.done([frames.Result(0, frames.EXITED, -1, 0, b"")] * 2),
    "results by the million": frames.frame(frames.DONE, bytes(FRAME_MAX)),
    "arguments by the million": frames.frame(frames.ASK, b"kv_get\0" + b"b\0\0\0\0" * (FRAME_MAX // 5 - 2)),
    "a report that is no JSON": frames.done([frames.Result(0, frames.TOLD, -1, 0, b"\4\0\0\0abcd")]),
    "a report that is a list": frames.done([frames.Result(0, frames.TOLD, -1, 0, b"\2\0\0\0[]")]),
    "a report without its length": frames.done([frames.Result(0, frames.TOLD, -1, 0, b"\2")]),
    "a report of nested lists": frames.done(
        [frames.Result(0, frames.TOLD, -1, 0, struct.pack("<I", 100_000) + b"[" * 100_000)]
    ),
    "JSON of 50 MB": frames.done(
        [frames.Result(0, frames.TOLD, -1, 0, struct.pack("<I", 50_000_000) + b" " * 50_000_000)]
    ),
    "a question of nobody": frames.ask("exec", [b"sh"]),
    "a question of the worker's own": frames.ask("log", [1, b"x"]),
    "a question without arguments": frames.ask("kv_get", []),
    "a question with too many": frames.ask("kv_get", [b"key", b"key"]),
    "a question with numbers for bytes": frames.ask("kv_put", [1, 2, 3]),
    "a question cut short": frames.frame(frames.ASK, b"kv_get\0b\xff\0\0\0abc"),
    "output of no stream": frames.frame(frames.OUTPUT, b"\3abc"),
    "output of nothing": frames.frame(frames.OUTPUT, b""),
    "a log line without level": frames.frame(frames.OUTPUT, b"\0text"),
    "more output than it sends": told({**GOOD, "stdout": 5}, b"abc"),
    "less than no output": told({**GOOD, "stdout": -1, "output": 1}, b"abc"),
    "no output": told({**GOOD, "stdout": None}),
    "a kind of its own": told({**GOOD, "kind": "success"}),
    "an exit code of text": told({**GOOD, "exit_code": "0"}),
    "an exit code below 0": told({**GOOD, "exit_code": -1}),
    "an endless time": told({**GOOD, "wall_ms": 1e300}),
    "true for a number": told({**GOOD, "cpu_ms": True}),
    "fuel of 2^64": told({**GOOD, "fuel": 2**64}),
    "a number for words": told({**GOOD, "detail": 5}),
    "limits that are numbers": told({**GOOD, "limits": [1]}),
    "counters of text": told({**GOOD, "counters": {"a": "b"}}),
    "a field too many": told({**GOOD, "admin": True}),
    "a field too few": told({key: value for key, value in GOOD.items() if key != "kind"}),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_worker_that_speaks_nonsense_is_killed(impostor: Impostor, what: str) -> None:
    impostor.says(NONSENSE[what])
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WorkerDied):
        collected(impostor, 60)
    assert time.monotonic() - began < 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * (FRAME_MAX >> 10)
    assert impostor.worker.dead


IN_MEMORY: dict[str, bytes] = {
    "4 GiB": frames.frame(frames.BACK, struct.pack("<IBqII", 0, frames.EXITED, -1, 0, 2**32 - 1)),
    "a byte too many": frames.given_back(frames.Result(0, frames.EXITED, -1, 0, b"x" * (area.SIZE + 1))),
    "a result and more": frames.frame(frames.BACK, bytes(22)),
    "two results": frames.given_back(frames.Result(0, frames.EXITED, -1, 0, b"x")) * 2,
    "a report of zeros": frames.given_back(frames.Result(0, frames.TOLD, -1, 0, b"x" * 100)),
    "a report without its length": frames.given_back(frames.Result(0, frames.TOLD, -1, 0, b"x")),
    "a frame that workers get": frames.lent(frames.Invocation(0, 0, 0, b""), inside=False),
}


@pytest.mark.parametrize("what", IN_MEMORY)
def test_a_worker_that_misuses_the_memory_it_was_lent_is_killed(impostor: Impostor, what: str) -> None:
    impostor.worker.send([frames.Invocation(0, 0, 0, b"x" * area.SIZE)])
    impostor.says(IN_MEMORY[what])
    with pytest.raises(WorkerDied):
        impostor.worker.collect(2, time.monotonic() + 60)
    assert impostor.worker.dead


def test_memory_that_was_not_lent_has_no_result(impostor: Impostor) -> None:
    impostor.worker.send([frames.Invocation(number, 0, 0, b"") for number in range(2)])
    impostor.says(frames.given_back(frames.Result(0, frames.EXITED, -1, 0, b"x" * 10)))
    with pytest.raises(WorkerDied):
        impostor.worker.collect(1, time.monotonic() + 60)
    assert impostor.worker.dead


def test_a_result_that_nobody_waits_for_is_the_last(impostor: Impostor) -> None:
    good = frames.done([frames.Result(0, frames.EXITED, -1, 0, b"")])
    impostor.says(good)
    assert len(collected(impostor)) == 1
    impostor.says(good)
    with pytest.raises(WorkerDied):
        impostor.worker.collect(1, time.monotonic() + 60)
    assert impostor.worker.dead


def endless(impostor: Impostor, data: bytes) -> threading.Event:
    """Says the same for ever."""
    stop = threading.Event()

    def say() -> None:
        try:
            while not stop.is_set():
                impostor.socket.sendall(data)
        except OSError:
            pass

    threading.Thread(target=say, daemon=True).start()
    return stop


FLOODS = {
    "output": frames.frame(frames.OUTPUT, b"\1" + b"x" * 1000) * 50,
    "empty output": frames.frame(frames.OUTPUT, b"\1") * 5000,
    "results of nothing": frames.frame(frames.DONE, b"") * 5000,
    "readiness": frames.told(frames.READY, {}) * 500,
    "questions": frames.ask("kv_get", [b"key"]) * 500,
    "questions that are heard": frames.ask("kv_get", [b"key"]) * 500,
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_does_not_outlast_the_time(impostor: Impostor, what: str) -> None:
    if what == "questions that are heard":
        impostor.listens()
    stop = endless(impostor, FLOODS[what])
    began = time.monotonic()
    with pytest.raises(Overdue):
        collected(impostor, 0.3)
    stop.set()
    assert time.monotonic() - began < SOON_S
    assert impostor.worker.dead


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_end_in_one_of_two_ways(impostor: Impostor, seed: int) -> None:
    dice = random.Random(seed)
    good = [
        IN_MEMORY["two results"],
        NONSENSE["a question without arguments"],
        told(GOOD),
        frames.told(frames.READY, {"a": 1}),
        *FLOODS.values(),
    ]
    pieces = []
    for _ in range(50):
        data = bytearray(dice.choice(good)[:2000])
        for _ in range(dice.randrange(6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        pieces.append(bytes(data[: dice.randrange(len(data) + 1)]) if dice.random() < 0.3 else bytes(data))
    impostor.says(*pieces, dice.randbytes(5000))
    began = time.monotonic()
    try:
        while True:
            collected(impostor, 0.5)
    except (WorkerDied, Overdue):
        pass
    assert time.monotonic() - began < 60
    assert impostor.worker.dead


def test_nonsense_while_it_should_be_getting_ready(impostor: Impostor, lab: Lab) -> None:
    binary = command("")
    impostor.says(frames.frame(frames.READY, b"[" * 200_000))
    with pytest.raises(WorkerDied):
        impostor.worker.prepare(lab.template(binary), lab.opens(binary, "fast"))


def test_a_flood_while_it_should_be_getting_ready(impostor: Impostor, lab: Lab) -> None:
    binary = command("")
    endless(impostor, FLOODS["output"])
    began = time.monotonic()
    with pytest.raises(Overdue):
        impostor.worker.prepare(lab.template(binary), lab.opens(binary, "fast"))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("seed", range(10))
def test_an_inbox_keeps_no_more_than_a_frame(seed: int) -> None:
    dice = random.Random(seed)
    inbox = Inbox()
    with suppress(BadFrame):
        for _ in range(2000):
            data = dice.randbytes(dice.choice((1, 5, 100, 4096)))
            if dice.random() < 0.5:
                data = frames.frame(dice.randrange(256), data)
            inbox.feed(data)
            while inbox.take() is not None:
                pass
            assert inbox._size <= FRAME_MAX + 5
            assert sum(map(len, inbox._pieces)) <= FRAME_MAX + 5 + 2 * 4096
