"""The reader of DER: what it reads, and all that it does not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.attestation import der
from tests.support.mint_snp import integer, oid, tlv


def time(tag: int, text: str) -> der.Value:
    return der.read(tlv(tag, text.encode()))


@given(st.integers(min_value=0, max_value=2**600))
def test_integers(value: int) -> None:
    assert der.read(integer(value)).integer() == value


@given(st.binary(max_size=70_000))
def test_lengths(content: bytes) -> None:
    value = der.read(tlv(der.OCTET_STRING, content))
    assert value.octets() == content
    assert value.encoded == tlv(der.OCTET_STRING, content)


@pytest.mark.parametrize(
    "dotted", ["2.5.4.3", "1.3.6.1.4.1.3704.1.3.8", "1.2.840.113549.1.1.10", "0.9.2342", "2.999.1"]
)
def test_identifiers(dotted: str) -> None:
    encoded = b"\x06\x03\x88\x37\x01" if dotted == "2.999.1" else oid(dotted)
    assert der.read(encoded).oid() == dotted == x509.ObjectIdentifier(dotted).dotted_string


def test_sequences() -> None:
    value = der.read(tlv(der.SEQUENCE, integer(1), tlv(der.SET, integer(2)), tlv(der.BOOLEAN, b"\xff")))
    first, second, third = value.children()
    assert (first.integer(), second.children(der.SET)[0].integer(), third.boolean()) == (1, 2, True)
    assert der.read(b"\x30\x00").children() == []


def test_strings() -> None:
    assert der.read(tlv(der.UTF8_STRING, "é".encode())).text() == "é"
    assert der.read(tlv(der.IA5_STRING, b"Milan-B0")).text() == "Milan-B0"
    assert der.read(tlv(der.BIT_STRING, b"\x00\x01")).bits() == b"\x01"


def test_times() -> None:
    assert time(der.UTC_TIME, "260205010433Z").time() == datetime(2026, 2, 5, 1, 4, 33, tzinfo=UTC)
    assert time(der.UTC_TIME, "491231235959Z").time().year == 2049
    assert time(der.UTC_TIME, "500101000000Z").time().year == 1950
    assert time(der.GENERALIZED_TIME, "20500101000000Z").time() == datetime(2050, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02",
        b"\x02\x01",
        b"\x02\x02\x01",
        b"\x02\x01\x01\x00",
        b"\x30\x80\x02\x01\x01\x00\x00",
        b"\x02\x81\x01\x01",
        b"\x04\x82\x00\x80" + bytes(128),
        b"\x04\x85\x00\x00\x00\x00\x01\x00",
        b"\x04\x84\xff\xff\xff\xff",
        b"\x04\x82\x01",
        b"\x1f\x81\x01\x00",
        b"\xff\x01\x00",
    ],
)
def test_what_is_no_der(data: bytes) -> None:
    with pytest.raises(der.DerError):
        der.read(data)


@pytest.mark.parametrize("data", ["0200", "020180", "02020001", "0202007f", "0400", "030101"])
def test_what_is_no_integer(data: str) -> None:
    with pytest.raises(der.DerError):
        der.read(bytes.fromhex(data)).integer()


@pytest.mark.parametrize("data", ["0600", "06022a86", "0603800001", "06042a800101", "020101"])
def test_what_is_no_identifier(data: str) -> None:
    with pytest.raises(der.DerError):
        der.read(bytes.fromhex(data)).oid()


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (der.UTC_TIME, "2602050104Z"),
        (der.UTC_TIME, "260205010433+"),
        (der.UTC_TIME, "26 205010433Z"),
        (der.UTC_TIME, "261305010433Z"),
        (der.UTC_TIME, "260230010433Z"),
        (der.UTC_TIME, "+60205010433Z"),
        (der.UTC_TIME, "26020501_433Z"),
        (der.UTC_TIME, "٢60205010433Z"),
        (der.GENERALIZED_TIME, "260205010433Z"),
        (der.GENERALIZED_TIME, "20260205010433.5Z"),
        (der.UTC_TIME, ""),
        (der.IA5_STRING, "260205010433Z"),
    ],
)
def test_what_is_no_time(tag: int, text: str) -> None:
    with pytest.raises(der.DerError):
        time(tag, text).time()


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (b"\x01\x01\x01", der.Value.boolean),
        (b"\x01\x00", der.Value.boolean),
        (b"\x03\x02\x01\x02", der.Value.bits),
        (b"\x03\x00", der.Value.bits),
        (b"\x0c\x01\xff", der.Value.text),
        (b"\x16\x01\x80", der.Value.text),
        (b"\x04\x01A", der.Value.text),
        (b"\x31\x00", der.Value.children),
        (b"\x30\x03\x02\x02\x01", der.Value.children),
        (b"\x0c\x01A", der.Value.octets),
    ],
)
def test_what_is_of_another_type(data: bytes, read: object) -> None:
    assert callable(read)
    with pytest.raises(der.DerError):
        read(der.read(data))


@given(st.binary(max_size=64))
def test_whatever_is_read_is_read_or_refused(data: bytes) -> None:
    try:
        value = der.read(data)
    except der.DerError:
        return
    assert value.encoded == data
