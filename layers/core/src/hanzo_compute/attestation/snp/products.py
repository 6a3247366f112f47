"""Product lines of EPYC processors: how reports and keys name them, and how they lay out a TCB version.

Sources: AMD 56860 (SEV-SNP firmware ABI) 2.2 and table 23; AMD 57230 (VCEK certificate and KDS interface) 1.5 and 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Line(StrEnum):
    """A product line: each has a root of its own. The value is what AMD's names end in."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"

    @property
    def chip_id_size(self) -> int:
        """Bytes of the hardware id; the rest of a report's 64 are zero."""
        return 8 if self is Line.TURIN else 64

    @property
    def layout(self) -> Mapping[str, int]:
        """Which byte of a TCB version has which component."""
        return _TURIN if self is Line.TURIN else _MILAN


_MILAN: Final = {"bl": 0, "tee": 1, "spl4": 2, "spl5": 3, "spl6": 4, "spl7": 5, "snp": 6, "ucode": 7}
_TURIN: Final = {"fmc": 0, "bl": 1, "tee": 2, "snp": 3, "spl5": 4, "spl6": 5, "spl7": 6, "ucode": 7}
COMPONENTS: Final = ("fmc", "bl", "tee", "snp", "ucode")
"""Those with a meaning; the others are reserved."""
_MEANT: Final = tuple((name, _MILAN[name]) for name in COMPONENTS if name in _MILAN)
_MEANT_TURIN: Final = tuple((name, _TURIN[name]) for name in COMPONENTS if name in _TURIN)
# Bergamo and Siena are Genoa's line: same root, same layout.
_NAMES: Final = {
    "Milan": Line.MILAN,
    "Genoa": Line.GENOA,
    "Bergamo": Line.GENOA,
    "Siena": Line.GENOA,
    "Turin": Line.TURIN,
}
# Family and the high half of the model, which are extended and base added up.
_CPUID: Final = {
    (0x19, 0x0): Line.MILAN,
    (0x19, 0x1): Line.GENOA,
    (0x19, 0xA): Line.GENOA,
    (0x1A, 0x0): Line.TURIN,
    (0x1A, 0x1): Line.TURIN,
}


def by_cpuid(family: int, model: int) -> Line | None:
    """The line of a processor, None if it is not one that is known here."""
    return _CPUID.get((family, model >> 4))


def by_name(product: str) -> Line | None:
    """The line of a certificate's ``productName``: a product, with or without its stepping (``Milan-B0``)."""
    return _NAMES.get(product.split("-", 1)[0])


def components(tcb: bytes, line: Line | None) -> dict[str, int]:
    """The components of a TCB version; of an unknown line they are taken to be laid out as Milan's."""
    return {name: tcb[index] for name, index in (_MEANT_TURIN if line is Line.TURIN else _MEANT)}


def at_least(tcb: bytes, least: bytes) -> bool:
    """Whether no component is below that of ``least``."""
    return tcb == least or all(mine >= other for mine, other in zip(tcb, least, strict=True))
