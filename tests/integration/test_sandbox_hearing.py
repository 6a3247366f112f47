"""A worker hears its supervisor whatever it does: at rest, in a guest that runs for long, and between the two."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from hanzo_compute.adapters.sandbox import frames
from hanzo_compute.adapters.sandbox.call import Bounds
from hanzo_compute.adapters.sandbox.frames import Invocation
from hanzo_compute.adapters.sandbox.process import Answered, Template, WorkerProcess
from hanzo_compute.adapters.sandbox.worker import REST_TICKS, TICK_S
from tests.support.sandbox import Lab
from tests.support.wasm import SLEEP_30_S, SPIN, command, wat

# Counts to the number that it is called with, and answers with its request.
COUNTS = """(module (memory (export "memory") 40)
  (func (export "alloc") (param i32) (result i32) (i32.const 0))
  (func (export "handle") (param i32 i32) (result i64) (local $left i32)
    (local.set $left (i32.load (i32.const 0)))
    (block $end (loop $next
      (br_if $end (i32.eqz (local.get $left)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br $next)))
    (i64.extend_i32_u (local.get 1))))"""
LONG, SHORT = 200_000_000, 1


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


def request(turns: int, size: int = 8, mark: int = 0) -> bytes:
    return turns.to_bytes(4, "little") + bytes([mark]) * (size - 4)


class Sender:
    """A worker that counts."""

    def __init__(self, lab: Lab) -> None:
        binary = wat(COUNTS)
        found = lab.template(binary, entry="reactor")
        self.worker = WorkerProcess()
        self.number = self.worker.prepare(
            Template(found.artefact, "fast", found.call, Bounds(memory_mib=64)), lab.opens(binary, "fast")
        )

    def send(self, *data: bytes) -> None:
        self.worker.send([Invocation(at, self.number, 300_000, each) for at, each in enumerate(data)], 300)

    def collect(self, count: int) -> list[bytes]:
        return [output(each) for each in self.worker.collect(count, time.monotonic() + 300)]


def output(answered: Answered) -> bytes:
    assert answered.report is not None, answered.error
    assert answered.report.kind == "exit", answered.report
    return answered.report.output


@pytest.fixture
def sender(lab: Lab) -> Iterator[Sender]:
    made = Sender(lab)
    yield made
    made.worker.kill()


@pytest.mark.parametrize("pause", [0.0, TICK_S / 2, TICK_S * 3, TICK_S * (REST_TICKS + 20)])
def test_a_deadline_is_kept_after_any_rest(lab: Lab, pause: float) -> None:
    for _ in range(3):
        lab.run(COUNTS, request(SHORT), entry="reactor")
        time.sleep(pause)  # how long nothing is asked is what this is about
        assert lab.run(command(SPIN), timeout_s=0.05).trap == "interrupt"


def test_calls_are_accepted_while_a_long_one_runs(sender: Sender) -> None:
    # More than a socket holds: if nobody heard it, the supervisor could not go on to send, nor to collect.
    more = [request(SHORT, 60_000, mark) for mark in range(60)]
    sender.send(request(LONG))
    for at in range(0, 60, 20):
        sender.send(*more[at : at + 20])
    assert sender.collect(61) == [request(LONG), *more]


def test_results_and_calls_may_pass_each_other(sender: Sender) -> None:
    # While both sockets are full, each side must still read.
    rounds: Sequence[list[bytes]] = [[request(SHORT, 30_000, at) for at in range(40)] for _ in range(4)]
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(sender.collect(160)))
    sender.send(*rounds[0])
    reader.start()
    for each in rounds[1:]:
        sender.send(*each)
    reader.join(300)
    assert found == [each for group in rounds for each in group]


@pytest.mark.parametrize("after", [0.0, TICK_S * 4])
def test_a_stop_is_heard_early_and_late(lab: Lab, after: float) -> None:
    binary = command(SPIN)
    worker = lab.worker()
    number = worker.prepare(lab.template(binary), lab.opens(binary, "fast"))
    woken, wake = os.pipe()
    try:
        for _ in range(3):
            os.write(wake, b".")
            assert worker.call(number, b"", 300, woken) is None
            os.read(woken, 1)
            time.sleep(after)  # the stop comes in the guest's first tick, or later: another thread hears it
            worker.stop()
            answered = worker.wait(time.monotonic() + 300)
            assert answered is not None
            assert answered.report is not None
            assert answered.report.trap == "interrupt"
    finally:
        os.close(woken)
        os.close(wake)


@pytest.mark.parametrize("body", [SPIN, SLEEP_30_S], ids=["busy", "asleep"])
def test_a_stop_that_comes_with_its_call_is_heard(lab: Lab, body: str) -> None:
    binary = command(body)
    worker = lab.worker()
    number = worker.prepare(lab.template(binary), lab.opens(binary, "fast"))
    for _ in range(10):  # heard together, before the call has begun
        worker._send(worker.calls([Invocation(0, number, 300_000, b"")]) + frames.frame(frames.STOP, b""))
        (answered,) = worker.collect(1, time.monotonic() + 60)
        assert answered.report is not None
        assert answered.report.trap == "interrupt"
        assert lab.run(command("")).exit_code == 0  # and the next is another's


@pytest.mark.parametrize("turns", [None, SHORT, 2**32 - 1])
def test_it_ends_with_its_supervisor_whatever_it_does(sender: Sender, turns: int | None) -> None:
    if turns is not None:
        sender.send(request(turns))
    time.sleep(0.05)  # the guest may run by then, or not: it holds either way
    pidfd = os.pidfd_open(sender.worker.pid)
    try:
        sender.worker._socket.close()
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        assert poller.poll(60_000), "it goes on"
    finally:
        os.close(pidfd)
