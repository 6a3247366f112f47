"""A front that leaves its socket to another: nobody whose connection ends sees that as a failure."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from hanzo_compute.adapters.local.system import SystemClock, SystemIds
from hanzo_compute.adapters.memory import MemoryBlobs
from hanzo_compute_host import front
from hanzo_compute_host.front import Server
from hanzo_compute_host.functions import Functions
from hanzo_compute_host.http import App
from tests.support.host import FakeCommits, manifest_of, read_head, until

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def ok(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "body": "ok"}


def poll(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "headers": {"hzc-wake": "P", "hzc-wait": "20"}, "body": "nothing"}


def stream(event: dict[str, Any], context: Any) -> dict[str, Any]:
    headers = {"content-type": "text/event-stream", "hzc-stream": "7", "hzc-wake": "P", "hzc-wait": "10"}
    return {"statusCode": 200, "headers": headers, "body": "id: 7\ndata: x\n\n"}


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, int, asyncio.Task[None]]]:
    """A front, its port, and the task that ends with it; the socket outlives it, as it does for real."""
    manifest, commits = manifest_of({"ok": ok, "poll": poll, "stream": stream}), FakeCommits()
    blobs = MemoryBlobs(SystemClock())
    app = App(
        manifest,
        Functions(manifest),
        commits=commits,
        blobs=blobs,
        clock=SystemClock(),
        ids=SystemIds(),
        admit=lambda header: None,
    )
    server = Server(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener.dup()]))
        await until(lambda: server.started)
        try:
            yield server, listener.getsockname()[1], task
        finally:
            server.stop()
            await task
            commits.close()


async def ask(streams: Streams, path: str) -> None:
    streams[1].write(f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode())
    await streams[1].drain()


async def answer(streams: Streams) -> tuple[int, dict[str, str], bytes]:
    status, headers = await read_head(streams[0])
    return status, headers, await streams[0].readexactly(int(headers["content-length"]))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await test()

    asyncio.run(bounded())


def test_every_connection_ends_after_an_answer_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "IDLE_S", 6.0)

    async def test() -> None:
        async with serving() as (server, port, task):
            used, idle, polling, streaming = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            for each in (used, idle):
                await ask(each, "/ok")
                assert "connection" not in (await answer(each))[1]
            await ask(polling, "/poll")
            await ask(streaming, "/stream")
            assert (await read_head(streaming[0]))[0] == 200
            assert b"data: x" in await streaming[0].readuntil(b"\n\n")
            await until(lambda: len(server._app.parking) == 2)

            server.retire()
            # Who waits is answered at once, and told that the connection ends.
            status, headers, body = await answer(polling)
            assert (status, headers["connection"], body) == (200, "close", b"nothing")
            assert await polling[0].read() == b""
            # A stream ends as streams end, and its connection takes one more request.
            assert (await streaming[0].readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
            for each in (streaming, used):
                await asyncio.sleep(0.3)
                await ask(each, "/ok")
                status, headers, body = await answer(each)
                assert (status, headers["connection"], body) == (200, "close", b"ok")
                assert await each[0].read() == b""
            # Who would wait is answered, too; who says nothing is left alone for a while.
            assert not idle[0].at_eof()
            assert await idle[0].read() == b""
            await task
            for _, writer in (used, idle, polling, streaming):
                writer.close()

    run(test)


def test_a_retired_front_accepts_nobody_and_refuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "IDLE_S", 6.0)

    async def test() -> None:
        async with serving() as (server, port, task):
            before = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: server.server_state.connections)
            server.retire()
            server.retire()
            after = await asyncio.open_connection("127.0.0.1", port)
            await ask(after, "/ok")  # it waits in the socket, for another front
            await ask(before, "/poll")
            assert (await answer(before))[1]["connection"] == "close"
            await task
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(after[0].read(1), 0.2)
            for _, writer in (before, after):
                writer.close()

    run(test)
