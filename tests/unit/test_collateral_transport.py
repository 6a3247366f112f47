"""The opener of collateral: what it refuses, and that no server holds it for longer than it may."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hanzo_compute.adapters.collateral.transport import HttpOpener, system_tls
from hanzo_compute.adapters.collateral.wanted import Request, Unobtainable
from tests.support.collateral_server import CollateralServer, How, Reply
from tests.support.pki import issue

LIMIT = 1000


@pytest.fixture
def server() -> Iterator[CollateralServer]:
    with CollateralServer() as made:
        yield made


@pytest.fixture
def opener() -> Iterator[HttpOpener]:
    made = HttpOpener()
    yield made
    made.close()


def test_an_answer_comes_with_its_status_and_headers(server: CollateralServer, opener: HttpOpener) -> None:
    server.serve("/a?b=1", Reply(b"content", headers={"X-Chain": "pem"}))
    answer = opener(Request(f"{server.url}/a?b=1", LIMIT), 60)
    assert (answer.status, answer.body, answer.headers["x-chain"]) == (200, b"content", "pem")
    assert opener(Request(f"{server.url}/other", LIMIT), 60).status == 404


def test_a_body_makes_it_a_post(server: CollateralServer, opener: HttpOpener) -> None:
    server.serve("/", Reply(b"ok"))
    opener(Request(f"{server.url}/", LIMIT, body=b"question", content_type="application/x"), 60)
    (asked,) = server.asked
    assert (asked.method, asked.body, asked.headers["content-type"]) == ("POST", b"question", "application/x")


def test_a_redirect_is_not_followed(server: CollateralServer, opener: HttpOpener) -> None:
    server.serve("/a", Reply(status=302, headers={"Location": f"{server.url}/b"}))
    server.serve("/b", Reply(b"elsewhere"))
    assert opener(Request(f"{server.url}/a", LIMIT), 60).status == 302
    assert server.count("/b") == 0


def test_what_is_compressed_stays_so(server: CollateralServer, opener: HttpOpener) -> None:
    server.serve("/a", Reply(b"not gzip", headers={"Content-Encoding": "gzip"}))
    assert opener(Request(f"{server.url}/a", LIMIT), 60).body == b"not gzip"
    assert server.asked[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 50 * LIMIT])
def test_an_answer_has_a_size(server: CollateralServer, opener: HttpOpener, size: int) -> None:
    server.serve("/a", Reply(b"x" * size))
    request = Request(f"{server.url}/a", LIMIT)
    if size <= LIMIT:
        assert len(opener(request, 60).body) == size
        return
    with pytest.raises(Unobtainable, match="more than 1000 bytes") as caught:
        opener(request, 60)
    assert not caught.value.passing


@pytest.mark.parametrize("how", [How.RESET, How.TRUNCATED, How.CHUNKS_CUT])
def test_an_answer_that_breaks_off_is_none(server: CollateralServer, opener: HttpOpener, how: How) -> None:
    server.serve("/a", Reply(b"x" * 100, how=how))
    with pytest.raises(Unobtainable, match="cannot be reached") as caught:
        opener(Request(f"{server.url}/a", LIMIT), 60)
    assert caught.value.passing
    server.serve("/a", Reply(b"whole"))
    assert opener(Request(f"{server.url}/a", LIMIT), 60).body == b"whole"


@pytest.mark.parametrize("how", [How.DRIP, How.DRIP_BODY, How.HANG])
def test_an_answer_comes_in_time_or_not_at_all(server: CollateralServer, opener: HttpOpener, how: How) -> None:
    server.serve("/a", Reply(b"x" * 900, how=how))
    start = time.monotonic()
    with pytest.raises(Unobtainable, match=r"did not answer within") as caught:
        opener(Request(f"{server.url}/a", LIMIT), 0.4)
    assert caught.value.passing
    assert time.monotonic() - start < 30  # it would drip for a minute and more
    server.serve("/a", Reply(b"whole"))
    assert opener(Request(f"{server.url}/a", LIMIT), 60).body == b"whole"


def test_nobody_there(opener: HttpOpener) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # the port is taken, and nobody listens there
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unobtainable, match="cannot be reached") as caught:
            opener(Request(f"{url}/a", LIMIT), 60)
    assert caught.value.passing


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[CollateralServer, ssl.SSLContext]]:
    """A server with a certificate of an authority that nobody knows, and what a client that does know it has."""
    authority = issue("Authority", ca=True)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    issued = issue("server", authority, extensions=[(names, False)])
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "server.pem").write_bytes(issued.pem + issued.key.private_bytes(*form))
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(tmp_path / "server.pem")
    # Not the default one: from Python 3.13 on that asks for key identifiers, which certificates here do without.
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.load_verify_locations(cadata=authority.pem.decode())
    with CollateralServer(server_side) as made:
        yield made, client_side


def test_a_server_whose_certificate_is_not_trusted_is_not_asked(
    tls_server: tuple[CollateralServer, ssl.SSLContext], opener: HttpOpener
) -> None:
    server, _ = tls_server
    server.serve("/a", Reply(b"content"))
    with pytest.raises(Unobtainable, match="certificate verify failed") as caught:
        opener(Request(f"{server.url}/a", LIMIT), 60)
    assert not caught.value.passing
    assert server.asked == []


def test_over_tls_an_answer_comes_in_time_too(tls_server: tuple[CollateralServer, ssl.SSLContext]) -> None:
    server, trust = tls_server
    opener = HttpOpener(trust)
    for how in (How.DRIP, How.DRIP_BODY, How.HANG):
        server.serve("/a", Reply(b"x" * 900, how=how))
        with pytest.raises(Unobtainable, match="did not answer within"):
            opener(Request(f"{server.url}/a", LIMIT), 0.4)
    server.serve("/a", Reply(b"whole"))
    assert opener(Request(f"{server.url}/a", LIMIT), 60).body == b"whole"
    opener.close()


def test_the_systems_authorities_are_asked_for_names_and_nothing_old() -> None:
    context = system_tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
