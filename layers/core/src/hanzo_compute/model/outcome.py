"""What an attempt came to: sent by the agent, stored with the attempt, shown to the tenant."""

from __future__ import annotations

import base64
import binascii
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from hanzo_compute.model import bounds
from hanzo_compute.model.canonical import EXACT_MAX
from hanzo_compute.model.spec import Text
from hanzo_compute.model.states import State

Count = Annotated[int, Field(ge=0, le=EXACT_MAX)]


class Category(StrEnum):
    """Why an attempt ended, in one word."""

    OK = "ok"
    EXIT = "exit"  # the program returned a code other than 0
    TRAP = "trap"  # the program did what the sandbox forbids (unreachable, out of bounds, …)
    OOM = "oom"
    FUEL = "fuel"
    INVALID_PROGRAM = "invalid_program"  # it cannot be compiled or linked: no retry can help
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    PLATFORM = "platform"  # the runner failed, not the program: costs the tenant no retry


FINAL_STATE: Final[dict[Category, State]] = {
    Category.OK: State.SUCCEEDED,
    Category.EXIT: State.FAILED,
    Category.TRAP: State.FAILED,
    Category.OOM: State.FAILED,
    Category.FUEL: State.FAILED,
    Category.INVALID_PROGRAM: State.FAILED,
    Category.TIMEOUT: State.TIMED_OUT,
    Category.CANCELLED: State.CANCELLED,
    Category.DEADLINE: State.EXPIRED,
    Category.PLATFORM: State.DEAD,
}
"""The state that an attempt of each category leads to when no attempt is left."""

RETRIED: Final = frozenset({Category.EXIT, Category.TRAP, Category.OOM, Category.FUEL, Category.TIMEOUT})
"""Categories that the job's own ``retry`` covers."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Usage(_Strict):
    """What an attempt used. Times in milliseconds, memory in bytes; fuel in WASM instructions."""

    wall_ms: Count = 0
    cpu_ms: Count = 0
    memory_peak_bytes: Count = 0
    memory_mib_ms: Count = Field(default=0, description="Memory limit in MiB times wall time in ms.")
    fuel: Count | None = None
    gpu_ms: Count = 0
    egress_bytes: Count = 0


class Output(_Strict):
    """One output: small ones inline in base64, larger ones as a blob."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$")]
    size: Count
    inline_base64: Annotated[str, StringConstraints(max_length=bounds.INLINE_OUTPUT_MAX * 4 // 3 + 4)] | None = None
    blob: Annotated[str, StringConstraints(pattern=r"^b1-[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _holds(self) -> Output:
        if (self.inline_base64 is None) == (self.blob is None):
            raise PydanticCustomError("one_of", "give one of inline_base64 or blob")
        if self.inline_base64 is not None:
            try:
                size = len(base64.b64decode(self.inline_base64, validate=True))
            except (binascii.Error, ValueError):
                raise PydanticCustomError("base64", "inline_base64 is not valid base64") from None
            if size != self.size:
                raise PydanticCustomError("size", "size is not that of inline_base64")
        return self


class Outcome(_Strict):
    """The end of one attempt."""

    category: Category
    detail: Annotated[Text, StringConstraints(max_length=4096)] = ""
    exit_code: Annotated[int, Field(ge=-(2**31), lt=2**32)] | None = None
    signal: Annotated[int, Field(ge=1, le=64)] | None = None
    trap: Annotated[Text, StringConstraints(max_length=255)] | None = None
    oom: bool = False
    child_oom: bool = False
    timed_out: bool = False
    truncated: list[Annotated[Text, StringConstraints(max_length=64)]] = Field(
        default_factory=list, max_length=8, description="What was cut at its bound: stdout, log."
    )
    outputs: list[Output] = Field(default_factory=list, max_length=64)
    usage: Usage = Field(default_factory=Usage)
    runtime_version: Annotated[Text, StringConstraints(max_length=255)] = ""

    @model_validator(mode="after")
    def _totals(self) -> Outcome:
        if sum(output.size for output in self.outputs if output.blob is None) > bounds.INLINE_OUTPUTS_MAX:
            raise PydanticCustomError("too_large", "inline outputs are over 65536 bytes together: upload them")
        return self

    def as_json(self) -> dict[str, Any]:
        """The outcome as a JSON object, absent values left out."""
        return self.model_dump(mode="json", exclude_none=True)
