"""A value in the body of a request: text, or any bytes in base64."""

from __future__ import annotations

import base64
import binascii

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Value(BaseModel):
    """One of ``value`` and ``value_base64``; neither is shown where the model is."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    value: str | None = Field(default=None, repr=False, description="The value, if it is text.")
    value_base64: str | None = Field(default=None, repr=False, description="The value in base64.")

    @model_validator(mode="after")
    def _one(self) -> Value:
        if (self.value is None) == (self.value_base64 is None):
            raise PydanticCustomError("one_of", "give one of value and value_base64", {"field": "value"})
        try:
            base64.b64decode(self.value_base64 or "", validate=True)
        except (binascii.Error, ValueError):
            raise PydanticCustomError("base64", "is not valid base64", {"field": "value_base64"}) from None
        return self

    @property
    def data(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.value_base64) if self.value_base64 is not None else (self.value or "").encode()
