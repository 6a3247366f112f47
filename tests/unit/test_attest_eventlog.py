"""Logs of measured events: what is read, what is refused, and what the registers hold after a replay."""

from __future__ import annotations

import hashlib
import struct

import pytest

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.eventlog import EV_NO_ACTION, LOG_MAX, SHA1, SHA256, SHA384, parse, replay
from tests.support.mint_eventlog import event, extended, header, legacy

BOTH = (SHA256, SHA384)
LOG = header(BOTH) + event(0, 8, b"firmware", BOTH) + event(4, 0xD, b"", BOTH) + event(0, 4, bytes(4), BOTH)


def test_events_are_read_with_all_their_digests() -> None:
    events = parse(LOG)
    assert [(each.index, each.type, each.data) for each in events[1:]] == [
        (0, 8, b"firmware"),
        (4, 0xD, b""),
        (0, 4, bytes(4)),
    ]
    assert events[1].digests == {
        SHA256: hashlib.sha256(b"firmware").digest(),
        SHA384: hashlib.sha384(b"firmware").digest(),
    }


@pytest.mark.parametrize("algorithm", BOTH)
def test_replay_extends_each_register_in_order(algorithm: int) -> None:
    assert replay(parse(LOG), algorithm) == {
        0: extended([b"firmware", bytes(4)], algorithm),
        4: extended([b""], algorithm),
    }


def test_no_action_is_extended_nowhere() -> None:
    log = header([SHA384]) + event(1, EV_NO_ACTION, b"a note") + event(1, 4, b"x")
    assert replay(parse(log), SHA384) == {1: extended([b"x"])}


def test_a_startup_locality_is_what_pcr_0_starts_with() -> None:
    log = header([SHA256]) + event(0, EV_NO_ACTION, b"StartupLocality\0\x03", [SHA256]) + event(0, 8, b"x", [SHA256])
    start = bytes(31) + b"\x03"
    assert replay(parse(log), SHA256)[0] == hashlib.sha256(start + hashlib.sha256(b"x").digest()).digest()


@pytest.mark.parametrize("data", [b"StartupLocality\0", b"StartupLocality\0\x03\x00"])
def test_a_startup_locality_of_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match="startup locality"):
        replay(parse(header([SHA256]) + event(0, EV_NO_ACTION, data, [SHA256])), SHA256)


def test_a_startup_locality_after_pcr_0_was_extended_is_refused() -> None:
    late = event(0, 8, b"x", [SHA256]) + event(0, EV_NO_ACTION, b"StartupLocality\0\x03", [SHA256])
    with pytest.raises(Unreadable, match="startup locality"):
        replay(parse(header([SHA256]) + late), SHA256)


def test_a_log_of_the_old_form_has_sha1_alone() -> None:
    digest = hashlib.sha1(b"x").digest()
    events = parse(legacy(2, 4, digest, b"x") + legacy(2, 4, digest, b"x"))
    assert replay(events, SHA1) == {2: extended([b"x", b"x"], SHA1)}
    with pytest.raises(Unreadable, match="event 0 of the log has no digest"):
        replay(events, SHA256)


@pytest.mark.parametrize("filling", [bytes(500), b"\xff" * 500, b"\xff" * 100 + bytes(100)])
def test_the_filling_of_the_area_is_no_event(filling: bytes) -> None:
    assert parse(LOG + filling) == parse(LOG)


def test_an_algorithm_that_cannot_be_replayed_is_refused() -> None:
    with pytest.raises(Unreadable, match="0x0012"):
        replay(parse(LOG), 0x0012)


def _spec(count: int, body: bytes) -> bytes:
    return legacy(
        0, EV_NO_ACTION, bytes(20), b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 106, 2, count) + body
    )


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (b"", "cut off"),
        (LOG[:40], "cut off"),
        (LOG[:-8], "cut off"),
        (LOG + b"rest", "cut off"),
        (bytes(LOG_MAX + 1), "the limit is"),
        (_spec(0, b"\0"), "names 0 algorithms"),
        (_spec(17, bytes(69)), "names 17 algorithms"),
        (_spec(2, struct.pack("<HHHH", SHA256, 32, SHA256, 32) + b"\0"), "twice or a wrong size"),
        (_spec(1, struct.pack("<HH", SHA256, 20) + b"\0"), "twice or a wrong size"),
        (_spec(1, struct.pack("<HH", 0x12, 0) + b"\0"), "twice or a wrong size"),
        (_spec(1, struct.pack("<HH", SHA256, 32) + b"\5"), "bytes, not"),
        (header([SHA256]) + event(0, 8, b"x", [SHA384]), "unnamed or twice"),
        (header([SHA256, SHA384]) + event(0, 8, b"x", [SHA256, SHA256]), "unnamed or twice"),
        (header([SHA256]) + event(0, 8, b"x", BOTH), "has 2 digests"),
        (header([SHA256]) + struct.pack("<III", 1, 8, 0) + struct.pack("<I", 1) + b"x", "has 0 digests"),
        (header([SHA256]) + event(0, 8, b"x", [SHA256])[:-5] + b"\xff\xff\xff\x7fx", "cut off"),
    ],
)
def test_what_is_not_of_the_form_is_refused(log: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        parse(log)
