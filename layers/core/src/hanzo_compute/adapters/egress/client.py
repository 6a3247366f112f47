"""Outbound HTTP for guests: everything is checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from threading import Lock
from typing import Final

from hanzo_compute.adapters.egress import addresses
from hanzo_compute.adapters.egress.addresses import AddressPolicy
from hanzo_compute.adapters.egress.urls import (
    BODILESS,
    METHODS,
    Target,
    carried,
    checked_headers,
    redirected,
    target,
)
from hanzo_compute.adapters.egress.wire import Answer, Connection, exchange, head
from hanzo_compute.model import bounds
from hanzo_compute.ports import EgressRequest, EgressResponse, GuestRefusal, Status

Resolve = Callable[[str, int, float], Sequence[str]]
Connect = Callable[[str, int, float], socket.socket]

ADDRESSES_TRIED: Final = 4
CONNECT_S: Final = 5.0
"""For one address of several."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AS_GET: Final = frozenset({301, 302, 303})


def system_tls() -> ssl.SSLContext:
    """TLS 1.2 or newer, with the system's authorities."""
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    return made


class ClosedEgress:
    """No way out."""

    def fetch(self, _request: EgressRequest) -> EgressResponse:
        """Raises GuestRefusal."""
        raise GuestRefusal(Status.DENIED, "http: this platform lets functions call no other hosts")


class HttpEgress:
    """Requests over connections of their own: nothing is kept between two, no cookies, no proxies, no cache."""

    def __init__(
        self,
        policy: AddressPolicy | None = None,
        *,
        resolve: Resolve = addresses.resolve,
        connect: Connect = addresses.connect,
        tls: Callable[[], ssl.SSLContext] = system_tls,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy or AddressPolicy()
        self._resolve = resolve
        self._connect = connect
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._lock = Lock()
        self._monotonic = monotonic

    def fetch(self, request: EgressRequest) -> EgressResponse:
        """See :meth:`hanzo_compute.ports.Egress.fetch`."""
        deadline = self._monotonic() + request.timeout_s
        method, body, moved = request.method, request.body, 0
        if method not in METHODS:
            raise GuestRefusal(Status.INVALID, f"http: the method is one of {', '.join(sorted(METHODS))}")
        if body and method in BODILESS:
            raise GuestRefusal(Status.INVALID, f"http: a {method} has no body")
        if len(body) > bounds.EGRESS_REQUEST_MAX:
            raise GuestRefusal(Status.LIMIT, f"http: the body is over {bounds.EGRESS_REQUEST_MAX} bytes")
        headers = checked_headers(request.headers)
        if request.idempotency_key and not any(name.lower() == "idempotency-key" for name, _ in headers):
            headers.append(("Idempotency-Key", request.idempotency_key))
        to = target(request.url, request.origins)
        for hop in range(bounds.EGRESS_HOPS_MAX + 1):
            try:
                answer, count = self._once(method, to, headers, body, deadline)
                moved += count
                location = answer.header("location")
                if not request.follow or answer.status not in _REDIRECTS or location is None:
                    return EgressResponse(answer.status, answer.headers, answer.body, moved)
                if hop == bounds.EGRESS_HOPS_MAX:
                    raise GuestRefusal(Status.LIMIT, f"http: more than {bounds.EGRESS_HOPS_MAX} redirects")
                before, to = to, redirected(to, location, request.origins)
            except GuestRefusal as refusal:
                raise GuestRefusal(refusal.status, refusal.why, moved=moved + refusal.moved) from None
            if answer.status in _AS_GET and method not in BODILESS:
                method, body = "GET", b""
            headers = carried(headers, before, to, body=bool(body))
        raise AssertionError("unreachable")

    def _once(
        self, method: str, to: Target, headers: Sequence[tuple[str, str]], body: bytes, deadline: float
    ) -> tuple[Answer, int]:
        """One request, and the bytes that were moved for it."""

        def left() -> float:
            return deadline - self._monotonic()

        connection: Connection | None = None
        try:
            found = [to.host] if _is_address(to.host) else self._resolve(to.host, to.port, _some(left()))
            with closing(self._open(to, addresses.checked(found, to.host, self._policy), left)) as sock:
                connection = Connection(sock, left)
                answer = exchange(connection, method, head(method, to, headers, len(body)) + body)
                return answer, connection.moved
        except GuestRefusal as refusal:
            raise GuestRefusal(refusal.status, refusal.why, moved=connection.moved if connection else 0) from None
        except TimeoutError:
            status, why = Status.TIMED_OUT, "did not answer in time"
        except ssl.SSLCertVerificationError as error:
            status, why = Status.UNAVAILABLE, f"has no certificate that can be trusted: {error.verify_message}"
        except OSError as error:
            status, why = Status.UNAVAILABLE, f"cannot be reached: {error.strerror or type(error).__name__}"
        raise GuestRefusal(status, f"http: {to.origin} {why}", moved=connection.moved if connection else 0)

    def _open(self, to: Target, found: Sequence[str], left: Callable[[], float]) -> socket.socket:
        """A connection to one of these addresses and no other, TLS on it if the scheme says so."""
        sock = self._reach(to, found[:ADDRESSES_TRIED], left)
        if to.scheme == "http":
            return sock
        try:
            sock.settimeout(_some(left()))
            return self._context().wrap_socket(sock, server_hostname=to.host)
        except BaseException:
            sock.close()
            raise

    def _reach(self, to: Target, tried: Sequence[str], left: Callable[[], float]) -> socket.socket:
        for address in tried[:-1]:
            with suppress(OSError):
                return self._connect(address, to.port, min(CONNECT_S, _some(left())))
        return self._connect(tried[-1], to.port, _some(left()))

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = self._make_tls()
            return self._tls


def _some(seconds: float) -> float:
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _is_address(host: str) -> bool:
    if ":" not in host and not re.fullmatch(r"[0-9.]+", host):
        return False
    ipaddress.ip_address(host)
    return True
