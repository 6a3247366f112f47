"""The client against a writer that does exactly what the test says."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.local.client import WriterClient
from hanzo_compute.adapters.local.frames import PROTOCOL, Decoder, Frame, encode
from hanzo_compute.errors import InternalError, Unavailable
from hanzo_compute.ports import CommitNews

Script = Callable[[Frame], list[Frame] | None]


class ScriptedWriter:
    """Answers each request by the frames of the script; None ends the connection."""

    def __init__(self, home: Path) -> None:
        (home / "run").mkdir()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(home / "run" / "writer.sock"))
        self._listener.listen()
        self.script: Script = lambda request: [{"id": request["id"], "ok": None}]
        self.protocol = PROTOCOL
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                self._sock, _ = self._listener.accept()
            except OSError:
                return
            with self._sock:
                self._talk(self._sock)

    def _talk(self, sock: socket.socket) -> None:
        decoder = Decoder()
        while data := sock.recv(100_000):
            for request in decoder.feed(data):
                hello = request["op"] == "hello"
                frames = [{"id": request["id"], "ok": self.protocol}] if hello else self.script(request)
                if frames is None:
                    return
                sock.sendall(b"".join(encode(frame) for frame in frames))

    def say(self, *frames: Frame) -> None:
        assert self._sock is not None
        self._sock.sendall(b"".join(encode(frame) for frame in frames))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(60)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ScriptedWriter]:
    found = ScriptedWriter(tmp_path)
    yield found
    found.close()


@pytest.fixture
def client(writer: ScriptedWriter, tmp_path: Path) -> Iterator[WriterClient]:
    found = WriterClient(tmp_path, connect_wait_s=30)
    yield found
    found.close()


def rings(client: WriterClient, seconds: float = 60) -> bool:
    return bool(select.select([client.fileno()], [], [], seconds)[0])


def test_news_between_a_request_and_its_reply_is_kept(writer: ScriptedWriter, client: WriterClient) -> None:
    assert client.request("a") == {"id": 2, "ok": None}
    ticket = client.take()
    assert ticket == 2
    writer.script = lambda request: [{"durable": 2, "woken": ["P"]}, {"id": request["id"], "ok": 1}]
    assert client.request("b")["ok"] == 1
    # The socket is empty now, and still there is news to ring for.
    assert rings(client)
    assert client.news() == CommitNews([2], [], ["P"])
    assert not rings(client, 0)


def test_the_end_of_the_connection_loses_what_is_not_durable(writer: ScriptedWriter, client: WriterClient) -> None:
    writer.script = lambda request: [{"id": request["id"], "ok": None}, {"durable": request["id"]}]
    client.request("durable")
    durable = client.take()
    writer.script = lambda request: [{"id": request["id"], "ok": None}]
    client.request("lost")
    lost = client.take()
    client.request("lost, too")
    writer.script = lambda _request: None
    with pytest.raises(Unavailable, match="did not answer"):
        client.request("not answered")
    assert rings(client)
    news = client.news()
    assert list(news.failed) == [lost]
    assert durable is None or durable in news.durable
    # A handler that goes on after the loss gets nothing done, and no good ticket for what went before it.
    writer.script = lambda request: [{"id": request["id"], "ok": None}, {"durable": request["id"]}]
    with pytest.raises(Unavailable, match="earlier write"):
        client.request("after")
    ticket = client.take()
    assert ticket is not None
    with pytest.raises(Unavailable, match="lost"):
        client.wait(ticket)
    client.request("next")
    last = client.take()
    if last is not None:
        client.wait(last)


def test_what_a_writer_that_says_goodbye_did_not_look_at_goes_to_the_next(
    writer: ScriptedWriter, client: WriterClient
) -> None:
    writer.script = lambda request: [{"id": request["id"], "ok": "first"}]
    client.request("a")
    ticket = client.take()
    asked: list[Frame] = []

    def leave(request: Frame) -> list[Frame] | None:
        asked.append(request)
        if len(asked) == 1:
            writer.say({"durable": request["id"] - 1}, {"bye": request["id"] - 1})
            return None
        return [{"id": request["id"], "ok": "second"}, {"durable": request["id"]}]

    writer.script = leave
    assert client.request("b", 1)["ok"] == "second"
    assert [(each["op"], each["args"]) for each in asked] == [("b", [1])] * 2
    assert ticket is not None
    client.wait(ticket)  # what the first one had applied is durable
    later = client.take()
    assert later is None or client.wait(later) is None


def test_what_a_writer_had_applied_before_its_goodbye_is_not_asked_again(
    writer: ScriptedWriter, client: WriterClient
) -> None:
    client.request("a")
    asked: list[Frame] = []

    def leave(request: Frame) -> list[Frame] | None:
        asked.append(request)
        number = request["id"]
        writer.say({"id": number, "ok": "applied"}, {"durable": number}, {"bye": number})
        return None

    writer.script = leave
    assert client.request("b")["ok"] == "applied"
    assert len(asked) == 1


def test_a_writer_that_ends_without_a_word_is_not_trusted(writer: ScriptedWriter, client: WriterClient) -> None:
    client.request("a")
    asked: list[Frame] = []

    def vanish(request: Frame) -> list[Frame] | None:
        asked.append(request)
        return None

    writer.script = vanish
    with pytest.raises(Unavailable, match="did not answer"):
        client.request("b")
    assert len(asked) == 1


def test_a_caller_that_was_told_does_not_lose_its_next_ticket(writer: ScriptedWriter, client: WriterClient) -> None:
    writer.script = lambda _request: None
    with pytest.raises(Unavailable):
        client.request("not answered")
    writer.script = lambda request: [{"id": request["id"], "ok": None}]
    client.request("repeated")
    ticket = client.take()
    assert ticket is not None
    writer.say({"durable": ticket})
    client.wait(ticket)


def test_an_idle_client_notices_the_end_before_it_asks(writer: ScriptedWriter, client: WriterClient) -> None:
    client.request("a")
    writer.script = lambda _request: None
    with pytest.raises(Unavailable):
        client.request("b")
    client.take()
    writer.script = lambda request: [{"id": request["id"], "ok": None}]
    assert client.request("c")["ok"] is None


def test_a_ticket_is_waited_for_no_longer_than_said(writer: ScriptedWriter, client: WriterClient) -> None:
    client.request("a")
    ticket = client.take()
    assert ticket is not None
    with pytest.raises(Unavailable, match=r"not durable within 0\.05 s"):
        client.wait(ticket, 0.05)
    writer.say({"durable": ticket})
    client.wait(ticket)


def test_refusals_become_errors(writer: ScriptedWriter, client: WriterClient) -> None:
    writer.script = lambda request: [{"id": request["id"], "error": "disk full", "invalid": False}]
    with pytest.raises(Unavailable, match="disk full"):
        client.request("a")
    writer.script = lambda request: [{"id": request["id"], "error": "no such op", "invalid": True}]
    with pytest.raises(InternalError, match="no such op"):
        client.request("a")


def test_another_protocol_is_named(writer: ScriptedWriter, client: WriterClient) -> None:
    writer.protocol = PROTOCOL + 1
    with pytest.raises(InternalError, match=f"protocol {PROTOCOL + 1}"):
        client.request("a")
