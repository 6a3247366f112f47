"""One HTTP client for all callers of the API: JSON, errors as classes, retries where they are safe."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from hanzo_compute import errors
from hanzo_compute.adapters.http.problem import error_of

T = TypeVar("T")

ANSWER_MAX: Final = 16 * 1024 * 1024
"""Largest answer that is read, bytes."""
CONNECT_S: Final = 5.0
"""A platform that takes longer to accept a connection counts as not reachable."""
STREAM_SILENCE_S: Final = 45.0
"""The platform sends a comment every 15 s, so a stream that is silent for longer has been cut."""
RETRY_AFTER_MAX: Final = 30.0
"""A caller is told, not kept waiting, when the platform asks for a longer pause than this."""
_BACKOFF_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer; ``body`` is its decoded JSON, or None where there was none."""

    status: int
    headers: Mapping[str, str]
    body: Any


def backoff(attempt: int, retry_after_s: float | None = None) -> float:
    """Seconds to wait after the ``attempt``-th failure: doubling, full jitter, never less than asked for."""
    jittered = random.uniform(0, min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** (attempt - 1)))
    return jittered if retry_after_s is None else retry_after_s + jittered


@dataclass(frozen=True, slots=True)
class Exchanged:
    """An answer whose body is bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ApiClient:
    """A connection pool to one platform; safe to share between threads.

    ``url`` is the platform's address, ``key`` a credential (``hzk_…``) or None. Proxy settings of the
    environment are not used: they would send loopback traffic and credentials elsewhere. Every method raises
    the classes of :mod:`hanzo_compute.errors`; what is wrong with the connection is ``Unavailable``.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_s: float = 30.0,
        attempts: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not _is_address(url):
            raise errors.InvalidRequest(
                f"{url!r} is not the address of a platform", hint="it looks like http://127.0.0.1:8787"
            )
        self.url = url.rstrip("/")
        self._key = key
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._sleep = sleep
        self._pool = urllib3.PoolManager(num_pools=4, maxsize=16)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        wait_s: float = 0.0,
    ) -> Reply:
        """One call of the API.

        It is repeated after a failure that may pass if ``repeatable``; by default when the method is
        idempotent or an ``Idempotency-Key`` is sent. ``wait_s``: how long the platform may hold a long poll.
        """
        sent = self._headers() | dict(headers or {})
        if repeatable is None:
            repeatable = method in _REPEATABLE or "Idempotency-Key" in sent
        data = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        url = self._url(path, query or {})

        def once() -> Reply:
            response = self._send(method, url, sent, data, read_s=self._timeout_s + wait_s)
            content = self._content(response, ANSWER_MAX)
            return Reply(response.status, response.headers, self._decoded(response, content))

        return self._repeat(once, repeatable)

    def exchange(self, path: str, data: bytes, *, query: Mapping[str, Any], limit: int, wait_s: float) -> Exchanged:
        """Send bytes with the credential, and get bytes; once: what was called may have happened."""
        headers = self._headers() | {"Content-Type": "application/octet-stream", "Accept": "*/*"}
        response = self._send("POST", self._url(path, query), headers, data, read_s=self._timeout_s + wait_s)
        return Exchanged(response.status, response.headers, self._content(response, limit))

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, Any],
        headers: Mapping[str, str],
        data: bytes | None = None,
        silence_s: float = STREAM_SILENCE_S,
    ) -> Iterator[BaseHTTPResponse]:
        """An answer to read piece by piece with :func:`pieces`; the connection ends with the block.

        With ``data`` that is sent, once.
        """
        sent = self._headers() | dict(headers)
        method = "GET" if data is None else "POST"
        response = self._send(method, self._url(path, query), sent, data, read_s=silence_s)
        try:
            yield response
        finally:
            response.close()

    def pieces(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        """The bytes of a streamed answer as they come."""
        try:
            while piece := response.read1(65536):
                yield piece
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error

    def fetch(self, url: str, *, limit: int) -> bytes:
        """The bytes behind a presigned URL, at most ``limit``; no credential is sent."""

        def once() -> bytes:
            return self._content(self._send("GET", self._absolute(url), {}, None), limit)

        return self._repeat(once, True)

    def store(self, url: str, data: bytes, *, method: str = "PUT") -> None:
        """Send bytes to a presigned URL; no credential is sent."""
        headers = {"Content-Type": "application/octet-stream"}

        def once() -> None:
            self._content(self._send(method, self._absolute(url), headers, data), ANSWER_MAX)

        self._repeat(once, True)

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    def _absolute(self, url: str) -> str:
        absolute = urljoin(self.url + "/", url)
        if urlsplit(absolute).scheme not in ("http", "https"):
            raise errors.InvalidRequest(f"not an address to fetch from: {url[:80]!r}")
        return absolute

    def _url(self, path: str, query: Mapping[str, Any]) -> str:
        fields = {name: value for name, value in query.items() if value is not None}
        return self.url + path + (f"?{urlencode(fields)}" if fields else "")

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None, *, read_s: float = 0.0
    ) -> BaseHTTPResponse:
        """Send once; the answer, its body unread, if it is a success."""
        timeout = urllib3.Timeout(connect=min(CONNECT_S, self._timeout_s), read=read_s or self._timeout_s)
        try:
            response = self._pool.request(
                method,
                url,
                headers=headers,
                body=data,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (HTTPError, OSError) as error:
            raise self._unreachable(error) from error
        if not 200 <= response.status < 300:
            content = self._content(response, ANSWER_MAX)
            raise error_of(response.status, response.headers, content)
        return response

    def _content(self, response: BaseHTTPResponse, limit: int) -> bytes:
        try:
            content = response.read(limit + 1)
            if len(content) > limit:
                response.close()
                raise errors.PayloadTooLarge(f"the answer is over {limit} bytes")
            # Reads the terminating chunk, so that the connection can be used again.
            response.drain_conn()
        except (HTTPError, OSError) as error:
            response.close()
            raise self._unreachable(error) from error
        response.release_conn()
        return content

    def _decoded(self, response: BaseHTTPResponse, content: bytes) -> Any:
        if not content:
            return None
        try:
            return json.loads(content)
        except ValueError:
            raise errors.Unavailable(
                f"what answers at {self.url} is not Hanzo Compute: {response.status} without JSON",
                hint="check the address in --url, HZC_URL or credentials.json",
            ) from None

    def _unreachable(self, cause: Exception) -> errors.Unavailable:
        return errors.Unavailable(
            f"cannot reach the platform at {self.url}: {_plain(cause)}",
            hint="start it with `hzc up`, or name another one with HZC_URL",
        )

    def _repeat(self, once: Callable[[], T], repeatable: bool) -> T:
        attempt = 1
        while True:
            try:
                return once()
            except errors.ComputeError as error:
                if not repeatable or not error.retryable or attempt >= self._attempts:
                    raise
                delay = backoff(attempt, error.data.get("retry_after_s"))
                if delay > RETRY_AFTER_MAX:
                    raise
            self._sleep(delay)
            attempt += 1


def _plain(cause: Exception) -> str:
    """A urllib3 exception without the objects that it prints."""
    text = str(cause)
    return text.rpartition("): ")[2] or type(cause).__name__


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and " " not in url
