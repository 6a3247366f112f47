"""Money: an integer of a token's base units with the token's id. In JSON the units are a decimal string."""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

TOKEN: Final = r"^[a-z][A-Za-z0-9:/._-]{0,127}$"  # noqa: S105 — a token of money
UNITS_MAX: Final = 2**256 - 1
"""What a uint256 can hold."""
_UNITS: Final = re.compile(r"0|[1-9][0-9]{0,77}")


def parse_units(text: str) -> int:
    """Base units from their decimal string.

    Raises:
        ValueError: it is none, or over ``UNITS_MAX``.
    """
    if not _UNITS.fullmatch(text) or int(text) > UNITS_MAX:
        raise ValueError("is no number of base units")
    return int(text)


def show(units: int, decimals: int, symbol: str) -> str:
    """An amount for people: ``0.00125 credit``."""
    whole, rest = divmod(units, 10**decimals)
    fraction = f"{rest:0{decimals}d}".rstrip("0") if decimals else ""
    return f"{whole}{'.' if fraction else ''}{fraction} {symbol}"


class MaxPrice(BaseModel):
    """The most that a job may cost, all its attempts together."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    token: str = Field(pattern=TOKEN, description="Id of the token, as quotes name it.")
    units: str = Field(description="Base units, as a decimal string; a JSON integer is taken, too.")

    @model_validator(mode="before")
    @classmethod
    def _integer(cls, value: Any) -> Any:
        if isinstance(value, dict) and type(value.get("units")) is int:
            return value | {"units": str(value["units"])}
        return value

    @model_validator(mode="after")
    def _whole(self) -> MaxPrice:
        try:
            parse_units(self.units)
        except ValueError:
            raise PydanticCustomError(
                "units", "must be a whole number of base units below 2^256", {"field": "units"}
            ) from None
        return self
