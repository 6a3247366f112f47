"""The HTTP front with real sockets: events, limits, durability, parked requests, event streams, blobs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver

from hanzo_compute.adapters.local.blobs import FileBlobs
from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.errors import NotFound
from hanzo_compute.model.bounds import BODY_MAX
from tests.support.host import FakeCommits, read_head, serving, until

Test = Callable[[], Coroutine[Any, Any, None]]


def run(test: Test) -> None:
    asyncio.run(test())


def echo(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(event)}


def ok(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"statusCode": 200, "body": "ok"}


def test_a_request_becomes_an_event_and_the_answer_a_response() -> None:
    async def test() -> None:
        async with serving({"echo": echo}, [("POST", "/v1/jobs/{id}/cancel", "echo")]) as host:
            headers = {"X-Thing": "one", "cookie": "a=1; b=2", "Hzc-Wake": "forged"}
            reply = await host.client.request("POST", "/v1/jobs/j%201/cancel?x=1&x=2", headers, b'{"a":1}')
            event = reply.json()
            assert reply.status == 200
            assert event["routeKey"] == "POST /v1/jobs/{id}/cancel"
            assert event["pathParameters"] == {"id": "j 1"}
            assert event["queryStringParameters"] == {"x": "1,2"}
            assert event["headers"]["x-thing"] == "one"
            assert event["cookies"] == ["a=1", "b=2"]
            assert "hzc-wake" not in event["headers"]
            assert event["body"] == '{"a":1}'
            assert reply.headers["x-request-id"] == event["requestContext"]["requestId"]

    run(test)


def test_headers_for_the_host_never_reach_the_client() -> None:
    def handler(event: Any, context: Any) -> Any:
        return {"statusCode": 200, "headers": {"hzc-anything": "x", "X-Own": "y"}, "cookies": ["a=1"], "body": ""}

    async def test() -> None:
        async with serving({"handler": handler}) as host:
            reply = await host.client.request("GET", "/handler")
            assert not [name for name in reply.headers if name.startswith("hzc-")]
            assert reply.headers["x-own"] == "y"
            assert reply.headers["set-cookie"] == "a=1"

    run(test)


def test_unknown_paths_and_methods_are_problems() -> None:
    async def test() -> None:
        async with serving({"echo": echo}) as host:
            missing = await host.client.request("GET", "/nowhere")
            assert missing.status == 404
            assert missing.headers["content-type"] == "application/problem+json"
            assert missing.json()["code"] == "not_found"
            wrong = await host.client.request("DELETE", "/echo")
            assert wrong.status == 405
            assert wrong.headers["allow"] == "GET, POST"
            assert wrong.json()["request_id"] == wrong.headers["x-request-id"]

    run(test)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_bound_is_refused_before_the_handler(chunked: bool) -> None:
    calls: list[Any] = []

    async def test() -> None:
        async with serving({"handler": lambda event, context: calls.append(event)}) as host:
            body = b"x" * (BODY_MAX + 1)
            if chunked:
                reader, writer = await asyncio.open_connection("127.0.0.1", host.client.port)
                writer.write(b"POST /handler HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n")
                writer.write(b"connection: close\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
                reply = await host.client.reply(reader)
                writer.close()
            else:
                reply = await host.client.request("POST", "/handler", body=body)
            assert reply.status == 413
            assert reply.json()["code"] == "too_large"
            assert reply.json()["limit"] == BODY_MAX
            assert calls == []

    run(test)


def test_a_body_that_is_far_too_large_is_not_read() -> None:
    async def test() -> None:
        async with serving({"ok": ok}) as host:
            reader, writer = await host.client.open("POST", "/ok", {"content-length": str(10**12)})
            status, headers = await read_head(reader)
            assert (status, headers["connection"]) == (413, "close")
            writer.close()

    run(test)


def test_a_body_at_the_bound_arrives_whole() -> None:
    async def test() -> None:
        sizes: list[int] = []

        def handler(event: Any, context: Any) -> Any:
            sizes.append(len(event["body"]))
            return {"statusCode": 204}

        async with serving({"handler": handler}) as host:
            reply = await host.client.request("POST", "/handler", body=b"x" * BODY_MAX)
            assert (reply.status, sizes) == (204, [BODY_MAX])

    run(test)


def test_headers_over_the_bound_are_refused() -> None:
    async def test() -> None:
        async with serving({"ok": ok}) as host:
            fits = await host.client.request("GET", "/ok", {"x-long": "a" * 9_000})
            assert fits.status == 200
            over = await host.client.request("GET", "/ok", {"x-long": "a" * 11_000})
            assert over.status == 431
            assert over.json()["code"] == "headers_too_large"
            # A head without an end is cut off long before it fills the memory.
            reader, writer = await asyncio.open_connection("127.0.0.1", host.client.port)
            writer.write(b"GET /ok HTTP/1.1\r\nx-endless: " + b"a" * 400_000)
            assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
            writer.close()

    run(test)


def test_a_failing_handler_is_a_problem_without_details(caplog: pytest.LogCaptureFixture) -> None:
    def handler(event: Any, context: Any) -> Any:
        raise ValueError("the secret is swordfish")

    async def test() -> None:
        async with serving({"handler": handler, "ok": ok}) as host:
            reply = await host.client.request("GET", "/handler")
            assert reply.status == 500
            assert b"swordfish" not in reply.body
            assert b"Traceback" not in reply.body
            assert reply.json()["request_id"] in caplog.text
            assert "the secret is swordfish" in caplog.text
            assert (await host.client.request("GET", "/ok")).status == 200

    run(test)


@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": "soon"},
        {"statusCode": 200, "headers": {"x": "a\r\nset-cookie: b"}},
        {"statusCode": 200, "body": {"no": "text"}},
        {"statusCode": 200, "body": "!", "isBase64Encoded": True},
        object(),
    ],
)
def test_an_answer_that_makes_no_sense_is_a_problem(answer: Any) -> None:
    async def test() -> None:
        async with serving({"handler": lambda event, context: answer}) as host:
            reply = await host.client.request("GET", "/handler")
            assert (reply.status, reply.json()["code"]) == (500, "internal")

    run(test)


def test_an_error_of_the_platform_keeps_its_status() -> None:
    def handler(event: Any, context: Any) -> Any:
        raise NotFound("no such thing", hint="look elsewhere")

    async def test() -> None:
        async with serving({"handler": handler}) as host:
            reply = await host.client.request("GET", "/handler")
            assert (reply.status, reply.json()["hint"]) == (404, "look elsewhere")

    run(test)


def test_an_answer_is_withheld_until_its_writes_are_durable() -> None:
    async def test() -> None:
        commits = FakeCommits()
        calls: list[int] = []

        def writes(event: Any, context: Any) -> Any:
            commits.write()
            calls.append(1)
            return {"statusCode": 201, "body": "made"}

        async with serving({"writes": writes, "ok": ok}, commits=commits) as host:
            request = host.start("POST", "/writes")
            await until(lambda: calls)
            # Others are served meanwhile, and what they did not write does not hold them up.
            assert (await host.client.request("GET", "/ok")).status == 200
            assert not request.done()
            commits.commit()
            assert (await request).status == 201

    run(test)


def test_a_failed_commit_is_unavailable() -> None:
    async def test() -> None:
        commits = FakeCommits()
        calls: list[int] = []

        def writes(event: Any, context: Any) -> Any:
            commits.write()
            calls.append(1)
            return {"statusCode": 201, "body": "made"}

        async with serving({"writes": writes}, commits=commits) as host:
            request = host.start("POST", "/writes")
            await until(lambda: calls)
            commits.fail()
            reply = await request
            assert reply.status == 503
            assert reply.json()["code"] == "unavailable"
            assert reply.json()["retryable"] is True
            assert reply.headers["retry-after"] == "1"

    run(test)


def test_writes_of_a_failed_handler_hold_up_nobody() -> None:
    async def test() -> None:
        commits = FakeCommits()

        def fails(event: Any, context: Any) -> Any:
            commits.write()
            raise ValueError

        async with serving({"fails": fails, "ok": ok}, commits=commits) as host:
            assert (await host.client.request("GET", "/fails")).status == 500
            assert (await host.client.request("GET", "/ok")).status == 200

    run(test)


class Waiter:
    """A handler that has nothing to say until the test gives it something."""

    def __init__(self, wait_s: float = 100, wake: str = "JOB#1,LOG#1") -> None:
        self.calls: list[dict[str, Any]] = []
        self.said = "nothing"
        self.wait_s = wait_s
        self.wake = wake

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        self.calls.append(event)
        answer: dict[str, Any] = {"statusCode": 200, "headers": {}, "body": self.said}
        if self.said == "nothing":
            answer["headers"] = {"hzc-wake": self.wake, "hzc-wait": str(self.wait_s)}
        return answer


def test_a_parked_request_is_asked_again_when_its_partition_wakes() -> None:
    async def test() -> None:
        waiter = Waiter()
        async with serving({"waiter": waiter}) as host:
            request = host.start("GET", "/waiter")
            await until(lambda: len(host.app.parking) == 1)
            host.commits.commit("JOB#2")
            assert (await host.client.request("GET", "/nowhere")).status == 404
            assert len(waiter.calls) == 1
            waiter.said = "something"
            host.commits.commit("LOG#1")
            assert (await request).body == b"something"
            assert waiter.calls[0] == waiter.calls[1]
            assert len(host.app.parking) == 0

    run(test)


def test_a_wake_with_nothing_to_say_parks_again() -> None:
    async def test() -> None:
        waiter = Waiter()
        async with serving({"waiter": waiter}) as host:
            request = host.start("GET", "/waiter")
            for count in (1, 2, 3):
                await until(lambda count=count: len(waiter.calls) == count and len(host.app.parking) == 1)
                host.commits.commit("JOB#1")
            await until(lambda: len(waiter.calls) == 4)
            waiter.said = "something"
            host.commits.commit("JOB#1")
            assert (await request).body == b"something"

    run(test)


def test_when_the_wait_is_over_the_last_answer_goes_out() -> None:
    async def test() -> None:
        waiter = Waiter(wait_s=0.05)
        async with serving({"waiter": waiter}) as host:
            assert (await host.client.request("GET", "/waiter")).body == b"nothing"
            assert len(waiter.calls) == 2

    run(test)


def test_a_wake_during_the_call_is_not_lost() -> None:
    async def test() -> None:
        commits = FakeCommits()
        waiter = Waiter()

        def handler(event: Any, context: Any) -> Any:
            answer = waiter(event, context)
            if len(waiter.calls) == 1:
                # What it waits for happens after it looked, and before it has returned.
                waiter.said = "something"
                commits.commit("JOB#1")
            return answer

        async with serving({"handler": handler}, commits=commits) as host:
            async with asyncio.timeout(50):
                assert (await host.client.request("GET", "/handler")).body == b"something"

    run(test)


def test_everybody_looks_again_after_the_writer_was_restarted() -> None:
    async def test() -> None:
        waiter = Waiter()
        async with serving({"waiter": waiter}) as host:
            request = host.start("GET", "/waiter")
            await until(lambda: len(host.app.parking) == 1)
            waiter.said = "something"
            host.commits.commit("*")
            assert (await request).body == b"something"

    run(test)


def test_hundreds_may_wait_and_only_those_concerned_are_asked() -> None:
    async def test() -> None:
        waiters = {f"waiter{number}": Waiter(wake=f"JOB#{number}") for number in range(300)}
        async with serving(waiters) as host:
            requests = {name: host.start("GET", f"/{name}") for name in waiters}
            await until(lambda: len(host.app.parking) == 300)
            waiters["waiter7"].said = "something"
            host.commits.commit("JOB#7")
            assert (await requests["waiter7"]).body == b"something"
            assert sum(len(waiter.calls) for waiter in waiters.values()) == 301
            for request in requests.values():
                request.cancel()
            await asyncio.gather(*requests.values(), return_exceptions=True)
            await until(lambda: len(host.app.parking) == 0)

    run(test)


def test_a_client_that_goes_away_is_forgotten() -> None:
    async def test() -> None:
        waiter = Waiter()
        async with serving({"waiter": waiter}) as host:
            _, writer = await host.client.open("GET", "/waiter")
            await until(lambda: len(host.app.parking) == 1)
            writer.close()
            await until(lambda: len(host.app.parking) == 0)
            assert len(waiter.calls) == 1

    run(test)


def test_a_stop_answers_whoever_waits_and_serves_only_running_work() -> None:
    async def test() -> None:
        waiter = Waiter()
        async with serving({"waiter": waiter, "ok": ok, "leases": ok}) as host:
            request = host.start("GET", "/waiter")
            await until(lambda: len(host.app.parking) == 1)
            host.app.stop()
            # The answer that was kept, not a new one: it could hand out work that nobody will do.
            assert (await request).body == b"nothing"
            assert len(waiter.calls) == 1
            refused = await host.client.request("GET", "/ok")
            assert refused.status == 503
            assert "retry-after" in refused.headers
            assert (await host.client.request("POST", "/leases")).status == 200

    run(test)


class Stream:
    """A handler of an event stream: numbers up to what the test says, then the end."""

    def __init__(self) -> None:
        self.upto = 2
        self.ended = False
        self.cursors: list[str] = []

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        cursor = event["headers"].get("last-event-id", "0")
        self.cursors.append(cursor)
        body = "".join(f"id: {n}\nevent: log\ndata: {n}\n\n" for n in range(int(cursor) + 1, self.upto + 1))
        headers = {"content-type": "text/event-stream"}
        if self.ended:
            body += "event: end\ndata: {}\n\n"
        else:
            headers |= {"hzc-stream": str(self.upto), "hzc-wake": "LOG#1"}
        return {"statusCode": 200, "headers": headers, "body": body}


def test_a_stream_gives_what_there_is_then_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanzo_compute_host.http.KEEP_ALIVE_S", 200.0)  # not before it is woken

    async def test() -> None:
        stream = Stream()
        async with serving({"stream": stream}) as host, asyncio.timeout(60):
            reader, writer = await host.client.open("GET", "/stream")
            status, headers = await read_head(reader)
            assert (status, headers["content-type"]) == (200, "text/event-stream")
            await reader.readuntil(b"data: 2\n\n")
            stream.upto = 3
            host.commits.commit("LOG#1")
            await reader.readuntil(b"data: 3\n\n")
            stream.ended = True
            host.commits.commit("LOG#1")
            assert b"event: end" in await reader.read()
            writer.close()
            assert stream.cursors == ["0", "2", "3"]

    run(test)


def test_a_stream_resumes_and_ends_with_its_client() -> None:
    async def test() -> None:
        stream = Stream()
        async with serving({"stream": stream}) as host, asyncio.timeout(60):
            reader, writer = await host.client.open("GET", "/stream", {"Last-Event-ID": "1"})
            await read_head(reader)
            assert b"data: 1\n" not in await reader.readuntil(b"data: 2\n\n")
            writer.close()
            await until(lambda: len(host.app.parking) == 0)

    run(test)


def test_a_quiet_stream_is_kept_alive_and_its_handler_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hanzo_compute_host.http.KEEP_ALIVE_S", 0.02)

    async def test() -> None:
        stream = Stream()
        async with serving({"stream": stream}) as host, asyncio.timeout(60):
            reader, writer = await host.client.open("GET", "/stream")
            await read_head(reader)
            await reader.readuntil(b": waiting\n\n")
            await until(lambda: len(stream.cursors) > 2)
            writer.close()

    run(test)


def test_a_stream_stops_with_the_platform() -> None:
    async def test() -> None:
        stream = Stream()
        async with serving({"stream": stream}) as host, asyncio.timeout(60):
            reader, writer = await host.client.open("GET", "/stream")
            await reader.readuntil(b"data: 2\n\n")
            host.app.stop()
            assert b"event: end" not in await reader.read()
            writer.close()

    run(test)


def test_800_concurrent_calls_each_see_their_own_request() -> None:
    """The trap: Powertools' resolvers keep the event in a class attribute; in threads calls see another's."""
    resolver = APIGatewayHttpResolver(enable_validation=True)

    @resolver.get("/item/<number>")
    def item(number: int) -> dict[str, Any]:
        event = resolver.current_event
        return {"number": number, "path": event.raw_event["rawPath"], "header": event.headers["x-number"]}

    async def test() -> None:
        handlers = {"handler": resolver.resolve}
        async with serving(handlers, [("GET", "/item/{number}", "handler")]) as host:

            async def one(number: int) -> bool:
                reply = await host.client.request("GET", f"/item/{number}", {"x-number": str(number)})
                return bool(reply.json() == {"number": number, "path": f"/item/{number}", "header": str(number)})

            results = await asyncio.gather(*(one(number) for number in range(800)))
            assert results == [True] * 800

    run(test)


def path_of(url: str) -> str:
    return "/" + url.split("/", 3)[3]


def test_blobs_go_up_and_down_by_presigned_urls(tmp_path: Path) -> None:
    async def test() -> None:
        clock = SystemClock()
        blobs = FileBlobs(tmp_path, clock, "http://127.0.0.1:1")
        data = bytes(range(256)) * 8_000
        blob = f"b1-{hashlib.sha256(data).hexdigest()}"
        async with serving({"ok": ok}, blobs=blobs) as host:
            put = path_of(blobs.presign_put("acme", blob, len(data)).url)
            get = path_of(blobs.presign_get("acme", blob).url)
            assert (await host.client.request("GET", get)).status == 404
            assert (await host.client.request("PUT", put, body=b"x" * len(data))).status == 400
            assert (await host.client.request("PUT", put, body=data[:-1])).status == 400
            assert (await host.client.request("PUT", put, body=data + b"x")).status == 413
            assert blobs.size("acme", blob) is None
            assert (await host.client.request("PUT", put, body=data)).status == 200
            assert blobs.get("acme", blob) == data
            down = await host.client.request("GET", get)
            assert (down.status, down.body) == (200, data)
            head = await host.client.request("HEAD", get)
            assert (head.status, head.headers["content-length"], head.body) == (200, str(len(data)), b"")
            assert list((tmp_path / "blobs" / ".new").iterdir()) == []

    run(test)


def test_blobs_need_a_signature_that_fits(tmp_path: Path) -> None:
    async def test() -> None:
        clock = SystemClock()
        blobs = FileBlobs(tmp_path, clock, "http://127.0.0.1:1")
        blob = blobs.put("acme", b"secret")
        async with serving({"ok": ok}, blobs=blobs) as host:
            get = path_of(blobs.presign_get("acme", blob).url)
            refused = [
                get.replace("acme", "evil"),
                get.replace("signature=", "signature=0"),
                get.split("?")[0],
                path_of(blobs.presign_get("acme", blob, ttl_s=-1).url),
                "/_blobs/../../etc/passwd",
            ]
            for path in refused:
                reply = await host.client.request("GET", path)
                assert (reply.status, b"secret" in reply.body) == (403, False)
            assert (await host.client.request("PUT", get, body=b"other!")).status == 403
            assert (await host.client.request("POST", get)).status == 405
            assert blobs.get("acme", blob) == b"secret"

    run(test)
