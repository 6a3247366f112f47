"""Requests, messages and ticks as the events that Lambda gives to handlers, and their answers back.

Requests: API Gateway HTTP API, payload format 2.0. Messages: SQS. Ticks: EventBridge.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl

from hanzo_compute.ports import Message
from hanzo_compute_host.manifest import Schedule
from hanzo_compute_host.routes import Match

ACCOUNT: Final = "000000000000"
REGION: Final = "local"
HOST_HEADERS: Final = "hzc-"
"""Headers with this prefix are between handlers and the host: none comes in, none goes out."""
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def from_request(
    scope: Mapping[str, Any], body: bytes, match: Match, *, request_id: str, now_ms: int
) -> dict[str, Any]:
    """The event for an ASGI request."""
    headers, cookies = _headers(scope["headers"])
    query = scope["query_string"].decode("latin-1")
    route_key = f"{match.route.method} {match.route.path}"
    client = scope.get("client") or ("", 0)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route_key,
        "rawPath": scope["path"],
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": REGION,
            "domainName": headers.get("host", ""),
            "domainPrefix": headers.get("host", "").partition(".")[0],
            "http": {
                "method": scope["method"],
                "path": scope["path"],
                "protocol": f"HTTP/{scope['http_version']}",
                "sourceIp": client[0],
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "routeKey": route_key,
            "stage": "$default",
            "time": _log_time(now_ms // 1000),
            "timeEpoch": now_ms,
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _query(query)
    if match.parameters:
        event["pathParameters"] = match.parameters
    if body:
        event["body"], event["isBase64Encoded"] = _text(body)
    return event


@lru_cache(16)
def _log_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def _headers(pairs: Sequence[tuple[bytes, bytes]]) -> tuple[dict[str, str], list[str]]:
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name.startswith(HOST_HEADERS):
            continue
        if name == "cookie":
            cookies.extend(each.strip() for each in value.split(";") if each.strip())
        else:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers, cookies


def _query(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _text(body: bytes) -> tuple[str, bool]:
    try:
        return body.decode("utf-8"), False
    except UnicodeDecodeError:
        return base64.b64encode(body).decode("ascii"), True


def from_messages(messages: Sequence[Message], *, now_ms: int) -> dict[str, Any]:
    """The event for a batch of one queue."""
    return {"Records": [_record(message, now_ms) for message in messages]}


def _record(message: Message, now_ms: int) -> dict[str, Any]:
    body = json.dumps(message.body, ensure_ascii=False, separators=(",", ":"))
    return {
        "messageId": message.id,
        "receiptHandle": message.receipt,
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": str(message.receive_count),
            "SentTimestamp": str(message.sent_ms),
            "SenderId": ACCOUNT,
            "ApproximateFirstReceiveTimestamp": str(now_ms),
        },
        "messageAttributes": {},
        "md5OfBody": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{message.queue}",
        "awsRegion": REGION,
    }


def from_tick(schedule: Schedule, *, event_id: str, now_ms: int) -> dict[str, Any]:
    """The event for a tick: a rule's, or for ``ScheduleV2`` EventBridge Scheduler's."""
    rule = schedule.kind == "Schedule"
    kind, service = ("rule", "events") if rule else ("schedule/default", "scheduler")
    return {
        "version": "0",
        "id": event_id,
        "detail-type": "Scheduled Event",
        "source": f"aws.{service}",
        "account": ACCOUNT,
        "time": datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:{service}:{REGION}:{ACCOUNT}:{kind}/{schedule.name}"],
        "detail": {} if rule else "{}",
    }


class BadAnswer(Exception):
    """A handler returned what API Gateway would not understand."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler said: the response, and apart from it the headers meant for the host."""

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    host: Mapping[str, str] = field(default_factory=dict)


def to_answer(returned: Any) -> Answer:
    """The answer in what a handler returned; without ``statusCode`` all of it is the body, as on AWS.

    Raises:
        BadAnswer: it has no such form.
    """
    if isinstance(returned, str):
        return Answer(200, [(b"content-type", b"application/json")], returned.encode())
    if not isinstance(returned, dict) or "statusCode" not in returned:
        return Answer(200, [(b"content-type", b"application/json")], _json(returned))
    try:
        status = int(returned["statusCode"])
    except (TypeError, ValueError):
        status = 0
    if not 200 <= status <= 599:
        raise BadAnswer(f"statusCode is {returned['statusCode']!r}")
    headers, host = _split(returned.get("headers") or {})
    headers += [_header("set-cookie", cookie) for cookie in returned.get("cookies") or ()]
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", b"text/plain;charset=UTF-8"))
    return Answer(status, headers, _body(returned), host)


def _split(headers: Any) -> tuple[list[tuple[bytes, bytes]], dict[str, str]]:
    if not isinstance(headers, Mapping):
        raise BadAnswer("headers is not a mapping")
    out, host = [], {}
    for name, value in headers.items():
        if str(name).lower().startswith(HOST_HEADERS):
            host[str(name).lower()] = str(value)
        elif str(name).lower() != "content-length":
            out.append(_header(str(name), value))
    return out, host


def _header(name: str, value: Any) -> tuple[bytes, bytes]:
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
        raise BadAnswer(f"header {name!r} cannot be sent")
    return name.lower().encode("latin-1"), text.encode("latin-1")


def _body(returned: Mapping[str, Any]) -> bytes:
    body = returned.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise BadAnswer("body is not text")
    if not returned.get("isBase64Encoded"):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise BadAnswer("body is not base64") from error


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise BadAnswer("what was returned is not JSON") from error


def failures(returned: Any, messages: Sequence[Message]) -> set[str]:
    """The ids of the messages that a queue handler could not handle (``batchItemFailures``).

    An answer that makes no sense, or names a message that was not in the batch, fails the whole batch, as on
    AWS.
    """
    everything = {message.id for message in messages}
    if returned is None or returned == {}:
        return set()
    try:
        failed = {item["itemIdentifier"] for item in returned["batchItemFailures"] or ()}
    except (KeyError, TypeError):
        return everything
    return failed if failed <= everything else everything
