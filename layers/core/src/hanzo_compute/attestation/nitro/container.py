"""What follows a document that was cut out of dstack's container: recorded documents come with it.

dstack-attest stores ``document ‖ events ‖ report data ‖ config`` in SCALE: events are pairs of a name and a payload,
report data are 64 bytes (and the document's user data), config is text. Strings and lists have a compact length first.
None of it is signed, and nothing of it is believed; that it is there is the one reason for bytes after a document.
"""

from __future__ import annotations

from typing import Final

from hanzo_compute.attestation.checks import Unreadable

REPORT_DATA: Final = 64


def report_data(rest: bytes) -> bytes:
    """The report data that the rest of a container has. Raises Unreadable if it is no such rest."""
    count, at = _compact(rest, 0)
    for _ in range(2 * count):
        at = _string(rest, at)
    data, at = rest[at : at + REPORT_DATA], at + REPORT_DATA
    if _string(rest, at) != len(rest):
        raise Unreadable("bytes follow the container")
    return data


def _string(data: bytes, at: int) -> int:
    """Where the string that begins at ``at`` ends."""
    size, at = _compact(data, at)
    if at + size > len(data):
        raise Unreadable("the container ends within a string")
    return at + size


def _compact(data: bytes, at: int) -> tuple[int, int]:
    """A compact integer of SCALE, of less than 2^30, and where it ends."""
    mode = data[at] & 3 if at < len(data) else 3
    width = (1, 2, 4, 0)[mode]
    if not width or at + width > len(data):
        raise Unreadable("the container has no length where one should be")
    return int.from_bytes(data[at : at + width], "little") >> 2, at + width
