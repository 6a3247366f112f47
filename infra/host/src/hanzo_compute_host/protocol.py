"""HTTP/1.1 on one connection: uvicorn's parser and framing, with bounds on what it would take without one.

Bounded are the number of connections, the time and size of a request's head, what is pipelined behind a request that
is being answered, and the time that a client leaves an answer unread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hanzo_compute.errors import ComputeError
from hanzo_compute.model.bounds import KIB
from hanzo_compute_host import problems
from hanzo_compute_host.limits import SMALL, Load, overloaded

if TYPE_CHECKING:
    from hanzo_compute_host.http import App

HEAD_BUFFER_MAX: Final = 64 * KIB
"""Bytes of an unfinished head, of trailers or chunk extensions, after which the connection is closed."""
PIPELINED_MAX: Final = 16
"""Requests that may wait on a connection behind the one that is being answered."""
TURNED_AWAY_MAX: Final = 64
"""Connections over the bound that are told so at a time; any further ones are cut off."""
FAREWELL_S: Final = 1.0
"""A connection that is turned away is read and dropped for this long, so that its client sees why."""


class Refused(Exception):
    """Ends the parser's work on a connection."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    _load: Load
    _active: RequestResponseCycle | None = None
    """The request that is being answered; ``cycle`` is the newest one."""
    _deaf = False
    """What comes is dropped: the connection closes once what was asked before is answered."""
    _unfinished = 0
    """Bytes since the parser last got somewhere."""
    _in_head = False
    _in_body = False
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _unread = 0
    _quiet_ticks = 0
    """Since its server began to retire, without a request."""

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._load = cast("App", config.app).load

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        super().connection_made(transport)
        most, limits = self._load.limits.connections, self._load.limits
        if len(self.connections) <= most:
            self._head_timer = self.loop.call_later(limits.head_s, self._head_is_late)
            return
        self._deaf = True
        if len(self.connections) > most + TURNED_AWAY_MAX:
            transport.abort()
            return
        transport.write(problems.raw(overloaded("it has as many connections as it can have")))
        transport.write_eof()
        self._head_timer = self.loop.call_later(FAREWELL_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended: so has every request on it, not only the newest."""
        super().connection_lost(exc)
        self._stop_head_timer()
        self._stop_unread_timer()
        for cycle in (self._active, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()

    # What comes

    def data_received(self, data: bytes) -> None:
        """Feed the parser; it calls back for whatever is complete."""
        if not self._deaf:
            self._unfinished += len(data)
            super().data_received(data)
            self._watch_head()

    def _watch_head(self) -> None:
        if self._deaf or self.transport.is_closing():
            return
        if self._unfinished > HEAD_BUFFER_MAX:
            self._break_off(problems.head_too_large())
        elif self._head_timer is None and not self._in_body and (self._in_head or self._unfinished):
            self._head_timer = self.loop.call_later(self._load.limits.head_s, self._head_is_late)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; or a trailer, which must not pass for a header that was checked."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has arrived."""
        self._unfinished = 0
        self._in_head, self._in_body = False, True
        self._stop_head_timer()
        if len(self.pipeline) >= PIPELINED_MAX:
            raise Refused
        super().on_headers_complete()
        if getattr(self.server_state, "retiring", False):
            self.cycle.keep_alive = False
        if self.parser.should_upgrade():
            # Nothing else is spoken here, and the parser takes all that follows for the other protocol's.
            self.cycle.keep_alive = False
            self._deaf = True

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        self._unfinished = 0
        super().on_body(body)
        if self.cycle is not self._active and len(self.cycle.body) > SMALL:
            raise Refused

    def on_message_complete(self) -> None:
        """All of the request has arrived."""
        self._unfinished = 0
        self._in_body = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed, or is too much at once, ends the connection."""
        self._break_off(problems.bad_http())

    def _unsupported_upgrade_warning(self) -> None:
        """It is answered as if it had not asked: nothing to warn of."""

    def _break_off(self, error: ComputeError) -> None:
        """Take no more; answer what was asked before, then close: with the reason, if it has nobody else's answer."""
        self._deaf = True
        last: RequestResponseCycle | None = self.cycle
        if last is not None and not last.response_complete and last.more_body:
            if last is self._active:
                self._say(error if not last.response_started else None)
                return
            self.pipeline.popleft()
            last = self.pipeline[0][0] if self.pipeline else self._active
        if last is None or last.response_complete:
            self._say(error)
        else:
            last.keep_alive = False

    def _say(self, error: ComputeError | None) -> None:
        if error is not None:
            self.transport.write(problems.raw(error))
        self.transport.close()

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if self._active is not None and not self._active.response_complete:
            # It is pipelined: its time begins when it could be answered.
            self._head_timer = self.loop.call_later(self._load.limits.head_s, self._head_is_late)
        else:
            self._say(problems.head_is_late() if self._in_head or self._unfinished else None)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def retire(self, quiet_ticks: int) -> None:
        """Called now and then: end with the next answer, which says so; or after as many calls without a request."""
        cycle: RequestResponseCycle | None = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if cycle is not None and not cycle.response_started:
            cycle.keep_alive = False
        self._quiet_ticks = 0 if answering else self._quiet_ticks + 1
        if self._quiet_ticks > quiet_ticks:
            self.transport.close()

    # What goes

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        self._load.turns += 1  # the app takes it back in its first step
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """A request has been answered."""
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing has come for a while after an answer."""
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def pause_writing(self) -> None:
        """The client is slow to read."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        self._stop_unread_timer()

    def _watch_reader(self) -> None:
        self._stop_unread_timer()
        self._unread = self.transport.get_write_buffer_size()
        self._unread_timer = self.loop.call_later(self._load.limits.unread_s, self._is_unread)

    def _is_unread(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread:
            self._watch_reader()
        else:
            self.transport.abort()

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
