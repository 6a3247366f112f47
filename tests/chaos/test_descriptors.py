"""Descriptors used up, process by process: nothing spins, nothing accepted is lost, all goes on once some are free."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hanzo_compute.adapters.local import frames
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.store import SqliteStore
from hanzo_compute.adapters.local.writer import socket_path
from hanzo_compute.errors import ComputeError, Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import Put
from hanzo_compute_host.running import is_ready
from tests.support.live import Platform, until
from tests.support.load import Load, account
from tests.support.writer import WriterProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def no_more(pid: int, spare: int = 0) -> Iterator[None]:
    """While it is entered the process may open ``spare`` descriptors beyond the highest that it has."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + spare, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_writer_that_can_let_nobody_in_serves_those_it_has(tmp_path: Path) -> None:
    with WriterProcess(tmp_path) as writer:
        client = WriterClient(tmp_path)
        store = SqliteStore(client)
        store.transact([Put(Key("p", "a"), {})])
        waiting: list[socket.socket] = []
        with no_more(writer.pid):
            used, begun = cpu_s(writer.pid), time.monotonic()
            for _ in range(10):
                waiting.append(frames.connect(socket_path(tmp_path), 20))
                waiting[-1].sendall(frames.encode({"id": 1, "op": "hello", "args": [False]}))
            until(lambda: "cannot accept" in writer.log, 120, "it says so")
            for number in range(20):
                store.transact([Put(Key("p", f"{number}"), {})])
                time.sleep(0.1)
            assert cpu_s(writer.pid) - used < 1
            assert writer.log.count("cannot accept") <= time.monotonic() - begun + 4  # it looks once in a second
        for sock in waiting:  # they had stayed in line
            assert frames.encode({"id": 1, "ok": frames.PROTOCOL}) == sock.recv(1000)
            sock.close()
        assert writer.stop() == 0
        store.close()
        client.close()


def test_a_client_without_descriptors_says_so_and_connects_later(tmp_path: Path) -> None:
    with WriterProcess(tmp_path):
        client = WriterClient(tmp_path, connect_wait_s=0.2)
        store = SqliteStore(client)
        held = [os.open("/dev/null", os.O_RDONLY)]
        with no_more(os.getpid()):
            with suppress(OSError):
                while True:
                    held.append(os.dup(held[0]))
            with pytest.raises(Unavailable, match="Too many open files"):
                store.transact([Put(Key("p", "a"), {})])
            for fd in held:
                os.close(fd)
        store.transact([Put(Key("p", "a"), {})])
        assert store.get(Key("p", "a"), fresh=True) is not None
        store.close()
        client.close()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with Platform(tmp_path / "home") as started:
        yield started


def test_a_front_without_descriptors_drops_who_comes_and_recovers(platform: Platform) -> None:
    load = Load(platform, "load")
    load.more(5)
    pid = platform.pid("front-1")
    assert pid is not None
    many: list[socket.socket] = []
    with no_more(pid, spare=4):
        used, begun = cpu_s(pid), time.monotonic()
        for _ in range(30):
            with suppress(OSError):
                many.append(socket.create_connection(("127.0.0.1", platform.port), 5))
        with pytest.raises(ComputeError) as refused:
            platform.client().upload_blob(os.urandom(100_000))
        assert refused.value.retryable
        until(lambda: not is_ready(platform.url, 0.5), 120, "nobody new is served")
        time.sleep(2)  # long enough to see whether it spins
        assert cpu_s(pid) - used < (time.monotonic() - begun) * 0.7, "it spins"
    for sock in many:
        sock.close()
    until(lambda: is_ready(platform.url, 1), 120, "it serves again")
    load.more(5)
    load.end()
    account(load.client, [load], platform.home)
    assert platform.pid("front-1") == pid
    assert (platform.home / "log" / "front-1.log").stat().st_size < 200_000


def test_an_agent_without_descriptors_leases_nothing_and_loses_no_job(platform: Platform) -> None:
    load = Load(platform, "load")
    load.more(5)
    pid = platform.pid("agent-1")
    assert pid is not None
    with no_more(pid):
        load.more(20)
        log = platform.home / "log" / "agent-1.log"
        until(lambda: "open files" in log.read_text(), 120, "it says so")
        time.sleep(6)
    load.end()
    jobs = account(load.client, [load], platform.home)
    assert max(job["attempt"] for job in jobs.values()) <= 3
    assert platform.pid("agent-1") == pid


@pytest.mark.kill
def test_the_pump_and_the_writer_without_descriptors(platform: Platform) -> None:
    """What they need they have; a writer that is started again meanwhile is found by the pump later."""
    load = Load(platform, "load")
    load.more(5)
    pump, writer = platform.pid("pump"), platform.pid("writer")
    assert pump is not None
    assert writer is not None
    with no_more(pump), no_more(writer):
        load.more(10)
        os.kill(writer, 9)
        until(lambda: platform.pid("writer") not in (None, writer), 120, "the writer is back")
        load.more(5)
    load.end()
    account(load.client, [load], platform.home)
    assert platform.pid("pump") == pump
    assert platform.stop() == 0
