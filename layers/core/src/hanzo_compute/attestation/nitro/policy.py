"""The section of a policy on evidence of Nitro."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from hanzo_compute.attestation.sections import Strict

Register = Annotated[
    str,
    StringConstraints(pattern=r"^([0-9a-fA-F]{64}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128})$"),
    AfterValidator(str.lower),
]
"""32, 48 or 64 bytes as hex digits; those of today's enclaves have 48."""


class NitroPolicy(Strict):
    """What is asked of an enclave. One that is being debugged is refused by every policy."""

    pcrs: dict[Annotated[int, Field(ge=0, le=31)], Annotated[list[Register], Field(min_length=1)]] = Field(
        default={},
        description=(
            "Reference values by index of the register: each that is named must be one of its values. What runs is"
            " told by PCR0 (the image), by PCR8 (who signed it), or by PCR1 and PCR2 (kernel and application);"
            " others (3 role, 4 instance) narrow that down."
        ),
    )
    max_age_s: int = Field(
        default=300, ge=1, le=86_400, description="Seconds that a document may be old: its timestamp against now."
    )
    future_skew_s: int = Field(
        default=60, ge=0, le=3_600, description="Seconds that its timestamp may be after now, for clocks that differ."
    )
