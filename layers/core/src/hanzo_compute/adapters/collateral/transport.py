"""Requests to the services over urllib3: TLS verified, nothing followed, and bounded in bytes and in time."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from hanzo_compute.adapters.collateral.wanted import Answer, Request, Unobtainable

CONNECT_S: Final = 5.0
USER_AGENT: Final = "hanzo-compute"
_current = threading.local()


class HttpOpener:
    """Sends requests; safe to share between threads.

    Redirects are answers like any other, and the environment's proxies are not used. An answer is read as it was
    sent: no compression is offered, and none undone. ``tls``: the system's authorities if none is given.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._manager = urllib3.PoolManager(num_pools=8, maxsize=8, ssl_context=tls or system_tls())
        self._manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def __call__(self, request: Request, timeout_s: float) -> Answer:
        """The answer, whatever its status, if all of it came in ``timeout_s`` seconds.

        Raises:
            Unobtainable: it cannot be reached, breaks off, is too slow or too large.
        """
        with _deadline(timeout_s) as late:
            try:
                response = self._send(request, timeout_s)
                body = self._body(response, request.limit)
            except (HTTPError, OSError) as error:
                slow = late.is_set() or isinstance(error, ReadTimeoutError | TimeoutError)
                why = f"did not answer within {timeout_s:.0f} s" if slow else _plain(error)
                raise Unobtainable(why, passing=not _is_distrust(error)) from None
        return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, body)

    def close(self) -> None:
        """Close idle connections."""
        self._manager.clear()

    def _send(self, request: Request, timeout_s: float) -> BaseHTTPResponse:
        headers = {"Accept": request.accept, "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        return self._manager.request(
            "GET" if request.body is None else "POST",
            request.url,
            headers=headers,
            body=request.body,
            timeout=urllib3.Timeout(connect=min(CONNECT_S, timeout_s), read=timeout_s),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def _body(self, response: BaseHTTPResponse, limit: int) -> bytes:
        try:
            body = b""
            # Up to an empty read: only that one tells an end that comes too early.
            while piece := response.read(limit + 1 - len(body), decode_content=False):
                body += piece
                if len(body) > limit:
                    raise Unobtainable(f"answered with more than {limit} bytes")
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return body


@lru_cache(maxsize=1)
def system_tls() -> ssl.SSLContext:
    """TLS 1.2 or newer, with the system's authorities (or those that SSL_CERT_FILE names)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextmanager
def _deadline(seconds: float) -> Iterator[threading.Event]:
    """The block's requests end after so long, also those that get a byte now and then; the event says if they did.

    A timeout of a socket is for one call of it, and a server that sends slowly never meets it.
    """
    late = threading.Event()
    connections: list[HTTPConnection] = []
    _current.connections = connections
    # A daemon: should the block be left by the process's end, nobody waits for it.
    watch = threading.Timer(seconds, _cut, (late, connections))
    watch.daemon = True
    watch.start()
    try:
        yield late
    finally:
        watch.cancel()
        _current.connections = None


def _cut(late: threading.Event, connections: list[HTTPConnection]) -> None:
    late.set()
    for connection in connections:
        if isinstance(connection.sock, socket.socket):
            # The method of the plain socket: that of TLS drops its state under the reader's hands.
            with suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


def _seen(connection: HTTPConnection) -> None:
    connections = getattr(_current, "connections", None)
    if connections is not None:
        connections.append(connection)


class _Connection(HTTPConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _seen(self)
        super().request(*args, **kwargs)


class _TlsConnection(HTTPSConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        _seen(self)
        super().request(*args, **kwargs)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _is_distrust(error: BaseException) -> bool:
    """Whether the server showed a certificate that is not trusted: asking again helps nothing."""
    while error.__context__ is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__context__
    return isinstance(error, ssl.SSLCertVerificationError)


def _plain(error: Exception) -> str:
    """What went wrong, without the objects that urllib3 prints."""
    text = str(error).rpartition("): ")[2].strip("()'\" ")
    return f"cannot be reached ({text or type(error).__name__})"
