"""Calls of functions, between the handler that lets them begin and the one that answers.

A handler never waits. On the host it leaves its call here and says so with ``hzc-call``; the host runs it, and asks
for the answer. On Lambda, where an invocation has nothing else to do, the call is run at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools.event_handler import Response

from hanzo_compute.errors import ComputeError, InternalError
from hanzo_compute.front import problems, streams
from hanzo_compute.ports.sandboxes import GuestCall, GuestResult, Guests
from hanzo_compute.services.invoke import Answered, Pending

CALL = "hzc-call"
"""Header by which a handler tells the host that its answer waits for a call."""

Render = Callable[[Answered], Response[Any]]


@dataclass(eq=False)
class Call:
    """A call that waits for the host."""

    pending: Pending
    render: Render
    request_id: str
    committed: bool | None = False
    """Whether what it did is kept; None: that is not known."""

    @property
    def guest(self) -> GuestCall:
        """What is to be run."""
        return self.pending.call

    @property
    def live(self) -> bool:
        """Whether its output may go out while it runs."""
        return self.pending.live

    @property
    def head(self) -> dict[str, str]:
        """Headers of its stream."""
        return streams.head(self.pending.version.reference, self.pending.id)

    def answer(self, result: GuestResult, sent: int | None = None) -> Response[Any] | None:
        """The answer to the request; None: the call has to be run again.

        ``sent``: its stream has begun, with so many bytes of standard output, and this is the rest of it.
        """
        self.committed = None
        used = self.pending.whole(result)
        try:
            answered = self.pending.finish(result)
            if answered is None:
                return None
            self.committed = True
            if not self.pending.streamed:
                return self.render(answered)
            rest = streams.pieces(result.output[sent or 0 :])
            last = self._end(committed=True, result=used, outputs=answered.outputs)
            return streams.response(rest + last, self.head)
        except ComputeError as error:
            self.committed = False
            if sent is None:
                return problems.response(error, self.request_id)
            last = self._end(committed=False, result=used, error=error)
            return streams.response(streams.pieces(result.output[sent:]) + last, self.head)

    def failed(self, error: ComputeError) -> bytes:
        """The end of its stream, if not it has failed but what is around it."""
        return self._end(committed=self.committed, error=error)

    def _end(self, **told: Any) -> bytes:
        pending = self.pending
        return streams.end(pending.version.reference, pending.id, request_id=self.request_id, **told)

    def close(self) -> None:
        """It is over."""
        self.pending.close()


class Calls:
    """The calls of this process."""

    def __init__(self) -> None:
        self._waiting: dict[str, Call] = {}
        self._inline: tuple[asyncio.AbstractEventLoop, Guests] | None = None
        self.deferred = False
        """Whether a host runs them."""

    def inline(self, make: Callable[[], Guests]) -> None:
        """Unless a host runs calls, run each at once, on a loop that lives as long as this process."""
        if not self.deferred and self._inline is None:
            self._inline = (asyncio.new_event_loop(), make())

    def run(self, pending: Pending, render: Render, request_id: str) -> Response[Any]:
        """The answer of a call, or what tells the host to run it."""
        call = Call(pending, render, request_id)
        if self.deferred:
            self._waiting[pending.id] = call
            return Response(status_code=202, content_type="text/plain", body="", headers={CALL: pending.id})
        try:
            if self._inline is None:
                raise InternalError("this process runs no functions")
            loop, guests = self._inline
            answer = None
            while answer is None:
                answer = call.answer(loop.run_until_complete(guests.call(call.guest)))
            return answer
        finally:
            call.close()

    def close(self) -> None:
        """End what runs calls at once."""
        if self._inline is not None:
            loop, guests = self._inline
            self._inline = None
            loop.run_until_complete(guests.close())
            loop.close()

    def take(self, call_id: str) -> Call:
        """A call that was left here, once."""
        return self._waiting.pop(call_id)


calls = Calls()
