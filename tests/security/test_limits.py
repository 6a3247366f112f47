"""What one front holds is bounded, whoever is slow, silent or many; and it recovers by itself."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hanzo_compute.errors import Unauthenticated
from hanzo_compute_host import limits as limiting
from hanzo_compute_host.limits import Limits
from hanzo_compute_host.protocol import TURNED_AWAY_MAX
from tests.support.host import FakeCommits, Host, read_head, serving, until

MIB = 2**20
HEAD = b"GET /ok HTTP/1.1\r\nHost: x\r\n"


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_opened: list[asyncio.StreamWriter] = []


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test, and close what it has opened."""

    async def bounded() -> None:
        try:
            async with asyncio.timeout(120):
                await test()
        finally:
            for writer in _opened:
                writer.close()
            _opened.clear()
            await asyncio.sleep(0.01)

    asyncio.run(bounded())


def ok(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "body": "ok"}


def waiter(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "headers": {"hzc-wake": "JOB#1", "hzc-wait": "2"}, "body": "nothing"}


class Waiter:
    """Has something to say once it is told so."""

    ready = False

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        headers = {} if self.ready else {"hzc-wake": "JOB#1", "hzc-wait": "100"}
        return {"statusCode": 200, "headers": headers, "body": "nothing"}


async def connect(host: Host, data: bytes = b"") -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", host.client.port)
    _opened.append(writer)
    writer.write(data)
    return reader, writer


async def begin(host: Host, method: str, path: str, size: int = 0, body: bytes = b"") -> Connection:
    """A request whose answer is not read, or whose body does not come."""
    reader, writer = await host.client.open(method, path, {"content-length": str(size)}, body)
    _opened.append(writer)
    return reader, writer


async def end_of(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side closes."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def served(host: Host, path: str = "/ok") -> None:
    assert (await host.client.request("GET", path)).status == 200


async def recovered(host: Host) -> None:
    """Ask again and again until it is served as before."""
    while True:
        reader, writer = await connect(host, HEAD + b"Connection: close\r\n\r\n")
        if (await end_of(reader)).startswith(b"HTTP/1.1 200 "):
            return
        writer.close()
        await asyncio.sleep(0.05)


async def drip(writer: asyncio.StreamWriter, data: bytes, pause_s: float) -> None:
    for byte in data:
        writer.write(bytes([byte]))
        await asyncio.sleep(pause_s)


# Slow


@pytest.mark.parametrize("lead", [b"", HEAD + b"\r\n"], ids=["first", "later"])
def test_a_head_byte_by_byte_has_a_time_limit(lead: bytes) -> None:
    async def test() -> None:
        async with serving({"ok": ok}, limits=Limits(head_s=1.0)) as host:
            reader, writer = await connect(host, lead)
            if lead:
                assert (await read_head(reader))[0] == 200
                await reader.readexactly(2)
                await asyncio.sleep(1.2)  # an idle connection may stay: its time begins with the first byte
            slow = asyncio.create_task(drip(writer, HEAD + b"x-endless: " + b"a" * 1000, 0.02))
            await served(host)
            answer = await end_of(reader)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"code": "request_timeout"' in answer
            slow.cancel()
            await served(host)

    run(test)


@pytest.mark.parametrize("data", [b"", b"\r\n"], ids=["nothing", "empty lines"])
def test_a_connection_that_asks_nothing_is_closed(data: bytes) -> None:
    async def test() -> None:
        async with serving({"ok": ok}, limits=Limits(head_s=0.8)) as host:
            reader, writer = await connect(host)
            slow = asyncio.create_task(drip(writer, data * 500, 0.02))
            answer = await end_of(reader)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
            slow.cancel()

    run(test)


def test_a_request_behind_one_that_waits_has_its_time_too() -> None:
    async def test() -> None:
        async with serving({"ok": ok, "waiter": waiter}, limits=Limits(head_s=0.8)) as host:
            reader, _ = await connect(host, HEAD.replace(b"/ok", b"/waiter") + b"\r\n" + HEAD)
            assert (await read_head(reader))[0] == 200
            assert b"408" in await end_of(reader)

    run(test)


def test_a_body_byte_by_byte_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanzo_compute_host.exchange.BODY_TIMEOUT_S", 0.8)
    monkeypatch.setattr("hanzo_compute_host.exchange.DISCARD_TIMEOUT_S", 0.1)
    calls: list[Any] = []

    async def test() -> None:
        async with serving({"handler": lambda event, context: calls.append(event), "ok": ok}) as host:
            reader, writer = await begin(host, "POST", "/handler", 1000)
            slow = asyncio.create_task(drip(writer, b"a" * 900, 0.02))
            await served(host)
            status, headers = await read_head(reader)
            assert (status, headers["connection"]) == (408, "close")
            slow.cancel()
            assert calls == []

    run(test)


@pytest.mark.parametrize("how", ["half", "close", "reset"])
def test_a_client_that_has_gone_is_not_waited_for(how: str) -> None:
    async def test() -> None:
        calls: list[Any] = []

        def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
            calls.append(event)
            return waiter(event, context)

        async with serving({"handler": handler}) as host:
            _, writer = await begin(host, "GET", "/handler")
            await until(lambda: len(host.app.parking) == 1)
            if how == "half":
                writer.write_eof()
            elif how == "close":
                writer.close()
            else:
                writer.transport.abort()
            await until(lambda: len(host.app.parking) == 0)
            assert len(calls) == 1

    run(test)


# Clients that do not read


class Firehose:
    """A stream that always has another piece to give."""

    def __init__(self, size: int) -> None:
        self.calls = 0
        self.size = size

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        self.calls += 1
        headers = {"content-type": "text/event-stream", "hzc-stream": str(self.calls)}
        return {"statusCode": 200, "headers": headers, "body": f"data: {'x' * self.size}\n\n"}


async def settled(value: Callable[[], int]) -> int:
    """The value once it no longer changes, however often the loop comes round."""
    before, rounds = -1, 0
    while rounds < 40:
        rounds = rounds + 1 if value() == before else 0
        before = value()
        await asyncio.sleep(0.01)
    return before


def test_a_stream_that_nobody_reads_stands_still_and_is_cut_off() -> None:
    async def test() -> None:
        hose = Firehose(MIB)
        async with serving({"hose": hose, "ok": ok}, limits=Limits(unread_s=3.0)) as host:
            await begin(host, "GET", "/hose")
            calls = await settled(lambda: hose.calls)
            assert calls < 40, "only what the sockets' buffers take"
            assert host.app.load.answers.held <= 2 * MIB
            await served(host)
            await until(lambda: host.app.load.answers.held == 0)
            assert len(host.app.parking) == 0
            assert hose.calls <= calls + 1

    run(test)


def test_a_stream_that_is_read_slowly_goes_on() -> None:
    async def test() -> None:
        hose = Firehose(MIB)
        async with serving({"hose": hose}, limits=Limits(unread_s=3.0)) as host:
            reader, _ = await begin(host, "GET", "/hose")
            calls = await settled(lambda: hose.calls)
            begun = asyncio.get_running_loop().time()
            while hose.calls < calls + 3 or asyncio.get_running_loop().time() < begun + 4:
                assert await reader.read(64 * 1024)
                await asyncio.sleep(0.02)

    run(test)


def test_a_large_answer_that_nobody_reads_is_given_up() -> None:
    def large(event: dict[str, Any], context: Any) -> dict[str, Any]:
        return {"statusCode": 200, "body": "x" * (24 * MIB)}

    async def test() -> None:
        async with serving({"large": large, "ok": ok}, limits=Limits(unread_s=3.0, answers=40 * MIB)) as host:
            await begin(host, "GET", "/large")
            await until(lambda: host.app.load.answers.held)
            # A second one would be too much to hold.
            refused = await host.client.request("GET", "/large")
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            await served(host)
            await until(lambda: host.app.load.answers.held == 0)
            assert len((await host.client.request("GET", "/large")).body) == 24 * MIB

    run(test)


def test_a_pipelined_request_does_not_keep_a_dead_stream_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanzo_compute_host.http.KEEP_ALIVE_S", 0.05)
    calls: list[Any] = []

    def quiet(event: dict[str, Any], context: Any) -> dict[str, Any]:
        calls.append(event)
        headers = {"content-type": "text/event-stream", "hzc-stream": "1", "hzc-wake": "LOG#1"}
        return {"statusCode": 200, "headers": headers, "body": ""}

    async def test() -> None:
        async with serving({"quiet": quiet, "ok": ok}) as host:
            reader, writer = await connect(host, HEAD.replace(b"/ok", b"/quiet") + b"\r\n" + HEAD + b"\r\n")
            await reader.readuntil(b": waiting\n\n")
            writer.transport.abort()
            await until(lambda: len(host.app.parking) == 0)
            before = len(calls)
            await asyncio.sleep(0.3)
            assert len(calls) == before

    run(test)


# Many


def test_connections_over_the_bound_are_told_and_closed() -> None:
    async def test() -> None:
        async with serving({"ok": ok}, limits=Limits(connections=8)) as host:
            idle = [await connect(host) for _ in range(8)]
            reader, _ = await connect(host, HEAD + b"\r\n")
            status, headers = await read_head(reader)
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert b'"code": "unavailable"' in await end_of(reader)
            # Those that are inside are served all the same.
            idle[0][1].write(HEAD + b"\r\n")
            assert (await read_head(idle[0][0]))[0] == 200
            for _, each in idle:
                each.close()
            await recovered(host)

    run(test)


def test_a_storm_of_connections_is_cut_off_and_passes() -> None:
    async def test() -> None:
        async with serving({"ok": ok}, limits=Limits(connections=8)) as host:
            storm = [await connect(host, HEAD + b"\r\n") for _ in range(8 + TURNED_AWAY_MAX + 100)]
            answers = await asyncio.gather(*(storm_answer(reader) for reader, _ in storm))
            assert answers[:8] == [b"200"] * 8
            assert set(answers[8:]) <= {b"503", b""}
            assert answers.count(b"503") >= TURNED_AWAY_MAX
            assert b"" in answers
            for _, writer in storm:
                writer.close()
            await recovered(host)

    run(test)


async def storm_answer(reader: asyncio.StreamReader) -> bytes:
    try:
        line = await reader.readline()
    except ConnectionResetError:
        return b""
    return line.split(b" ")[1] if line else b""


def test_requests_that_wait_for_the_disk_are_bounded_and_others_told_at_once() -> None:
    async def test() -> None:
        commits = FakeCommits()
        calls: list[str] = []
        waits = Waiter()

        def writes(event: dict[str, Any], context: Any) -> dict[str, Any]:
            calls.append(event["rawPath"])
            commits.write()
            return {"statusCode": 201, "body": "made"}

        handlers = {"writes": writes, "lease": ok, "waiter": waits}
        async with serving(handlers, commits=commits, limits=Limits(turns=4)) as host:
            parked = []
            for count in range(1, 21):  # they wait for a job, not for us
                parked.append(host.start("GET", "/waiter"))
                await until(lambda count=count: len(host.app.parking) == count)
            first = []
            for count in range(1, 5):
                first.append(host.start("POST", "/writes"))
                await until(lambda count=count: len(calls) == count)
            refused = await host.client.request("POST", "/writes")
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["code"] == "unavailable"
            assert len(calls) == 4
            # What runs already goes on: its agents are refused later than anybody else.
            assert (await host.client.request("POST", "/lease")).status == 200
            commits.commit()
            assert [(await each).status for each in first] == [201] * 4
            again = host.start("POST", "/writes")
            await until(lambda: len(calls) == 5)
            commits.commit()
            assert (await again).status == 201
            waits.ready = True
            commits.commit("JOB#1")
            assert {(await each).status for each in parked} == {200}
            assert host.app.load.turns == 0

    run(test)


def test_counts_come_back_to_nothing_however_requests_end() -> None:
    async def test() -> None:
        def fails(event: dict[str, Any], context: Any) -> dict[str, Any]:
            raise ValueError

        async with serving({"ok": ok, "fails": fails, "waiter": waiter}) as host:
            await asyncio.gather(*(host.client.request("GET", "/ok") for _ in range(50)))
            await asyncio.gather(*(host.client.request("GET", "/fails") for _ in range(5)))
            await asyncio.gather(*(host.client.request("GET", "/nowhere") for _ in range(5)))
            for _ in range(5):
                _, writer = await connect(host, HEAD.replace(b"/ok", b"/waiter") + b"\r\n" + (HEAD + b"\r\n") * 3)
                await until(lambda: len(host.app.parking) > 0)
                writer.transport.abort()
            await host.client.request("POST", "/ok", body=b"x" * 500_000)
            _, writer = await begin(host, "POST", "/ok", 900000, b"x" * 500_000)
            await until(lambda: host.app.load.bodies.held >= 500_000)
            writer.close()
            await until(lambda: host.app.load.bodies.held == 0)
            await until(lambda: host.app.load.turns == 0)
            assert host.app.load.answers.held == 0

    run(test)


def test_a_large_body_is_read_only_of_who_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanzo_compute_host.exchange.DISCARD_TIMEOUT_S", 0.1)
    asked: list[str | None] = []

    def admit(header: str | None) -> None:
        asked.append(header)
        if header != "Bearer good":
            raise Unauthenticated("who are you?")

    async def test() -> None:
        async with serving({"ok": ok}, admit=admit) as host:
            small = await host.client.request("POST", "/ok", body=b"x" * limiting.SMALL)
            assert (small.status, asked) == (200, [])
            reader, _ = await begin(host, "POST", "/ok", 500000)
            assert (await read_head(reader))[0] == 401  # before any byte of the body
            good = await host.client.request("POST", "/ok", {"authorization": "Bearer good"}, b"x" * 500_000)
            assert good.status == 200
            assert asked == [None, "Bearer good"]

    run(test)


def test_limits_follow_the_open_files_that_a_process_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    infinity = resource.RLIM_INFINITY
    monkeypatch.setattr(limiting.resource, "setrlimit", lambda _, limit: raised.append(limit))
    for soft, hard, raises, connections in (
        (256, 1_024, [(1_024, 1_024)], 448),
        (1_024, 20_000, [(20_000, 20_000)], 9_936),
        (1_024, infinity, [(65_536, infinity)], 10_000),
        (infinity, infinity, [], 10_000),
        (64, 64, [], 16),
    ):
        raised.clear()
        monkeypatch.setattr(limiting.resource, "getrlimit", lambda _, both=(soft, hard): both)
        assert (limiting.from_system().connections, raised) == (connections, raises)
