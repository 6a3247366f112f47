"""Calls whose output goes out while they run: the host with real sockets, and guests that do what the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from hanzo_compute.adapters.http import sse
from hanzo_compute.errors import Conflict, FunctionFailed, Unavailable
from hanzo_compute.front.api import rendered
from hanzo_compute.front.calls import Call, calls
from hanzo_compute.ports.sandboxes import GuestCall, GuestProgram, GuestResult
from hanzo_compute_host.limits import Limits
from tests.support.host import FakeCommits, Host, read_head, serving, until

PROGRAM = GuestProgram("t/f@1", "command", "fast", bytes, "")


@dataclass
class Guests:
    """Runs one call: until the test says how it ends."""

    running: GuestCall | None = None
    calls: int = 0
    end: asyncio.Future[GuestResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def call(self, call: GuestCall) -> GuestResult:
        self.running = call
        self.calls += 1
        return await asyncio.shield(self.end)

    async def close(self) -> None:
        pass

    def say(self, data: bytes) -> None:
        assert self.running is not None
        assert self.running.heard is not None
        self.running.heard(data)


@dataclass
class Service:
    """Host calls that write."""

    commits: FakeCommits

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        if name == "secret":
            self.commits.write()
        return (-3 if args and args[0] == b"!" else 1), b""


@dataclass
class Pending:
    """A call as the service has let it begin."""

    call: GuestCall
    live: bool = True
    streamed: bool = True
    id: str = "i-1"
    version: Any = field(default_factory=lambda: SimpleNamespace(reference="f@1"))
    refuses: Exception | None = None
    commits: FakeCommits | None = None
    again: int = 0
    closed: int = 0

    def whole(self, result: GuestResult) -> GuestResult:
        return result

    def finish(self, result: GuestResult) -> Any:
        if self.again:
            self.again -= 1
            return None
        if self.commits is not None:
            self.commits.write()
        if self.refuses is not None:
            raise self.refuses
        return SimpleNamespace(id=self.id, reference="f@1", result=result, job=None, outputs={})

    def close(self) -> None:
        self.closed += 1


@dataclass
class Scene:
    """A host, a call that runs in it, and who hears it."""

    host: Host
    guests: Guests
    pending: Pending
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def event(self) -> sse.Event:
        """The next event."""
        while True:
            text = await self.reader.readuntil(b"\n\n")
            found = list(sse.events([text[text.index(b"event: ") :]]))
            if found:
                return found[0]

    async def ending(self) -> dict[str, Any]:
        """The last event; nothing comes behind it."""
        rest = await self.reader.read()
        assert rest.endswith(b"\r\n0\r\n\r\n"), "the response is cut short"
        events = [each for each in sse.events([rest]) if each.event == "end"]
        assert len(events) == 1
        found: dict[str, Any] = json.loads(events[0].data)
        return found


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "deferred", False)
    monkeypatch.setattr(calls, "_waiting", {})


@asynccontextmanager
async def scene(limits: Limits | None = None, **fields: Any) -> AsyncIterator[Scene]:
    guests, commits = Guests(), FakeCommits()
    pending = Pending(GuestCall(PROGRAM, "t", b"", 20.0, Service(commits)), **fields)

    def handler(event: Any, context: Any) -> Any:
        if event.get("source"):
            return {"waits": False}
        return rendered(calls.run(pending, lambda _: None, "r-1"))  # type: ignore[arg-type, return-value]

    async with serving({"call": handler}, guests=guests, commits=commits, limits=limits) as host, asyncio.timeout(120):
        reader, writer = await host.client.open("POST", "/call")
        await until(lambda: guests.running is not None)
        try:
            yield Scene(host, guests, pending, reader, writer)
        finally:
            writer.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def joined(chunks: bytes) -> bytes:
    """The body that came in chunks."""
    body, at = bytearray(), 0
    while size := int(chunks[at : (end := chunks.index(b"\r\n", at))], 16):
        body += chunks[end + 2 : end + 2 + size]
        at = end + 4 + size
    assert chunks[at:] == b"0\r\n\r\n"
    return bytes(body)


def test_pieces_go_out_as_they_come_and_the_end_is_told_once() -> None:
    async def test() -> None:
        async with scene() as at:
            at.guests.say(b"one")
            status, headers = await read_head(at.reader)
            assert (status, headers["content-type"], headers["x-invocation"]) == (200, "text/event-stream", "i-1")
            assert json.loads((await at.event()).data) == {"text": "one"}
            at.guests.say(b"\xff")
            assert json.loads((await at.event()).data) == {"base64": "/w=="}
            assert at.pending.closed == 0
            at.guests.end.set_result(GuestResult("ok", b"one\xff"))
            end = await at.ending()
            assert (end["status"], end["committed"], end["function"]) == (200, True, "f@1")
            assert at.pending.closed == 1
            assert at.host.app.load.answers.held == 0

    run(test)


def test_what_no_piece_has_told_comes_with_the_end() -> None:
    async def test() -> None:
        async with scene() as at:  # as of a reactor
            at.guests.end.set_result(GuestResult("ok", b"all"))
            assert (await read_head(at.reader))[0] == 200
            assert json.loads((await at.event()).data) == {"text": "all"}
            last = await at.event()
            assert (last.event, json.loads(last.data)["committed"]) == ("end", True)
            assert await at.reader.read() == b""

    run(test)


def test_a_failure_before_anything_was_sent_has_its_status() -> None:
    async def test() -> None:
        async with scene(refuses=FunctionFailed("no")) as at:
            at.guests.end.set_result(GuestResult("exit", b""))
            reply = await at.host.client.reply(at.reader)
            assert (reply.status, reply.headers["content-type"]) == (502, "application/problem+json")

    run(test)


@pytest.mark.parametrize(
    ("error", "status", "committed"),
    [(FunctionFailed("no"), 502, False), (Conflict("no"), 409, False), (ValueError("a defect"), 500, None)],
)
def test_a_failure_after_that_is_told_by_the_end(error: Exception, status: int, committed: bool | None) -> None:
    async def test() -> None:
        async with scene(refuses=error) as at:
            at.guests.say(b"one")
            await read_head(at.reader)
            at.guests.end.set_result(GuestResult("exit", b"one"))
            end = await at.ending()
            assert (end["status"], end["committed"], end["error"]["status"]) == (status, committed, status)

    run(test)


@pytest.mark.parametrize("error", [Unavailable("the sandbox is gone"), RuntimeError("a defect")])
def test_a_sandbox_that_fails(error: Exception) -> None:
    async def test() -> None:
        async with scene() as at:
            at.guests.say(b"one")
            await read_head(at.reader)
            at.guests.end.set_exception(error)
            if isinstance(error, Unavailable):
                end = await at.ending()
                assert (end["status"], end["committed"], end["error"]["code"]) == (503, False, "unavailable")
            else:  # the client sees that it is cut
                assert not (await at.reader.read()).endswith(b"0\r\n\r\n")
            assert at.pending.closed == 1

    run(test)


@pytest.mark.parametrize("lost", [False, True])
def test_success_is_told_when_it_is_durable(lost: bool) -> None:
    async def test() -> None:
        commits = FakeCommits()
        async with scene() as at:
            at.pending.commits = at.host.commits
            at.guests.say(b"one")
            await read_head(at.reader)
            assert (await at.event()).event == "output"
            at.guests.end.set_result(GuestResult("ok", b"one"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(at.event(), 0.05)
            at.host.commits.fail() if lost else at.host.commits.commit()
            end = await at.ending()
            assert (end["status"], end["committed"]) == ((503, None) if lost else (200, True))
        commits.close()

    run(test)


@pytest.mark.parametrize("lost", [False, True])
def test_output_does_not_run_ahead_of_what_the_call_has_written(lost: bool) -> None:
    """A secret's record above all: what it says has happened must not be known before it is."""

    async def test() -> None:
        async with scene() as at:
            service = at.guests.running and at.guests.running.service
            assert service is not None
            service.ask("secret", [b"S"])
            at.guests.say(b"the secret")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(at.reader.read(1), 0.05)
            at.host.commits.fail() if lost else at.host.commits.commit()
            at.guests.end.set_result(GuestResult("ok", b"the secret"))
            if not lost:
                assert (await read_head(at.reader))[0] == 200
                assert json.loads((await at.event()).data) == {"text": "the secret"}
                assert (await at.ending())["status"] == 200
                return
            reply = await at.host.client.reply(at.reader)
            assert (reply.status, reply.json()["code"]) == (503, "unavailable")
            assert b"the secret" not in reply.body

    run(test)


def test_named_outputs_are_pieces_too_if_they_were_taken() -> None:
    async def test() -> None:
        async with scene() as at:
            service = at.guests.running and at.guests.running.service
            assert service is not None
            service.ask("output", [b"rows", b"1"])
            service.ask("output", [b"!", b"2"])
            await read_head(at.reader)
            assert json.loads((await at.event()).data) == {"name": "rows", "text": "1"}
            at.guests.end.set_result(GuestResult("ok", b"all"))
            assert json.loads((await at.event()).data) == {"text": "all"}
            assert (await at.ending())["status"] == 200

    run(test)


def test_who_goes_away_does_not_end_the_call() -> None:
    async def test() -> None:
        async with scene() as at:
            at.guests.say(b"one")
            await read_head(at.reader)
            at.writer.close()
            await at.writer.wait_closed()
            for _ in range(50):
                at.guests.say(b"x" * 60_000)
                await asyncio.sleep(0)
            at.guests.end.set_result(GuestResult("ok", b"one" + b"x" * 3_000_000))
            await until(lambda: at.pending.closed)
            await until(lambda: at.host.app.load.answers.held == 0)
            assert at.guests.calls == 1

    run(test)


def test_who_reads_slowly_holds_up_nothing_but_itself() -> None:
    async def test() -> None:
        async with scene() as at:
            data = b"y" * (32 << 20)  # more than sockets hold
            for n in range(512):
                at.guests.say(data[n << 16 : (n + 1) << 16])
            await until(lambda: at.host.app.load.answers.held)
            at.guests.end.set_result(GuestResult("ok", data))
            await until(lambda: at.pending.closed)  # though much of it has not been read
            assert at.host.app.load.answers.held > 1 << 20
            await read_head(at.reader)
            *events, last = list(sse.events([joined(await at.reader.read())]))
            assert "".join(json.loads(each.data)["text"] for each in events).encode() == data
            assert (last.event, json.loads(last.data)["status"]) == ("end", 200)
            assert at.host.app.load.answers.held == 0

    run(test)


def test_more_than_all_clients_may_leave_unread_ends_the_stream_honestly() -> None:
    async def test() -> None:
        async with scene(Limits(answers=100_000)) as at:
            for n in range(4):
                at.guests.say(b"%d" % n * 40_000)
            at.guests.end.set_result(GuestResult("ok", b"".join(b"%d" % n * 40_000 for n in range(4))))
            reply = await at.reader.read()
            (end,) = [json.loads(each.data) for each in sse.events([reply]) if each.event == "end"]
            assert (end["status"], end["error"]["code"], end["committed"]) == (503, "unavailable", True)
            assert at.host.app.load.answers.held == 0

    run(test)


def test_a_stop_of_the_platform_ends_it_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanzo_compute_host.http.STOPPED_CALLS_S", 0.05)

    async def test() -> None:
        async with scene() as at:
            at.guests.say(b"one")
            await read_head(at.reader)
            at.host.app.stop()
            end = await at.ending()
            assert (end["status"], end["committed"]) == (503, False)
            assert "stopping" in end["error"]["detail"]

    run(test)


def test_a_call_that_may_run_again_says_nothing_before_it_is_over() -> None:
    async def test() -> None:
        async with scene(live=False, again=2) as at:
            assert at.guests.running is not None
            assert at.guests.running.heard is None
            at.guests.end.set_result(GuestResult("ok", b"once"))
            reply = await at.reader.read()
            assert [each.event for each in sse.events([reply])][-2:] == ["output", "end"]
            assert (reply.count(b"once"), at.guests.calls) == (1, 3)

    run(test)


def test_a_call_knows_whether_it_is_committed() -> None:
    pending = Pending(GuestCall(PROGRAM, "t", b"", 1.0))
    call = Call(pending, lambda _: None, "r-1")  # type: ignore[arg-type, return-value]
    assert b'"committed":false' in call.failed(Unavailable("before it has ended"))
    call.answer(GuestResult("ok"), 0)
    assert call.committed is True
    pending.refuses = ValueError("in the middle")
    with pytest.raises(ValueError, match="in the middle"):
        call.answer(GuestResult("ok"), 0)
    assert b'"committed":null' in call.failed(Unavailable("then"))
