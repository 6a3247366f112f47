"""What a guest asks for, taken apart strictly: what could be read in two ways is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin

from pydantic_core import PydanticCustomError

from hanzo_compute.model.origins import DEFAULT_PORTS, normalised
from hanzo_compute.ports import GuestRefusal, Status

URL_MAX: Final = 8192
HEADERS_MAX: Final = 64
HEADER_BYTES_MAX: Final = 16 * 1024
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
BODILESS: Final = frozenset({"GET", "HEAD"})
OURS: Final = frozenset(
    {
        *("connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers that say how a message is framed and routed: a guest does not set them."""
CARRIED: Final = frozenset(
    {"accept", "accept-encoding", "accept-language", "content-type", "idempotency-key", "user-agent"}
)
"""Headers that follow a redirect to another origin; any other may hold a credential."""

_URL: Final = re.compile(r"(?i:(https?))://([^/?#]+)([^?#]*)(\?[^#]*)?(?:#.*)?")
_VISIBLE: Final = re.compile(r"[!-~]+")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]*")

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes."""

    scheme: str
    host: str
    """A name, or an address without brackets."""
    port: int
    authority: str
    """As the ``Host`` header has it."""
    path: str
    """With the query."""

    @property
    def origin(self) -> str:
        """The form in which origins are compared."""
        return f"{self.scheme}://{self.authority}"


def target(url: str, origins: frozenset[str]) -> Target:
    """Take a URL apart. Raises GuestRefusal: it is none, or its origin is not one of those."""
    match = _URL.fullmatch(url) if len(url) <= URL_MAX and _VISIBLE.fullmatch(url) else None
    if match is None or "\\" in url:
        raise GuestRefusal(Status.INVALID, "http: the url must be http:// or https://, in ASCII, of at most 8192 bytes")
    if "@" in match[2]:
        raise GuestRefusal(Status.INVALID, "http: a url has no user name or password: send a header")
    try:
        origin = normalised(f"{match[1]}://{match[2]}")
    except PydanticCustomError:
        origin = ""
    if origin not in origins:
        raise GuestRefusal(Status.DENIED, f"http: {match[1].lower()}://{match[2][:300]} is not granted")
    scheme, _, authority = origin.partition("://")
    bare, _, port = authority.rpartition(":") if re.search(r":[0-9]+\Z", authority) else (authority, "", "")
    if authority.endswith("]"):
        bare, port = authority, ""
    path = (match[3] or "/") + (match[4] or "")
    return Target(scheme, bare.strip("[]"), int(port or DEFAULT_PORTS[scheme]), authority, path)


def checked_headers(headers: Headers) -> list[tuple[str, str]]:
    """The headers, if they may be sent as they are. Raises GuestRefusal."""
    if len(headers) > HEADERS_MAX or sum(len(name) + len(value) + 4 for name, value in headers) > HEADER_BYTES_MAX:
        raise GuestRefusal(Status.LIMIT, f"http: over {HEADERS_MAX} headers, or {HEADER_BYTES_MAX} bytes of them")
    seen: set[str] = set()
    for name, value in headers:
        lower = name.lower()
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise GuestRefusal(Status.INVALID, f"http: the header {name[:80]!r} cannot be sent as it is")
        if lower in OURS or lower in seen:
            why = "comes twice" if lower in seen else "is set by the platform"
            raise GuestRefusal(Status.INVALID, f"http: the header {lower} {why}")
        seen.add(lower)
    return [(name, value.strip(" \t")) for name, value in headers]


def redirected(before: Target, location: str, origins: frozenset[str]) -> Target:
    """Where a redirect goes, if a request may follow it. Raises GuestRefusal."""
    if not _VISIBLE.fullmatch(location) or len(location) > URL_MAX or "\\" in location:
        raise GuestRefusal(Status.UNAVAILABLE, "http: the redirect leads to no url")
    try:
        url = urljoin(f"{before.origin}{before.path}", location)
    except ValueError:
        raise GuestRefusal(Status.UNAVAILABLE, "http: the redirect leads to no url") from None
    try:
        after = target(url, origins)
    except GuestRefusal as refusal:
        raise GuestRefusal(Status.DENIED, f"{refusal.why}, and a redirect leads there") from None
    if before.scheme == "https" and after.scheme != "https":
        raise GuestRefusal(Status.DENIED, "http: a redirect leads from https to http")
    return after


def carried(headers: Headers, before: Target, after: Target, *, body: bool) -> list[tuple[str, str]]:
    """The headers that follow a redirect; ``body``: whether the body does."""
    kept = [(name, value) for name, value in headers if body or not name.lower().startswith("content-")]
    if before.origin == after.origin:
        return kept
    return [(name, value) for name, value in kept if name.lower() in CARRIED]
