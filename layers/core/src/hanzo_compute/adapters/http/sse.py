"""Server-sent events: the part of the WHATWG format that the platform uses."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``id`` is None unless the event itself carried one."""

    event: str
    data: str
    id: str | None = None


def events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """The events in a byte stream; what is not ended by an empty line is dropped, as the format demands."""
    kind, data, last_id = "message", list[str](), None
    for line in _lines(pieces):
        if not line:
            if data:
                yield Event(kind, "\n".join(data), last_id)
            kind, data, last_id = "message", [], None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Lines without their ends. The platform ends lines with LF; CRLF is taken too."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pending = ""
    for piece in pieces:
        *whole, pending = (pending + decoder.decode(piece)).split("\n")
        yield from (line.removesuffix("\r") for line in whole)
