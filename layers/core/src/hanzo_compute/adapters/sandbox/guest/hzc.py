"""The platform, as a function in Python reaches it: ``import hzc``.

Every call goes through a descriptor that the sandbox answers. What the function was not granted raises Denied.
"""

import json as _json
import os as _os

ANY = -1
"""As ``expect``: whatever is there."""
ABSENT = 0
"""As ``expect``: nothing must be there."""

_opened: list[int] = []


class HostError(Exception):
    """The platform has refused a call; ``status`` is its number."""

    status = 0


class NotFound(HostError):
    """There is no such thing."""

    status = -1


class Denied(HostError):
    """The function was not granted this: see ``hzc fn deploy --help``."""

    status = -2


class Invalid(HostError):
    """The call is none that makes sense."""

    status = -3


class Conflict(HostError):
    """The entry is another than was expected."""

    status = -4


class Limit(HostError):
    """A budget of the call is used up."""

    status = -5


class Unavailable(HostError):
    """It could not be done now."""

    status = -6


class TimedOut(HostError):
    """No time was left."""

    status = -7


_ERRORS = {each.status: each for each in (NotFound, Denied, Invalid, Conflict, Limit, Unavailable, TimedOut)}


def _call(name: str, *args: bytes | int) -> tuple[int, bytes]:
    request = [name.encode(), b"\0"]
    for arg in args:
        value = arg if isinstance(arg, bytes) else arg.to_bytes(8, "little", signed=True)
        request += [len(value).to_bytes(4, "little"), value]
    if not _opened:  # by this name, in whatever folder, the sandbox gives its descriptor
        _opened.append(_os.open("/in/hzc.call", _os.O_RDWR))
    fd = _opened[0]
    _os.write(fd, b"".join(request))
    status = int.from_bytes(_os.read(fd, 8), "little", signed=True)
    if status < 0:
        raise _ERRORS.get(status, HostError)(f"{name}: {_ERRORS.get(status, HostError).__doc__}")
    pieces = []
    while piece := _os.read(fd, 1 << 16):
        pieces.append(piece)
    return status, b"".join(pieces)


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def get(key: str | bytes) -> tuple[bytes | None, int]:
    """The value (bytes) and version of an entry, or ``(None, 0)``."""
    try:
        _, found = _call("kv_get", _bytes(key))
    except NotFound:
        return None, 0
    return found[8:], int.from_bytes(found[:8], "little", signed=True)


def put(key: str | bytes, value: str | bytes, expect: int = ANY) -> None:
    """Write an entry, if it is as expected: ANY, ABSENT or its version. Raises Conflict."""
    _call("kv_put", _bytes(key), _bytes(value), expect)


def delete(key: str | bytes, expect: int = ANY) -> None:
    """Remove an entry, if it is as expected. Raises Conflict."""
    _call("kv_delete", _bytes(key), expect)


def secret(name: str) -> bytes:
    """A secret that the function was granted, as bytes."""
    return _call("secret", _bytes(name))[1]


def http(
    method: str,
    url: str,
    headers: dict[str, str] | None = None,
    body: str | bytes = b"",
    redirect: str = "manual",
) -> tuple[int, dict[str, str], bytes]:
    """Call another host: status, headers and body."""
    head = {"method": method, "url": url, "headers": headers or {}, "redirect": redirect}
    _, found = _call("http", _json.dumps(head).encode(), _bytes(body))
    line, _, data = found.partition(b"\n")
    answer = _json.loads(line)
    return answer["status"], answer["headers"], data


def log(text: str, level: str = "info") -> None:
    """A line of the function's log; level debug, info, warning or error."""
    _call("log", ("debug", "info", "warning", "error").index(level), _bytes(text))


def output(name: str, data: str | bytes) -> None:
    """Append to a named output."""
    _call("output", _bytes(name), _bytes(data))
