"""Origins that a function may call: ``scheme://host[:port]`` in the one form that they are compared in."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NoReturn

from pydantic_core import PydanticCustomError

DEFAULT_PORTS: Final = {"https": 443, "http": 80}
ORIGIN_MAX: Final = 300
"""Characters of an origin."""

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AMBIGUOUS: Final = frozenset("ßς\u200c\u200d")
"""Characters that the two versions of IDNA write differently."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_V6: Final = ipaddress.ip_network("2000::/3")
_CLOSED_V4: Final = [
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
_CLOSED_V6: Final = [
    # Protocol assignments (Teredo and ORCHID among them) and documentation.
    ipaddress.ip_network(text)
    for text in ("2001::/23", "2001:db8::/32", "3fff::/20")
]
METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
"""Where clouds give credentials to whoever asks: never called, whatever else an operator permits."""


def normalised(text: str) -> str:
    """The origin in lower case, its host in IDNA's ASCII form, without the port that its scheme has anyway.

    Raises:
        PydanticCustomError: it is no origin, or one that no function may call.
    """
    scheme, found, rest = text.partition("://")
    scheme = scheme.lower()
    if len(text) > ORIGIN_MAX or not found or scheme not in DEFAULT_PORTS:
        _refuse("must be an origin like https://api.example.com or https://api.example.com:8443")
    if "@" in rest:
        _refuse("must have no user name or password: send credentials in a header, from a secret")
    if any(char in "/?#\\" for char in rest):
        _refuse("must end with the host or its port: an origin has no path")
    if "*" in rest:
        _refuse("must name one host: there are no wildcards, list each")
    if rest.startswith("["):
        host, closed, port = rest[1:].partition("]")
        colon, port = port[:1], port[1:]
        if not closed or colon not in ("", ":"):
            _refuse("has an IPv6 address without its closing bracket before the port")
        host = f"[{_address(host, ipaddress.IPv6Address)}]"
    else:
        host, colon, port = rest.partition(":")
        host = _host(host)
    if not colon:
        return f"{scheme}://{host}"
    if not _PORT.fullmatch(port) or int(port) > 65535:
        _refuse("has a port that is no number from 1 to 65535")
    return f"{scheme}://{host}" if int(port) == DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{port}"


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the internet, also where it only wraps one of IPv4.

    The ranges are listed here: what the standard library calls global differs from release to release.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address not in METADATA and not any(address in network for network in _CLOSED_V4)
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    # All of the internet is in 2000::/3: what lies outside is local, or wraps an IPv4 address in an old form.
    open_range = address in _GLOBAL_V6 and not any(address in network for network in _CLOSED_V6)
    return open_range and address not in METADATA


def _host(text: str) -> str:
    if _AMBIGUOUS & set(text):
        _refuse("has a letter that is written in two ways: give the host in its xn-- form")
    try:
        host = text.lower().encode("idna").decode().lower()
    except UnicodeError:
        host = ""
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        _refuse("has a host that is no name in the DNS")
    # What ends with a number is an IPv4 address to whoever connects, however it is written.
    return _address(host, ipaddress.IPv4Address) if _NUMERIC.fullmatch(labels[-1]) else host


def _address(text: str, kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> str:
    try:
        address = kind(text)
    except ValueError:
        _refuse("has an IP address that is none")
    if getattr(address, "scope_id", None) is not None or not is_public(address):
        _refuse("has an IP address that is not of the internet: private, local and reserved ranges are not called")
    return str(address)


def _refuse(message: str) -> NoReturn:
    raise PydanticCustomError("origin", "{why}", {"why": message})
