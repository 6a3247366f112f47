"""What the sections of a policy are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints


class Strict(BaseModel):
    """A section: fields it does not know are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _lower(value: str) -> str:
    return value.lower()


Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{2}){1,128}$"), AfterValidator(_lower)]
"""Bytes as hex digits, of any case in a policy."""
