"""Events are those of AWS: the shapes are from the documentation of API Gateway, SQS and EventBridge."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2, EventBridgeEvent, SQSEvent
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.ports import Message
from hanzo_compute_host.events import (
    Answer,
    BadAnswer,
    failures,
    from_messages,
    from_request,
    from_tick,
    to_answer,
)
from hanzo_compute_host.manifest import Route, Schedule
from hanzo_compute_host.routes import Match

NOW_MS = 1_792_674_000_123


def event_of(
    *, path: str = "/x", query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b""
) -> dict[str, Any]:
    scope = {
        "method": "POST",
        "path": path,
        "query_string": query,
        "headers": headers or [],
        "http_version": "1.1",
        "client": ("127.0.0.1", 5),
    }
    match = Match(Route("POST", "/x", "F"), {})
    return from_request(scope, body, match, request_id="r-1", now_ms=NOW_MS)


def test_what_a_plain_request_has_and_has_not() -> None:
    event = event_of(headers=[(b"host", b"here:1"), (b"user-agent", b"me")])
    assert event["version"] == "2.0"
    assert event["rawPath"] == "/x"
    assert event["requestContext"]["http"] == {
        "method": "POST",
        "path": "/x",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "me",
    }
    assert event["requestContext"]["timeEpoch"] == NOW_MS
    assert event["requestContext"]["time"] == "22/Oct/2026:13:00:00 +0000"
    for absent in ("body", "cookies", "queryStringParameters", "pathParameters"):
        assert absent not in event
    json.dumps(event)


def test_what_comes_several_times_is_joined() -> None:
    event = event_of(query=b"a=1&b=&a=2&c=%C3%A9+x", headers=[(b"X-A", b"1"), (b"x-a", b"2")])
    assert event["queryStringParameters"] == {"a": "1,2", "b": "", "c": "é x"}
    assert event["rawQueryString"] == "a=1&b=&a=2&c=%C3%A9+x"
    assert event["headers"] == {"x-a": "1,2"}


@given(st.binary(min_size=1))
def test_a_body_comes_through_as_it_is(body: bytes) -> None:
    event = event_of(body=body)
    sent = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
    assert sent == body


def test_powertools_reads_it() -> None:
    event = APIGatewayProxyEventV2(event_of(query=b"a=1", headers=[(b"cookie", b"c=2")], body=b'{"k": 1}'))
    assert event.http_method == "POST"
    assert event.path == "/x"
    assert event.json_body == {"k": 1}
    assert event.cookies == ["c=2"]
    assert event.query_string_parameters == {"a": "1"}
    assert event.request_context.request_id == "r-1"


def message(id: str = "m-1") -> Message:  # noqa: A002
    return Message(id, "dispatch", {"job": "j-é"}, "receipt", 2, NOW_MS - 5)


def test_messages_become_records() -> None:
    [record] = SQSEvent(from_messages([message()], now_ms=NOW_MS)).records
    assert record.json_body == {"job": "j-é"}
    assert record.message_id == "m-1"
    assert record.receipt_handle == "receipt"
    assert record.attributes.approximate_receive_count == "2"
    assert record.attributes.sent_timestamp == str(NOW_MS - 5)
    assert record.queue_url.endswith("/dispatch")


@pytest.mark.parametrize(("kind", "source"), [("Schedule", "aws.events"), ("ScheduleV2", "aws.scheduler")])
def test_ticks_become_events(kind: str, source: str) -> None:
    event = EventBridgeEvent(from_tick(Schedule("Tick", kind, "F", 60), event_id="e-1", now_ms=NOW_MS))
    assert event.source == source
    assert event.detail_type == "Scheduled Event"
    assert event.time == "2026-10-22T13:00:00Z"
    assert event.resources[0].endswith("/Tick")


@pytest.mark.parametrize(
    ("returned", "status", "content_type", "body"),
    [
        ({"hello": "wörld"}, 200, b"application/json", '{"hello": "wörld"}'.encode()),
        ("text", 200, b"application/json", b"text"),
        ([1], 200, b"application/json", b"[1]"),
        ({"statusCode": 201, "body": "x"}, 201, b"text/plain;charset=UTF-8", b"x"),
        ({"statusCode": "202", "headers": {"Content-Type": "a/b"}}, 202, b"a/b", b""),
        ({"statusCode": 200, "body": "AP8=", "isBase64Encoded": True}, 200, b"text/plain;charset=UTF-8", b"\x00\xff"),
    ],
)
def test_answers(returned: Any, status: int, content_type: bytes, body: bytes) -> None:
    assert to_answer(returned) == Answer(status, [(b"content-type", content_type)], body)


def test_headers_of_an_answer() -> None:
    headers = {"X-A": "1", "X-B": True, "X-C": 5, "HZC-Wake": "P", "content-length": "9", "Content-Type": "t/t"}
    answer = to_answer({"statusCode": 200, "headers": headers, "cookies": ["a=1", "b=2"]})
    assert answer.headers == [
        (b"x-a", b"1"),
        (b"x-b", b"true"),
        (b"x-c", b"5"),
        (b"content-type", b"t/t"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    assert answer.host == {"hzc-wake": "P"}


@pytest.mark.parametrize(
    "returned",
    [
        {"statusCode": 99},
        {"statusCode": None},
        {"statusCode": 200, "headers": [1]},
        {"statusCode": 200, "headers": {"a b": "1"}},
        {"statusCode": 200, "headers": {"a": "1\n2"}},
        {"statusCode": 200, "headers": {"a": "€"}},
        {"statusCode": 200, "body": 5},
        {1, 2},
    ],
)
def test_what_is_no_answer(returned: Any) -> None:
    with pytest.raises(BadAnswer):
        to_answer(returned)


@pytest.mark.parametrize(
    ("returned", "failed"),
    [
        (None, set()),
        ({}, set()),
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": None}, set()),
        ({"batchItemFailures": [{"itemIdentifier": "m-2"}]}, {"m-2"}),
        ({"batchItemFailures": [{"itemIdentifier": "unknown"}]}, {"m-1", "m-2"}),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, {"m-1", "m-2"}),
        ({"batchItemFailures": [{}]}, {"m-1", "m-2"}),
        ({"other": 1}, {"m-1", "m-2"}),
        ("text", {"m-1", "m-2"}),
    ],
)
def test_failures_of_a_batch(returned: Any, failed: set[str]) -> None:
    assert failures(returned, [message("m-1"), message("m-2")]) == failed
