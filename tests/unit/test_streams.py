"""Event streams of calls: what is told of pieces and of the end, and when a call may be heard at all."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hanzo_compute.adapters.http import FunctionsClient, sse
from hanzo_compute.errors import FunctionFailed, FunctionTimedOut, Unavailable
from hanzo_compute.front import streams
from hanzo_compute.front.calls import Call
from hanzo_compute.model import bounds
from hanzo_compute.model.function import FunctionSpec
from hanzo_compute.ports.sandboxes import GuestResult
from hanzo_compute.services import functions
from hanzo_compute.services import invoke as invoking
from hanzo_compute.services.invoke import Pending
from tests.support.stepped import Platform


def told(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    return [(each.event, json.loads(each.data)) for each in sse.events([data])]


def begun(platform: Platform, *, streamed: bool = True, **fields: Any) -> Pending:
    spec = FunctionSpec.model_validate({"source": {"code": "1", "language": "python"}} | fields)
    functions.deploy(platform.ctx, "acme", "f", spec)
    return invoking.begin(platform.ctx, "acme", "f", None, b"", streamed=streamed)


def rendered(pending: Pending, result: GuestResult, sent: int | None = None) -> tuple[int, str, Any]:
    answer = Call(pending, lambda _: pytest.fail("rendered as bytes"), "r-1").answer(result, sent)
    assert answer is not None
    assert isinstance(answer.body, str)
    body = told(answer.body.encode()) if answer.content_type == streams.EVENT_STREAM else json.loads(answer.body)
    return answer.status_code, str(answer.content_type), body


@pytest.mark.parametrize("data", [b"a\nb\r\n\r\n\xe2\x80\xa8data: x\n\nevent: end\n", "é€😀".encode(), b"\0" * 9])
def test_text_is_text_whatever_it_holds(data: bytes) -> None:
    assert told(streams.piece(None, data)) == [("output", {"text": data.decode()})]
    assert told(streams.piece("rows", data)) == [("output", {"name": "rows", "text": data.decode()})]


@pytest.mark.parametrize("data", [b"\xff", "é".encode()[:1], b"\xed\xa0\x80", b"\1" * 1000])
def test_what_is_no_text_or_would_be_too_long_is_base64(data: bytes) -> None:
    ((_, found),) = told(streams.piece(None, data))
    assert base64.b64decode(found["base64"]) == data


def test_pieces_are_bounded_and_whole() -> None:
    data = bytes(range(256)) * 1000
    found = told(streams.pieces(data))
    assert b"".join(base64.b64decode(each["base64"]) for _, each in found) == data
    assert len(found) == -(-len(data) // streams.PIECE)
    assert streams.pieces(b"") == b""
    assert len(streams.pieces(b"\1" * bounds.RESPONSE_MAX)) < 6_000_000, "a Lambda's answer has 6 MB"


def test_a_call_as_one_answer() -> None:
    pending = begun(Platform())
    status, media, ((kind, output), (last, end)) = rendered(pending, GuestResult("ok", b"out", wall_us=7, fuel=3))
    assert (status, media, kind, output, last) == (200, "text/event-stream", "output", {"text": "out"}, "end")
    assert (end["status"], end["committed"], end["function"], end["invocation"]) == (200, True, "f@1", pending.id)
    assert end["usage"] == {"wall_us": 7, "cpu_ms": 0, "memory_peak_bytes": 0, "fuel": 3}


def test_the_rest_of_a_call_that_was_heard() -> None:
    _, _, found = rendered(begun(Platform()), GuestResult("ok", b"one two"), 4)
    assert found[0] == ("output", {"text": "two"})
    _, _, found = rendered(begun(Platform()), GuestResult("ok", b"one two"), 7)
    assert [kind for kind, _ in found] == ["end"]


def test_a_failure_is_a_problem_until_something_was_sent() -> None:
    result = GuestResult("exit", b"half", b"ValueError: no\n", exit_code=1)
    status, media, body = rendered(begun(Platform()), result)
    assert (status, media, body["code"]) == (502, "application/problem+json", "function_failed")
    status, media, ((kind, end),) = rendered(begun(Platform()), result, 4)
    assert (status, kind, end["status"], end["committed"]) == (200, "end", 502, False)
    assert (end["error"]["code"], end["error"]["exit_code"], end["error"]["request_id"]) == (
        "function_failed",
        1,
        "r-1",
    )


def test_more_than_a_call_may_answer_is_a_failure() -> None:
    _, _, ((_, end),) = rendered(begun(Platform()), GuestResult("ok", b"x" * 9, limits=("stdout",)), 9)
    assert (end["status"], end["committed"]) == (502, False)


def test_a_streamed_call_becomes_no_job() -> None:
    """What was heard would be heard again."""
    for streamed in (False, True):
        platform = Platform()
        pending = begun(platform, streamed=streamed, resources={"timeout_s": 600})
        if streamed:
            with pytest.raises(FunctionTimedOut):
                pending.finish(GuestResult("timeout", b"half"))
        else:
            answered = pending.finish(GuestResult("timeout", b"half"))
            assert answered is not None
            assert answered.job is not None


@pytest.mark.parametrize(
    ("streamed", "capabilities", "live"),
    [
        (False, {}, False),
        (True, {}, True),
        (True, {"outputs": True, "input": True, "secrets": ["a"]}, True),
        (True, {"kv": True}, False),
    ],
)
def test_a_call_that_may_run_again_is_not_heard(streamed: bool, capabilities: dict[str, Any], live: bool) -> None:
    assert begun(Platform(), streamed=streamed, capabilities=capabilities).live is live


class Wire:
    """A client whose answers are given."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    @contextmanager
    def stream(self, path: str, **_: Any) -> Iterator[None]:
        yield None

    def pieces(self, response: None) -> Iterator[bytes]:
        yield from self._pieces


def heard(*pieces: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    return FunctionsClient(Wire(*pieces)).stream("f", None, b"")  # type: ignore[arg-type]


def test_a_client_hears_all_and_then_the_failure() -> None:
    end = Call(begun(Platform()), lambda _: pytest.fail("rendered"), "r-1").failed(FunctionFailed("no", exit_code=3))
    events = heard(streams.piece(None, b"one") + end[:20], end[20:])
    assert next(events) == ("output", {"text": "one"})
    kind, told_last = next(events)
    assert (kind, told_last["committed"]) == ("end", False)
    with pytest.raises(FunctionFailed, match="no") as failed:
        next(events)
    assert failed.value.data["exit_code"] == 3


def test_a_client_is_told_of_a_stream_without_an_end() -> None:
    events = heard(streams.piece(None, b"one"))
    assert next(events)[0] == "output"
    with pytest.raises(Unavailable, match="cut"):
        next(events)


def test_the_reason_is_what_the_function_said_last_not_what_was_logged_of_it() -> None:
    pending = begun(Platform(), capabilities={"secrets": ["a"]})
    assert pending.call.service is not None
    pending.call.service.ask("secret", [b"b"])
    with pytest.raises(FunctionFailed, match=r"ValueError: no$"):
        pending.finish(GuestResult("exit", b"", b"Traceback\nValueError: no\n", exit_code=1))
