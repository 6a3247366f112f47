"""The HTTP API of the single machine: ASGI requests to handlers, and their answers when they are durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from hanzo_compute.errors import ComputeError, Unavailable
from hanzo_compute.front.api import rendered
from hanzo_compute.front.calls import CALL, Call, calls
from hanzo_compute.front.streams import EVENT_STREAM
from hanzo_compute.model.bounds import BODY_MAX, WAIT_S_MAX
from hanzo_compute.ports import BlobStore, Clock, Commits, Ids
from hanzo_compute.ports.sandboxes import GuestCall, GuestResult, Guests
from hanzo_compute_host import problems
from hanzo_compute_host.blobs import PREFIX, BlobFiles, BlobGate
from hanzo_compute_host.calling import Outflow, Ticketed
from hanzo_compute_host.events import Answer, BadAnswer, from_request, to_answer
from hanzo_compute_host.exchange import Disconnected, Exchange, Receive, Scope, Send
from hanzo_compute_host.functions import Functions
from hanzo_compute_host.limits import Limits, Load
from hanzo_compute_host.manifest import Manifest
from hanzo_compute_host.park import Journal, Park, Parking
from hanzo_compute_host.routes import Routes

log = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 15.0
"""An event stream that says nothing for this long gets a comment, and its handler is asked again."""
VITAL_SHARE: Final = 2
"""What running work needs (agents' calls) is refused only when so many times as many requests wait."""
FLUSH_S: Final = 0.1
"""What calls of functions have left to be written is looked at this often."""
FLUSH: Final = "hzc.flush"
AGAIN: Final = "hzc-again"
"""Header of an answer that is none: the call is run again."""
STOPPED_CALLS_S: Final = 3.0
"""Calls of functions that run when the platform stops have this long to end."""
DURABLE_S: Final = 30.0
"""An answer whose writes are not durable after this time becomes a 503: they may or may not stay."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """One call of a handler: what it said, when that may be said on, and where to wait if it was nothing."""

    answer: Answer
    durable: asyncio.Future[None] | None
    park: Park

    @property
    def waits(self) -> bool:
        return "hzc-wake" in self.answer.host


class App:
    """The ASGI application.

    ``admit`` raises for an ``Authorization`` header that is nobody's: it is asked before a large body is read.
    """

    def __init__(  # noqa: PLR0913 — what an application is made of
        self,
        manifest: Manifest,
        functions: Functions,
        *,
        commits: Commits | None,
        blobs: BlobStore,
        clock: Clock,
        ids: Ids,
        admit: Callable[[str | None], object],
        limits: Limits | None = None,
        guests: Guests | None = None,
    ) -> None:
        self.load = Load(limits or Limits())
        self.parking = Parking()
        self._manifest = manifest
        self._routes = Routes(manifest.routes)
        self._functions = functions
        self._journal = Journal(commits, self.parking)
        self._blobs = BlobGate(blobs, clock) if isinstance(blobs, BlobFiles) else None
        self._clock = clock
        self._ids = ids
        self._guests = guests
        self._noted: str | None = None
        calls.deferred = guests is not None
        self._stopping = False
        self._running: set[asyncio.Task[GuestResult]] = set()
        self._admit = admit

    def stop(self) -> None:
        """Answer whoever waits, and from now on only what running work needs (``while_stopping``).

        Calls of functions that do not end soon are given up: who waits for one is told.
        """
        if not self._stopping and self._running:
            asyncio.get_running_loop().call_later(STOPPED_CALLS_S, self._end_calls)
        self._stopping = True
        self.parking.close()

    def _end_calls(self) -> None:
        for task in self._running:
            task.cancel()

    def retire(self) -> None:
        """Answer whoever waits: they come back, to another process. All else goes on as before."""
        self.parking.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the server's start and end."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            self.load.turns -= 1  # the protocol has counted it while it waited for its first step
            request_id = self._ids.new("r", self._clock.now_ms())
            exchange = Exchange(scope, receive, send, request_id, self.load)
            try:
                await self._serve(exchange)
            finally:
                exchange.close()

    async def _flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._flush()

    async def _flush(self) -> None:
        """Let the function of calls write what calls have left."""
        name, self._noted = self._noted, None
        if name is None:
            return
        try:
            done = self._functions.call(name, {"source": FLUSH}, self._ids.new("r", self._clock.now_ms()))
            if done["waits"]:
                self._noted = name
            await self._durable(self._journal.take())
        except ComputeError as error:
            self._noted = name
            self._journal.take()
            log.warning("what functions have logged is not written: %s", error.message)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        flusher = asyncio.create_task(self._flushing())
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._journal.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await _end(flusher)
                if self._guests is not None:
                    await self._guests.close()
                await self._flush()
                self._journal.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, exchange: Exchange) -> None:
        try:
            exchange.check_head()
            if self._blobs is not None and exchange.raw_path.startswith(PREFIX):
                await self._blobs.serve(exchange)
            else:
                await self._function(exchange)
        except Disconnected:
            return
        except ComputeError as error:
            await self._refuse(exchange, error)
        except Exception:
            log.exception("request %s failed", exchange.request_id)
            await self._refuse(exchange, problems.defect())

    async def _refuse(self, exchange: Exchange, error: ComputeError) -> None:
        if exchange.started:
            # Too late for a status: the client sees that the response is cut short.
            raise error
        with suppress(Disconnected):
            await exchange.discard()
            await exchange.respond(problems.answer(error, exchange.request_id))

    async def _function(self, exchange: Exchange) -> None:
        match = self._routes.match(exchange.method, exchange.raw_path)
        if match is None:
            allowed = self._routes.methods(exchange.raw_path)
            raise problems.no_route(exchange.method, exchange.scope["path"], allowed)
        name = match.route.function
        vital = self._manifest.functions[name].while_stopping
        if self._stopping and not vital:
            raise Unavailable("the platform is stopping", hint="start it again with: hzc up")
        self.load.check_turn(VITAL_SHARE if vital else 1)
        body = await exchange.body(BODY_MAX, lambda: self._admitted(exchange))
        event = from_request(exchange.scope, body, match, request_id=exchange.request_id, now_ms=self._clock.now_ms())
        turn = self._turn(name, event, exchange)
        if CALL in turn.answer.host:
            await self._called(exchange, name, event, turn)
        elif "hzc-stream" in turn.answer.host:
            await self._stream(exchange, name, event, turn)
        else:
            await exchange.respond(await self._settled(exchange, name, event, turn))

    def _admitted(self, exchange: Exchange) -> None:
        try:
            self._admit(exchange.header(b"authorization"))
        finally:
            self._journal.take()  # what the look-up read is no handler's

    async def _called(self, exchange: Exchange, name: str, event: Mapping[str, Any], turn: _Turn) -> None:
        """Run the call that a handler has left, and answer; or end the stream of what it has written."""
        call = calls.take(turn.answer.host[CALL])
        flow = None
        if call.live:
            head = to_answer({"statusCode": 200, "headers": {"Content-Type": EVENT_STREAM, **call.head}})
            flow = Outflow(exchange, head, self.load.answers)
        try:
            answer = await self._settled(exchange, name, event, await self._run(exchange, name, turn, call, flow))
            if flow is not None and flow.sent is not None:
                await flow.end(answer.body, call.failed)
            else:
                await exchange.respond(answer)
        except ComputeError as error:
            if flow is None or not await flow.stop():
                raise
            call.committed = None if call.committed else call.committed
            await flow.end(call.failed(error), call.failed)
        finally:
            if flow is not None:
                flow.close()

    async def _run(self, exchange: Exchange, name: str, turn: _Turn, call: Call, flow: Outflow | None) -> _Turn:
        """Run a call to its end, again if it has to be, and let its handler answer."""
        try:
            with turn.park:
                await self._durable(turn.durable)
                while True:
                    service = call.guest.service
                    ticketed = None if service is None else Ticketed(service, self._journal, flow)
                    guest = replace(call.guest, service=ticketed)
                    if flow is not None:
                        flow.durable = partial(self._all_durable, ticketed)
                        guest = replace(guest, heard=flow.heard)
                    result = await self._guest(guest)
                    await self._all_durable(ticketed)
                    step = partial(_answered, call, result, None if flow is None else flow.sent)
                    self._noted = name  # there will be something to write: not before the call has ended
                    turn = self._taken(name, exchange, step, go_on=True)
                    if AGAIN not in turn.answer.host:
                        return turn
                    turn.park.close()
        finally:
            call.close()
            self._noted = name  # also if it was not run to its end: what it had used may be left to bill

    async def _all_durable(self, ticketed: Ticketed | None) -> None:
        for durable in [] if ticketed is None else ticketed.futures:
            # Two may wait for it: what one gives up must stay for the other.
            await self._durable(asyncio.shield(durable))

    async def _guest(self, call: GuestCall) -> GuestResult:
        if self._guests is None:
            raise Unavailable("this front runs no functions", hint="report it")
        task = asyncio.ensure_future(self._guests.call(call))
        self._running.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                task.cancel()
                raise
            raise Unavailable("the platform is stopping", hint="repeat the call") from None
        finally:
            self._running.discard(task)

    def _turn(self, name: str, event: Mapping[str, Any], exchange: Exchange) -> _Turn:
        """Call the handler, park, take the ticket: in one step, so that no wake falls in between."""
        return self._taken(name, exchange, event)

    def _taken(self, name: str, exchange: Exchange, given: Any, *, go_on: bool = False) -> _Turn:
        call = self._functions.go_on if go_on else self._functions.call
        try:
            answer = to_answer(call(name, given, exchange.request_id))
        except BadAnswer as error:
            log.error("%s answered request %s wrongly: %s", name, exchange.request_id, error)
            self._journal.take()
            raise problems.defect() from None
        except ComputeError:
            # What a failed handler wrote belongs to no answer, and must not delay the next one's.
            self._journal.take()
            raise
        partitions = [each.strip() for each in answer.host.get("hzc-wake", "").split(",") if each.strip()]
        park = self.parking.park(partitions)
        try:
            return _Turn(answer, self._journal.take(), park)
        except ComputeError:
            park.close()
            if CALL in answer.host:
                calls.take(answer.host[CALL]).close()
            raise

    async def _durable(self, future: asyncio.Future[None] | None) -> None:
        if future is None:
            return
        try:
            with self.load.waiting():
                await asyncio.wait_for(future, DURABLE_S)
        except TimeoutError:
            hint = "ask for its state before you repeat it"
            raise Unavailable("the write is not durable yet", hint=hint) from None

    async def _settled(self, exchange: Exchange, name: str, event: Mapping[str, Any], turn: _Turn) -> Answer:
        """The answer that goes out, after as many turns as it takes."""
        loop = asyncio.get_running_loop()
        gone: asyncio.Task[None] | None = None
        deadline: float | None = None
        last = False
        try:
            while True:
                with turn.park:
                    await self._durable(turn.durable)
                    wait_s = _seconds(turn.answer.host.get("hzc-wait"))
                    if last or not turn.waits or wait_s <= 0:
                        return turn.answer
                    deadline = deadline or loop.time() + wait_s
                    gone = gone or asyncio.create_task(exchange.disconnected())
                    last = not await turn.park.wait(deadline - loop.time(), gone)
                if gone.done():
                    raise Disconnected
                if self.parking.closed:
                    return turn.answer
                turn = self._turn(name, event, exchange)
        finally:
            if gone is not None:
                await _end(gone)

    async def _stream(self, exchange: Exchange, name: str, event: dict[str, Any], turn: _Turn) -> None:
        """An event stream: what there is, then more as it comes, until the handler says that it is over."""
        loop = asyncio.get_running_loop()
        gone: asyncio.Task[None] | None = None
        written = loop.time()
        try:
            while True:
                with turn.park:
                    await self._durable(turn.durable)
                    if not exchange.started:
                        await exchange.start(turn.answer)
                    body = turn.answer.body
                    if not body and loop.time() - written >= KEEP_ALIVE_S:
                        body = b": waiting\n\n"
                    if body:
                        with exchange.holding(len(body)):
                            await exchange.write(body)
                        written = loop.time()
                    cursor = turn.answer.host.get("hzc-stream")
                    if cursor is None or self.parking.closed:
                        break
                    gone = gone or asyncio.create_task(exchange.disconnected())
                    await turn.park.wait(_quiet_s(turn.answer.host), gone)
                if gone.done():
                    return
                event = {**event, "headers": {**event["headers"], "last-event-id": cursor}}
                turn = self._turn(name, event, exchange)
                if turn.answer.status != 200:
                    turn.park.close()
                    break
        except ComputeError as error:
            if not exchange.started:
                raise
            # The client comes back with the last id that it saw.
            log.warning("stream of request %s ends early: %s", exchange.request_id, error.message)
        finally:
            if gone is not None:
                await _end(gone)
        await exchange.write(b"", more=False)


def _answered(call: Call, result: GuestResult, sent: int | None) -> dict[str, Any]:
    answer = call.answer(result, sent)
    return {"statusCode": 200, "headers": {AGAIN: "1"}} if answer is None else rendered(answer)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _quiet_s(host: Mapping[str, str]) -> float:
    """How long a stream may stay quiet before its handler is asked again; 0 when it has more to say at once."""
    if "hzc-wake" not in host:
        return 0.0
    return min(KEEP_ALIVE_S, _seconds(host["hzc-wait"])) if "hzc-wait" in host else KEEP_ALIVE_S


def _seconds(text: str | None) -> float:
    try:
        return min(max(float(text or 0), 0.0), float(WAIT_S_MAX))
    except ValueError:
        return 0.0
