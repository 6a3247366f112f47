"""TPMS_ATTEST, what a TPM signs (TPM 2.0 Library, part 2, section 10.12.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.tpm.wire import DIGEST_MAX, NAME_MAX, Reader

MESSAGE_MAX: Final = 2048
"""Bytes; TPMS_ATTEST of the largest quote has fewer."""
GENERATED: Final = 0xFF544347
"""TPM_GENERATED_VALUE: a restricted key signs nothing from outside that starts with it."""
QUOTE: Final = 0x8018
"""TPM_ST_ATTEST_QUOTE."""
_DATA_MAX: Final = 2 + DIGEST_MAX
_BANKS_MAX: Final = 16
_SELECT: Final = (3, 4)


@dataclass(frozen=True, slots=True)
class Attest:
    """What was signed. Only a quote has a selection and a digest."""

    magic: int
    type: int
    qualified_signer: bytes
    """Name of the key within its hierarchy: the algorithm and the digest."""
    extra_data: bytes
    """The caller's qualifying data."""
    clock: int
    """Milliseconds that the TPM was powered since it was cleared."""
    reset_count: int
    restart_count: int
    safe: int
    """1: no value of the clock that was told before was larger."""
    firmware: int
    selection: Mapping[int, tuple[int, ...]]
    """PCRs that are quoted, ascending, by the algorithm of their bank, in the order of the digest."""
    pcr_digest: bytes

    def claims(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "type": f"{self.type:04x}",
            "qualified_signer": self.qualified_signer.hex(),
            "extra_data": self.extra_data.hex(),
            "clock": self.clock,
            "reset_count": self.reset_count,
            "restart_count": self.restart_count,
            "safe": self.safe,
            "firmware": f"0x{self.firmware:016x}",
            "pcr_select": [[bank, list(indices)] for bank, indices in self.selection.items()],
            "pcr_digest": self.pcr_digest.hex(),
            "trail": 0,
        }


def parse(message: bytes) -> Attest:
    """What a message says. Magic and type are the caller's to judge; of what is no quote only the head is read.

    Raises:
        Unreadable: it is no TPMS_ATTEST, or has bytes behind it.
    """
    if len(message) > MESSAGE_MAX:
        raise Unreadable(f"the message has {len(message)} bytes; at most {MESSAGE_MAX} are read")
    reader = Reader(message, "the message")
    magic, kind = reader.number(4), reader.number(2)
    signer, extra = reader.sized(NAME_MAX), reader.sized(_DATA_MAX)
    clock, resets, restarts, safe = reader.number(8), reader.number(4), reader.number(4), reader.number(1)
    if safe > 1:
        raise Unreadable(f"the message says {safe} where only yes (1) and no (0) are possible: clockInfo.safe")
    firmware = reader.number(8)
    selection: dict[int, tuple[int, ...]] = {}
    digest = b""
    if kind == QUOTE:
        selection = _selection(reader)
        digest = reader.sized(DIGEST_MAX)
        reader.end()
    return Attest(magic, kind, signer, extra, clock, resets, restarts, safe, firmware, selection, digest)


def _selection(reader: Reader) -> dict[int, tuple[int, ...]]:
    """TPML_PCR_SELECTION, section 10.9.7."""
    count = reader.number(4)
    if count > _BANKS_MAX:
        raise Unreadable(f"the message selects PCRs of {count} banks; at most {_BANKS_MAX} are possible")
    selection: dict[int, tuple[int, ...]] = {}
    for _ in range(count):
        bank, size = reader.number(2), reader.number(1)
        if size not in _SELECT:
            raise Unreadable(f"the message selects PCRs with {size} bytes; a TPM has 3 or 4")
        bits = int.from_bytes(reader.take(size), "little")
        if bank in selection:
            raise Unreadable(f"the message selects PCRs of the bank 0x{bank:04x} twice")
        selection[bank] = tuple(index for index in range(8 * size) if bits >> index & 1)
    return selection
