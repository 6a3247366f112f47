"""The writer process: what it promises when it is killed, when the disk fails, and to clients that misbehave."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest

from hanzo_compute.adapters.local import frames, integrity, schema
from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.server import BATCH_MAX
from hanzo_compute.adapters.local.store import SqliteStore
from hanzo_compute.adapters.local.writer import EXIT_DAMAGED, EXIT_LOCKED, EXIT_NEWER, socket_path
from hanzo_compute.errors import Unavailable
from hanzo_compute.model.keys import Key
from hanzo_compute.ports import ABSENT, WAKE_ALL, CommitNews, Delete, Put, WriteConflict
from tests.support.writer import COMMAND, Load, WriterProcess


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[WriterProcess]:
    with WriterProcess(tmp_path) as process:
        yield process


@pytest.fixture
def connect(writer: WriterProcess) -> Iterator[Callable[..., tuple[WriterClient, SqliteStore]]]:
    """Make clients that are closed in the end."""
    made: list[tuple[WriterClient, SqliteStore]] = []

    def make(**options: Any) -> tuple[WriterClient, SqliteStore]:
        client = WriterClient(writer.home, **options)
        made.append((client, SqliteStore(client)))
        return made[-1]

    yield make
    for client, store in made:
        store.close()
        client.close()


Connect = Callable[..., tuple[WriterClient, SqliteStore]]
T = TypeVar("T")


def settle(client: WriterClient) -> None:
    ticket = client.take()
    if ticket is not None:
        client.wait(ticket)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def next_news(client: WriterClient, part: Callable[[CommitNews], Sequence[T]]) -> list[T]:
    found: list[T] = []

    def look() -> bool:
        found.extend(part(client.news()))
        return bool(found)

    eventually(look)
    return found


def wait_for_durable(loads: list[Load], more: int) -> None:
    def count() -> int:
        return sum(len(load.durable) for load in loads)

    enough = count() + more
    eventually(lambda: count() >= enough)


def all_sort_keys(store: SqliteStore, pk: str) -> list[str]:
    found: list[str] = []
    while page := store.query(pk, after=found[-1] if found else "", limit=1000):
        found += [record.key.sk for record in page]
    return found


@pytest.mark.kill
def test_what_was_durable_survives_kill_and_nothing_is_there_by_half(writer: WriterProcess, connect: Connect) -> None:
    loads = [Load(writer.home, f"load{n}") for n in range(4)]
    for load in loads:
        load.start()
    random = Random(20)
    for _ in range(8):
        wait_for_durable(loads, more=random.randrange(1, 40))
        assert writer.kill() == -signal.SIGKILL
        writer.start()
    for load in loads:
        load.ended.set()
        load.join(30)
        assert not load.is_alive()
    _, store = connect()
    for load in loads:
        first, second = (all_sort_keys(store, f"{load.name}/{half}") for half in "ab")
        assert first == second
        assert {f"{n:06}" for n in load.durable} <= set(first)
        assert len(first) <= load.tried


def test_a_failed_commit_loses_the_batch_and_says_so(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect()
    store.transact([Put(Key("p", "before"), {})])
    settle(client)
    log = Path(f"{schema.path_of(writer.home)}-wal")
    limits = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)
    # A log that cannot grow: what a full disk does to the commit.
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
    for name in ("lost", "lost too"):
        store.transact([Put(Key("p", name), {"x": "x" * 10_000}, expect=ABSENT)])
        ticket = client.take()
        assert ticket is not None
        with pytest.raises(Unavailable, match="lost before it was durable"):
            client.wait(ticket)
        with pytest.raises(Unavailable):
            client.wait(ticket)
        assert client.take() is None
        assert store.get(Key("p", name)) is None
        assert store.get(Key("p", name), fresh=True) is None
    store.transact([Put(Key("p", "reported"), {"x": "x" * 10_000}, expect=ABSENT)])
    ticket = client.take()
    assert next_news(client, lambda news: news.failed) == [ticket]

    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, limits)
    store.transact([Put(Key("p", "lost"), {}, expect=ABSENT)])
    settle(client)
    assert writer.kill() == -signal.SIGKILL
    writer.start()
    assert [record.key.sk for record in store.query("p")] == ["before", "lost"]
    assert "requests are lost" in writer.log


def test_nothing_is_built_on_a_write_that_was_lost(writer: WriterProcess, connect: Connect) -> None:
    """Send, lost; delete what asked for it to be sent, durable: that would be a message lost for good."""
    client, store = connect()
    store.transact([Put(Key("outbox", "row"), {})])
    settle(client)
    log = Path(f"{schema.path_of(writer.home)}-wal")
    limits = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
    store.transact([Put(Key("queue", "message"), {"x": "x" * 10_000})])
    while not client._tickets.lost:
        client._read_waiting()
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, limits)
    with pytest.raises(Unavailable, match="earlier write of this caller was lost"):
        store.transact([Delete(Key("outbox", "row"))])
    ticket = client.take()
    assert ticket is not None
    with pytest.raises(Unavailable, match="lost before it was durable"):
        client.wait(ticket)
    store.transact([Put(Key("queue", "message"), {}), Delete(Key("outbox", "row"))])
    settle(client)
    assert store.get(Key("outbox", "row")) is None


def test_a_transaction_that_does_not_fit_the_disk_is_refused_alone(writer: WriterProcess, connect: Connect) -> None:
    _, store = connect()
    limits = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (200_000, limits[1]))
    large = [Put(Key("p", f"{n}"), {"x": "x" * 390_000}) for n in range(10)]
    # Larger than SQLite's page cache, so that it fails before the commit or in it.
    outcome = None
    try:
        store.transact(large)
        settle(store._client)
    except Unavailable as error:
        outcome = error
    assert outcome is not None
    store._client.take()
    resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, limits)
    assert store.query("p") == []
    store.transact(large)
    settle(store._client)
    assert len(store.query("p")) == 10


def pause(writer: WriterProcess) -> None:
    """Stop the writer's process where it is: it does no more once this returns."""
    os.kill(writer.pid, signal.SIGSTOP)
    state = Path(f"/proc/{writer.pid}/stat")
    eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")


def unread(client: WriterClient) -> int:
    """Bytes of a client's that the writer has not read."""
    assert client._sock is not None
    return int.from_bytes(fcntl.ioctl(client._sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def run_refused(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, str(home)], capture_output=True, text=True, timeout=120, check=False)


def test_a_second_writer_is_refused(writer: WriterProcess, connect: Connect) -> None:
    _, store = connect()
    refused = run_refused(writer.home)
    assert refused.returncode == EXIT_LOCKED
    assert "another writer owns" in refused.stderr
    store.transact([Put(Key("p", "a"), {})])


def make_database(home: Path, *statements: str) -> Path:
    path = schema.path_of(home)
    path.parent.mkdir()
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()
    return path


def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = make_database(tmp_path, "CREATE TABLE t (x)", "PRAGMA user_version = 99")
    before = path.read_bytes()
    refused = run_refused(tmp_path)
    assert refused.returncode == EXIT_NEWER
    assert "schema version 99" in refused.stderr
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = make_database(tmp_path, "CREATE TABLE t (x)")
    before = path.read_bytes()
    refused = run_refused(tmp_path)
    assert (refused.returncode, "another program" in refused.stderr) == (EXIT_DAMAGED, True)
    assert path.read_bytes() == before


def test_a_damaged_database_is_refused_with_a_clear_message(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect()
    for n in range(5):
        store.transact([Put(Key("p", f"{n}"), {"x": "x" * 300_000})])
    settle(client)
    store.close()
    assert writer.stop() == 0
    path = schema.path_of(writer.home)
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[: len(whole) // 2], whole[: 4096 * 10], b"not a database" * 1000):
        path.write_bytes(damaged)
        refused = run_refused(writer.home)
        assert refused.returncode == EXIT_DAMAGED
        assert "hzc restore FILE" in refused.stderr
        assert "Traceback" not in refused.stderr
    path.write_bytes(whole)
    writer.start()
    assert len(store.query("p")) == 5


def test_sigterm_finishes_the_batch(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect()
    store.transact([Put(Key("p", "a"), {})])
    ticket = client.take()
    assert writer.stop() == 0
    if ticket is not None:
        client.wait(ticket)
    store.close()
    assert not socket_path(writer.home).exists()
    path = schema.path_of(writer.home)
    assert sorted(path.parent.iterdir()) == [path, path.with_name(integrity.MADE)]
    writer.start()
    assert store.get(Key("p", "a")) is not None


def test_only_the_owner_reaches_the_writer(writer: WriterProcess) -> None:
    path = socket_path(writer.home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((writer.home / "db").stat().st_mode) == 0o700


def test_deep_folders_work(tmp_path: Path) -> None:
    home = tmp_path / ("deep" * 20) / ("deeper" * 20)
    home.mkdir(parents=True)
    with WriterProcess(home) as process:
        client = WriterClient(home)
        SqliteStore(client).transact([Put(Key("p", "a"), {})])
        settle(client)
        client.close()
        assert process.stop() == 0


def raw(writer: WriterProcess, *, wakes: bool = False) -> socket.socket:
    """A connection without a client: it can send what no client sends."""
    sock = frames.connect(socket_path(writer.home), 20)
    sock.sendall(frames.encode({"id": 1, "op": "hello", "args": [wakes]}))
    assert sock.recv(1000)
    return sock


def put_frame(number: int, pk: str, body: str = "{}") -> bytes:
    return frames.encode({"id": number, "op": "transact", "args": [[["put", pk, f"{number}", None, body, {}]], []]})


def test_a_client_that_does_not_read_is_disconnected_and_blocks_nobody(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect()
    store.transact([Put(Key("p", f"{n}"), {"x": "x" * 390_000}) for n in range(3)])
    with raw(writer) as slow:
        slow.sendall(frames.encode({"id": 2, "op": "query", "args": ["p", "", "", 10, False]}) * 100)
        for n in range(20):
            store.transact([Put(Key("q", f"{n}"), {})])
        settle(client)
        eventually(lambda: client.stats()["clients"] == 1)
    assert len(store.query("q")) == 20
    assert "unread" in writer.log


def test_a_sleeper_that_never_reads_its_wakes_is_disconnected(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect()
    with raw(writer, wakes=True):
        eventually(lambda: client.stats()["clients"] == 2)
        for n in range(60):
            store.transact([Put(Key(f"{number:03}-{n}" + "x" * 2000, "a"), {}) for number in range(100)])
            settle(client)
        assert client.stats()["clients"] == 1
    assert "unread" in writer.log


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02{]",
        b"\x00\x00\x00\x02[]",
        frames.encode({"id": "x", "op": "get", "args": []}),
        frames.encode({"id": 2, "op": "get"}),
    ],
    ids=["http", "too-large", "no-json", "no-object", "no-number", "no-args"],
)
def test_garbage_ends_only_its_own_connection(writer: WriterProcess, connect: Connect, garbage: bytes) -> None:
    _, store = connect()
    with raw(writer) as bad:
        bad.sendall(garbage)
        assert bad.recv(1000) == b""
    store.transact([Put(Key("p", "a"), {})])
    assert store.get(Key("p", "a")) is not None


@pytest.mark.parametrize(
    "args",
    [
        ["get", "p"],
        ["drop_table"],
        ["get", {"a": 1}, "b"],
        ["transact", [["put", "p", "a", None, "{}", {}], ["put", "p", "b", None, None, {}]], []],
    ],
)
def test_a_wrong_request_is_refused_and_changes_nothing(writer: WriterProcess, args: list[Any]) -> None:
    decoder = frames.Decoder()
    with raw(writer) as sock:
        sock.sendall(frames.encode({"id": 2, "op": args[0], "args": args[1:]}))
        (answer,) = [frame for frame in decoder.feed(sock.recv(10_000)) if "id" in frame]
        assert (answer["id"], answer["invalid"]) == (2, args[0] != "transact")
        sock.sendall(frames.encode({"id": 3, "op": "get", "args": ["p", "a"]}))
        seen: list[frames.Frame] = []
        while not any(frame.get("id") == 3 for frame in seen):
            seen += decoder.feed(sock.recv(10_000))
    assert [frame["ok"] for frame in seen if frame.get("id") == 3] == [None]


def test_what_waits_on_many_connections_is_one_commit(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect()
    before = client.stats()
    clients = [raw(writer) for _ in range(32)]
    pause(writer)
    for number, sock in enumerate(clients, start=2):
        sock.sendall(put_frame(number, "p"))
    os.kill(writer.pid, signal.SIGCONT)
    eventually(lambda: client.stats()["requests"] - before["requests"] == 32)
    for sock in clients:
        decoder = frames.Decoder()
        seen: list[frames.Frame] = []
        while not any("durable" in frame for frame in seen):
            seen += decoder.feed(sock.recv(10_000))
        sock.close()
    after = client.stats()
    assert after["commits"] - before["commits"] <= 2
    assert after["largest_batch"] >= 16
    assert len(store.query("p")) == 32


def test_a_batch_is_bounded(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect()
    with raw(writer) as sock:
        pause(writer)
        sock.sendall(b"".join(put_frame(number, "p") for number in range(2, 1002)))
        os.kill(writer.pid, signal.SIGCONT)
        durable: list[int] = []
        decoder = frames.Decoder()
        while 1001 not in durable:
            durable += [frame["durable"] for frame in decoder.feed(sock.recv(10_000)) if "durable" in frame]
    assert durable == sorted(durable)
    assert client.stats()["largest_batch"] <= BATCH_MAX
    assert len(all_sort_keys(store, "p")) == 1000


def test_a_client_reconnects_and_wakes_everybody(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect(wakes=True)
    store.transact([Put(Key("p", "a"), {})])
    settle(client)
    descriptor = client.fileno()
    client.news()
    assert writer.kill() == -signal.SIGKILL
    assert WAKE_ALL not in client.news().woken
    writer.start()
    assert next_news(client, lambda news: news.woken) == [WAKE_ALL]
    assert client.fileno() == descriptor
    store.transact([Put(Key("p", "b"), {})])
    assert len(store.query("p")) == 2


def test_a_request_in_flight_at_the_kill_is_unavailable(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect()
    client.connect()
    errors: list[Exception] = []

    def ask() -> None:
        try:
            store.transact([Put(Key("p", "a"), {})])
        except Unavailable as error:
            errors.append(error)

    pause(writer)
    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: unread(client) > 0)
    assert writer.kill() == -signal.SIGKILL
    thread.join(120)
    assert len(errors) == 1
    writer.start()
    assert store.get(Key("p", "a")) is None


def test_without_a_writer_the_wait_is_bounded(writer: WriterProcess, connect: Connect) -> None:
    _, store = connect(connect_wait_s=2.0)
    assert writer.stop() == 0
    with pytest.raises(Unavailable, match="no connection"):
        store.get(Key("p", "a"))
    writer.start()
    assert store.get(Key("p", "a")) is None


def test_a_writer_that_hangs_is_given_up(writer: WriterProcess, connect: Connect) -> None:
    client, store = connect(reply_wait_s=3.0)
    client.connect()
    pause(writer)
    with pytest.raises(Unavailable, match="did not answer"):
        store.transact([Put(Key("p", "a"), {})])
    os.kill(writer.pid, signal.SIGCONT)
    store.transact([Put(Key("p", "b"), {})])
    settle(client)


def test_concurrent_counters_lose_no_increment(writer: WriterProcess, connect: Connect) -> None:
    _, first = connect()
    first.transact([Put(Key("p", "count"), {"n": 0})])

    def increment(store: SqliteStore) -> None:
        for _ in range(25):
            found = store.get(Key("p", "count"))
            while found is not None:
                try:
                    store.transact([Put(found.key, {"n": found.body["n"] + 1}, expect=found.rev)])
                    break
                except WriteConflict as conflict:
                    found = conflict.current[found.key]

    threads = [threading.Thread(target=increment, args=(connect()[1],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = first.get(Key("p", "count"), fresh=True)
    assert found is not None
    assert (found.body["n"], found.rev) == (100, 101)
