"""Values of PCRs that come with a quote: JSON, or what ``tpm2_quote --pcr`` writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.tpm.quote import Attest
from hanzo_compute.attestation.tpm.wire import HASH_NAMES, HASHES, digest, read_json

PCRS_MAX: Final = 32 * 1024
"""Bytes; 24 PCRs of five banks have fewer than 16 KiB as JSON."""
Values = Mapping[int, Mapping[int, bytes]]
"""By the bank's algorithm and the PCR's number."""

_BANKS: Final = 16
_SELECTION: Final = struct.Struct("<HB4sx")
_LIST: Final = 8
_DIGEST: Final = struct.Struct("<H64s")
_FILE_HEAD: Final = 4 + _BANKS * _SELECTION.size
_FILE_LIST: Final = 4 + _LIST * _DIGEST.size


def parse(data: bytes, attest: Attest) -> Values:
    """The values that were quoted; others in the file are left out, because nothing speaks for them.

    JSON is a list by number, an object by number, or an object of these by bank (``sha256``); one without banks is of
    the only bank that the quote selects.

    Raises:
        Unreadable: it is of no such form, or lacks a value that was quoted.
    """
    if len(data) > PCRS_MAX:
        raise Unreadable(f"the PCR values have {len(data)} bytes; at most {PCRS_MAX} are read")
    wanted = {bank: indices for bank, indices in attest.selection.items() if indices}
    if not wanted:
        return {}
    found = _json(data, wanted) if data.lstrip()[:1] in {b"[", b"{"} else _tools(data, wanted)
    return {bank: {index: _value(found, bank, index) for index in indices} for bank, indices in wanted.items()}


def quoted_digest(values: Values, algorithm: int) -> bytes:
    """What a quote over these values has as its digest (part 3, section 18.4). Raises Unreadable."""
    return digest(algorithm, b"".join(value for bank in values.values() for value in bank.values()))


def _value(found: Values, bank: int, index: int) -> bytes:
    value = found.get(bank, {}).get(index)
    if value is None:
        raise Unreadable(f"the PCR values lack PCR {index} of the bank {HASH_NAMES.get(bank, hex(bank))}")
    hasher = HASHES.get(bank)
    if hasher is None or len(value) != hasher().digest_size:
        raise Unreadable(f"PCR {index} has {len(value)} bytes, which is no digest of {HASH_NAMES.get(bank, hex(bank))}")
    return value


def _json(data: bytes, wanted: Mapping[int, tuple[int, ...]]) -> dict[int, dict[int, bytes]]:
    document = read_json(data, "the PCR values")
    banks = {number: name for number, name in HASH_NAMES.items() if isinstance(document, dict) and name in document}
    if banks:
        return {number: _indexed(document[name]) for number, name in banks.items()}
    if len(wanted) != 1:
        raise Unreadable("the PCR values do not say of which bank they are, and the quote selects several")
    return {next(iter(wanted)): _indexed(document)}


def _indexed(values: Any) -> dict[int, bytes]:
    if isinstance(values, list):
        values = {str(index): value for index, value in enumerate(values)}
    try:
        found = {int(index): bytes.fromhex(value) for index, value in values.items()}
    except (ValueError, TypeError, AttributeError):
        raise Unreadable("the PCR values are not hex digits by number") from None
    if list(map(str, found)) != list(values):
        raise Unreadable("the PCR values are by numbers that are not written as usual")
    return found


def _tools(data: bytes, wanted: Mapping[int, tuple[int, ...]]) -> dict[int, dict[int, bytes]]:
    """The C structures of tpm2-tools, little-endian: TPML_PCR_SELECTION, a count, and so many TPML_DIGEST of eight."""
    if len(data) < _FILE_HEAD + 4:
        raise Unreadable(f"the PCR values have {len(data)} bytes: neither JSON nor a file of tpm2-tools")
    order = _tools_selection(data)
    (lists,) = struct.unpack_from("<I", data, _FILE_HEAD)
    if len(data) != _FILE_HEAD + 4 + lists * _FILE_LIST:
        raise Unreadable(f"the PCR values have {len(data)} bytes, which are not {lists} lists of digests")
    digests = [value for number in range(lists) for value in _tools_list(data, _FILE_HEAD + 4 + number * _FILE_LIST)]
    if len(digests) != len(order):
        raise Unreadable(f"the PCR values select {len(order)} PCRs and have {len(digests)}")
    found: dict[int, dict[int, bytes]] = {bank: {} for bank in wanted}
    for (bank, index), value in zip(order, digests, strict=True):
        found.setdefault(bank, {})[index] = value
    return found


def _tools_selection(data: bytes) -> list[tuple[int, int]]:
    (count,) = struct.unpack_from("<I", data)
    if count > _BANKS:
        raise Unreadable(f"the PCR values are of {count} banks; at most {_BANKS} are possible")
    order: list[tuple[int, int]] = []
    for number in range(count):
        bank, size, select = _SELECTION.unpack_from(data, 4 + number * _SELECTION.size)
        bits = int.from_bytes(select[: min(size, len(select))], "little")
        order += [(bank, index) for index in range(32) if bits >> index & 1]
    return order


def _tools_list(data: bytes, at: int) -> list[bytes]:
    (count,) = struct.unpack_from("<I", data, at)
    if count > _LIST:
        raise Unreadable(f"a list of the PCR values has {count} digests; there is room for {_LIST}")
    values = []
    for number in range(count):
        size, value = _DIGEST.unpack_from(data, at + 4 + number * _DIGEST.size)
        if size > len(value):
            raise Unreadable(f"a PCR value says that it has {size} bytes; there is room for {len(value)}")
        values.append(value[:size])
    return values
