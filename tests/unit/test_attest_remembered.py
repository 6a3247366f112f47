"""What is remembered of evidence: results of what is small, by its bytes, and never of what is large."""

from __future__ import annotations

import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hanzo_compute.attestation.remembered import remembered
from hanzo_compute.attestation.snp import chain, endorsements


def test_what_is_small_is_made_once() -> None:
    made: list[bytes] = []

    @remembered(2, 8)
    def double(data: bytes, others: tuple[bytes, ...] = ()) -> bytes:
        made.append(data)
        return data + data

    assert [double(b"ab", (b"c",)) for _ in range(3)] == [b"abab"] * 3
    assert made == [b"ab"]
    assert double.cache_info().currsize == 1


def test_what_is_large_is_made_each_time_and_not_kept() -> None:
    made: list[bytes] = []

    @remembered(2, 8)
    def double(data: bytes, others: tuple[bytes, ...] = ()) -> bytes:
        made.append(data)
        return data + data

    assert [double(b"abc", (b"123", b"456")) for _ in range(3)] == [b"abcabc"] * 3
    assert made == [b"abc"] * 3
    assert double.cache_info().currsize == 0


def certificate(junk: int) -> bytes:
    """A certificate that issues itself, with so much in it that nobody knows."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin, begin)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.9.9"), os.urandom(junk))
    made = builder.add_extension(unknown, critical=False).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def test_files_full_of_junk_are_read_and_not_kept() -> None:
    endorsements._sorted.cache_clear()
    chain.authority.cache_clear()
    for _ in range(5):
        found = endorsements.take({"chain": certificate(15_000) + certificate(15_000)})
        assert len(found.authorities) == 2
    assert endorsements._sorted.cache_info().currsize == 0
    endorsements.take({"chain": certificate(100)})
    assert endorsements._sorted.cache_info().currsize == 1
