"""HTTP out of a sandbox: what is sent, what is taken for an answer, and how it ends when it goes wrong."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hanzo_compute import config, wiring
from hanzo_compute.adapters.egress import AddressPolicy, ClosedEgress, HttpEgress, addresses, urls
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import bounds
from hanzo_compute.ports import EgressRequest, GuestRefusal, Status
from tests.support.far_side import PUBLIC, FarSide, answering, get, read_request

API = "http://api.example.com"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def far() -> Iterator[FarSide]:
    made = FarSide(serve={PUBLIC: answering(OK)})
    yield made
    made.close()


def refused(far: FarSide, url: str = API, *origins: str, **fields: object) -> GuestRefusal:
    with pytest.raises(GuestRefusal) as error:
        get(far.egress(), url, *(origins or (API,)), **fields)
    return error.value


def answers(far: FarSide, data: bytes) -> FarSide:
    far.serve[PUBLIC] = answering(data)
    return far


def test_a_request_is_what_it_should_be(far: FarSide) -> None:
    headers = [("X-Mine", "ä 1"), ("Authorization", "Bearer t")]
    url, body = f"{API}:80/a%20b?q=1#part", b"\x00body"
    found = get(far.egress(), url, API, method="POST", headers=headers, body=body, idempotency_key="c-1/3")
    assert (found.status, found.body, list(found.headers)) == (200, b"hi", [("content-length", "2")])
    head, _, sent = far.requests[0].partition(b"\r\n\r\n")
    assert sent == body
    assert sorted(head.decode().split("\r\n")) == sorted(
        [
            "POST /a%20b?q=1 HTTP/1.1",
            "Host: api.example.com",
            "Connection: close",
            "Accept: */*",
            "Accept-Encoding: identity",
            "User-Agent: hanzo-compute",
            "X-Mine: ä 1",
            "Authorization: Bearer t",
            "Idempotency-Key: c-1/3",
            "Content-Length: 5",
        ]
    )
    assert found.moved == len(far.requests[0]) + len(OK)
    assert far.connected == [(PUBLIC, 80)]


def test_what_the_guest_gives_stays(far: FarSide) -> None:
    headers = [("idempotency-key", "mine"), ("User-Agent", "me"), ("accept-encoding", "gzip")]
    get(far.egress(), API, API, headers=headers, idempotency_key="c-1/1")
    text = far.requests[0].lower()
    assert text.count(b"idempotency-key") == text.count(b"user-agent") == text.count(b"accept-encoding") == 1
    assert b"content-length" not in text
    assert text.startswith(b"get / http/1.1\r\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_an_empty_body_has_a_length(far: FarSide, method: str) -> None:
    get(far.egress(), API, API, method=method)
    assert b"Content-Length: 0\r\n" in far.requests[0]


ANSWERS = [
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n", 200, b"abc"),
    (b"HTTP/1.1 404 No\r\n\r\nuntil it hangs up", 404, b"until it hangs up"),
    (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"hi"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", 302, b""),
    (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
        200,
        b"\x1f\x8b\x08\x00",
    ),
]


@pytest.mark.parametrize(("data", "status", "body"), ANSWERS)
def test_answers(far: FarSide, data: bytes, status: int, body: bytes) -> None:
    found = get(answers(far, data).egress(), API, API)
    assert (found.status, found.body) == (status, body)
    assert len(far.connected) == 1


def test_an_answer_to_head_has_no_body(far: FarSide) -> None:
    found = get(answers(far, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n").egress(), API, API, method="HEAD")
    assert (found.status, found.body, found.headers) == (200, b"", [("content-length", "99")])


BROKEN = [
    (b"", Status.UNAVAILABLE),
    (b"hello\r\n", Status.UNAVAILABLE),
    (b"HTTP/2 200\r\n\r\n", Status.UNAVAILABLE),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", Status.UNAVAILABLE),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi", Status.UNAVAILABLE),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi", Status.UNAVAILABLE),
    (b"HTTP/1.1 101 Switching\r\n\r\n", Status.UNAVAILABLE),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, Status.UNAVAILABLE),
    (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", Status.UNAVAILABLE),
    (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", Status.UNAVAILABLE),
    (b"HTTP/1.1 200 OK\r\n" + b"A: %b\r\n" % (b"x" * 1000) * 90 + b"\r\n", Status.LIMIT),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n", Status.LIMIT),
    (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(bounds.EGRESS_RESPONSE_MAX + 1), Status.LIMIT),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 1_500_000, Status.LIMIT),
]


@pytest.mark.parametrize(("data", "status"), BROKEN)
def test_what_is_no_answer(far: FarSide, data: bytes, status: Status) -> None:
    error = refused(answers(far, data))
    assert error.status is status
    assert error.moved >= len(far.requests[0]) > 0


def test_the_largest_request_and_answer(far: FarSide) -> None:
    body = bytes(bounds.EGRESS_RESPONSE_MAX)
    answers(far, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert get(far.egress(), API, API, method="PUT", body=bytes(bounds.EGRESS_REQUEST_MAX)).body == body
    assert refused(far, method="PUT", body=bytes(bounds.EGRESS_REQUEST_MAX + 1)).status is Status.LIMIT


@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200 OK\r\nA", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nx"])
def test_a_slow_side_is_cut_off_however_it_drips(far: FarSide, piece: bytes) -> None:
    over = threading.Event()

    def drip(sock: socket.socket) -> None:
        read_request(sock)
        for byte in piece:
            sock.sendall(bytes([byte]))
        while piece and not over.wait(0.05):
            sock.sendall(b"x")
        over.wait(60)

    far.serve[PUBLIC] = drip
    start = time.monotonic()
    assert refused(far, timeout_s=0.4).status is Status.TIMED_OUT
    assert 0.35 < time.monotonic() - start < 50
    over.set()


def test_a_side_that_does_not_read_is_cut_off(far: FarSide) -> None:
    over = threading.Event()
    far.serve[PUBLIC] = lambda _sock: bool(over.wait(60)) and None
    assert refused(far, method="PUT", body=bytes(bounds.EGRESS_REQUEST_MAX), timeout_s=0.3).status is Status.TIMED_OUT
    over.set()


def test_an_answer_before_the_body_was_read_counts(far: FarSide) -> None:
    def early(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")

    far.serve[PUBLIC] = early
    try:
        found = get(far.egress(), API, API, method="PUT", body=bytes(bounds.EGRESS_REQUEST_MAX)).status
    except GuestRefusal as error:  # the reset may have overtaken the answer
        found = error.status
    assert found in (413, Status.UNAVAILABLE)


def test_the_next_address_is_tried(far: FarSide) -> None:
    far.names["api.example.com"] = ["8.8.8.8", "2606:4700::1111", PUBLIC]
    assert get(far.egress(), API, API).status == 200
    assert far.connected == [("8.8.8.8", 80), ("2606:4700::1111", 80), (PUBLIC, 80)]
    far.names["api.example.com"] = ["8.8.8.8", "8.8.4.4"]
    assert refused(far).status is Status.UNAVAILABLE


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GuestRefusal(Status.NOT_FOUND, "no"), Status.NOT_FOUND),
        (GuestRefusal(Status.TIMED_OUT, "late"), Status.TIMED_OUT),
        (OSError("x"), Status.UNAVAILABLE),
    ],
)
def test_names_that_do_not_resolve(far: FarSide, error: Exception, status: Status) -> None:
    far.names["api.example.com"] = error
    assert refused(far).status is status
    far.names["api.example.com"] = []
    assert refused(far).status is Status.NOT_FOUND
    assert far.connected == []


BAD: list[tuple[dict[str, object], Status]] = [
    ({"method": "CONNECT"}, Status.INVALID),
    ({"method": "get"}, Status.INVALID),
    ({"method": "GET / HTTP/1.1\r\nX: y\r\n\r\nGET"}, Status.INVALID),
    ({"body": b"x"}, Status.INVALID),
    ({"method": "HEAD", "body": b"x"}, Status.INVALID),
    *[({"headers": [(name, "x")]}, Status.INVALID) for name in sorted(urls.OURS)],
    *[({"headers": [(name, "x")]}, Status.INVALID) for name in ("", "a b", "a:", "a\r\nb", "ä", "a\0", " a")],
    *[
        ({"headers": [("A", value)]}, Status.INVALID)
        for value in ("x\r\nHost: y", "x\ny", "\r", "x\0y", "\x7f", "\ud800")
    ],
    ({"headers": [("A", "1"), ("a", "2")]}, Status.INVALID),
    ({"headers": [(f"A{n}", "") for n in range(65)]}, Status.LIMIT),
    ({"headers": [("A", "x" * 16384)]}, Status.LIMIT),
]


@pytest.mark.parametrize(("fields", "status"), BAD)
def test_what_is_no_request_is_not_sent(far: FarSide, fields: dict[str, object], status: Status) -> None:
    assert refused(far, API, API, **fields).status is status
    assert (far.resolved, far.connected) == ([], [])


def moved(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


OTHER, THERE = "http://other.example.com", "8.8.8.8"


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")])
def test_a_redirect_is_followed_where_it_is_asked_for(far: FarSide, status: int, method: str) -> None:
    far.names["other.example.com"] = [THERE]
    far.serve = {PUBLIC: answering(moved(f"{OTHER}/new", status)), THERE: answering(OK)}
    headers = [("Authorization", "t"), ("Cookie", "c"), ("X-Api-Key", "k"), ("Content-Type", "text/plain")]
    fields = {"method": "POST", "body": b"body", "headers": headers, "idempotency_key": "c/1"}
    assert get(far.egress(), API, API, OTHER, **fields).status == status
    found = get(far.egress(), API, API, OTHER, follow=True, **fields)
    assert (found.status, found.moved > sum(map(len, far.requests[1:]))) == (200, True)
    last = far.requests[-1]
    assert last.startswith(f"{method} /new HTTP/1.1\r\nHost: other.example.com\r\n".encode())
    for secret in (b"Authorization", b"Cookie", b"X-Api-Key"):
        assert (secret in far.requests[-2], secret in last) == (True, False)
    assert b"Idempotency-Key: c/1" in last
    assert (b"body" in last, b"Content-Type" in last) == (method == "POST", method == "POST")


def test_a_relative_redirect_keeps_headers(far: FarSide) -> None:
    steps = [moved("/b?x=1"), OK]

    def serve(sock: socket.socket) -> None:
        answering(steps.pop(0))(sock)

    far.serve[PUBLIC] = serve
    get(far.egress(), f"{API}/a", API, follow=True, headers=[("Authorization", "t")])
    assert far.requests[1].startswith(b"GET /b?x=1 HTTP/1.1")
    assert b"Authorization: t" in far.requests[1]


def test_redirects_end(far: FarSide) -> None:
    error = refused(answers(far, moved("/again")), follow=True)
    assert (error.status, len(far.connected)) == (Status.LIMIT, 4)
    assert error.moved > sum(map(len, far.requests))
    far.serve[PUBLIC] = answering(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")
    assert get(far.egress(), API, API, follow=True).status == 302


def test_the_time_is_for_all_hops_together(far: FarSide) -> None:
    def slow(sock: socket.socket) -> None:
        read_request(sock)
        time.sleep(0.2)
        sock.sendall(moved("/again"))

    far.serve[PUBLIC] = slow
    assert refused(far, follow=True, timeout_s=0.3).status is Status.TIMED_OUT
    assert refused(far, timeout_s=0.0).status is Status.TIMED_OUT


class TlsServer:
    """Something on loopback that speaks TLS under a CA of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(1))
            .not_valid_after(now + datetime.timedelta(1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.file.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
        self.asked: list[str | None] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self.file)
        self._context.sni_callback = lambda _sock, asked, _context: self.asked.append(asked)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            raw, _ = self._listener.accept()
            with raw:
                raw.settimeout(60)
                try:
                    with self._context.wrap_socket(raw, server_side=True) as sock:
                        if not read_request(sock):
                            return
                        sock.sendall(OK)
                except OSError:
                    if not self.asked:
                        return

    def close(self) -> None:
        self.asked.clear()
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._thread.join(60)
        self._listener.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TlsServer]:
    made = TlsServer(tmp_path, "api.example.com")
    yield made
    made.close()


def trusting(server: TlsServer, *, trusted: bool = True, policy: AddressPolicy | None = None) -> HttpEgress:
    def tls() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(server.file) if trusted else None)

    allowed = policy or AddressPolicy((ipaddress.ip_network("127.0.0.0/8"),))
    return HttpEgress(allowed, resolve=lambda *_: ["127.0.0.1"], tls=tls)


def test_tls_is_verified_against_the_name(server: TlsServer) -> None:
    origin, other = (f"https://{name}.example.com:{server.port}" for name in ("api", "other"))
    assert get(trusting(server), origin, origin).status == 200
    assert server.asked == ["api.example.com"]
    for egress, url in ((trusting(server, trusted=False), origin), (trusting(server), other)):
        with pytest.raises(GuestRefusal, match="no certificate that can be trusted") as error:
            get(egress, url, url)
        assert error.value.status is Status.UNAVAILABLE


def test_loopback_is_closed_unless_the_operator_opens_it(server: TlsServer) -> None:
    origin = f"https://api.example.com:{server.port}"
    with pytest.raises(GuestRefusal) as error:
        get(trusting(server, policy=AddressPolicy()), origin, origin)
    assert error.value.status is Status.DENIED
    server.asked.append("x")  # so that it goes on


def test_the_systems_resolver_knows_loopback_and_not_what_is_nowhere() -> None:
    assert set(addresses.resolve("localhost", 80, 5.0)) <= {"127.0.0.1", "::1"}
    with pytest.raises(GuestRefusal) as error:
        addresses.resolve("a..b", 80, 5.0)
    assert error.value.status is Status.NOT_FOUND


def test_a_resolver_that_hangs_costs_only_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60) and [])
    monkeypatch.setattr(addresses, "_resolving", threading.BoundedSemaphore(1))
    for status in (Status.TIMED_OUT, Status.UNAVAILABLE):
        start = time.monotonic()
        with pytest.raises(GuestRefusal) as error:
            addresses.resolve("api.example.com", 80, 0.1)
        assert error.value.status is status
        assert time.monotonic() - start < 50
    over.set()


@pytest.mark.parametrize(
    ("errno", "status"), [(socket.EAI_NONAME, Status.NOT_FOUND), (socket.EAI_AGAIN, Status.UNAVAILABLE)]
)
def test_why_a_name_does_not_resolve(monkeypatch: pytest.MonkeyPatch, errno: int, status: Status) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "no")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(GuestRefusal) as error:
        addresses.resolve("api.example.com", 80, 1.0)
    assert error.value.status is status


def test_settings(tmp_path: Path) -> None:
    def load(**given: str) -> config.Config:
        return config.load({"HZC_HOME": str(tmp_path), **given})

    assert isinstance(wiring.egress(load()), HttpEgress)
    closed = wiring.egress(load(HZC_EGRESS="off"))
    assert isinstance(closed, ClosedEgress)
    with pytest.raises(GuestRefusal):
        closed.fetch(EgressRequest("GET", API))
    found = load(HZC_EGRESS_ALLOW="10.1.0.0/16, fd12:3456::/48").egress_allow
    assert [str(each) for each in found] == ["10.1.0.0/16", "fd12:3456::/48"]
    for name, value in (("HZC_EGRESS", "yes"), ("HZC_EGRESS_ALLOW", "10.1.0.1/16"), ("HZC_EGRESS_ALLOW", "x")):
        with pytest.raises(InvalidRequest, match=name):
            load(**{name: value})
