"""What a version of a function is: program, capabilities and limits, checked to the last field."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from hanzo_compute.model import bounds
from hanzo_compute.model.capabilities import Capabilities
from hanzo_compute.model.spec import (
    VERSION_NUMBER,
    EnvName,
    Profile,
    Resources,
    Source,
    Text,
)

WASI: Final = "wasi_snapshot_preview1"
HOST: Final = "hzc"
ALWAYS: Final = frozenset({"log", "now", "random", "take"})
"""Host functions that every module may import."""
EXPORTS: Final[dict[str, dict[str, str]]] = {
    "command": {"_start": "func"},
    "reactor": {"memory": "memory", "alloc": "func", "handle": "func"},
}
"""What a module must export, by its ABI."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FunctionSpec(_Strict):
    """One version of a function: a program, what it may do, and the bounds of each call."""

    source: Source
    abi: Literal["command", "reactor"] = Field(
        default="command",
        description="How it is called: `command` reads standard input and writes standard output from `_start`; "
        "`reactor` exports memory, `alloc(size) -> address` and `handle(address, size) -> address << 32 | size`.",
    )
    args: list[Text] = Field(default_factory=list, max_length=bounds.ARGS_MAX)
    env: dict[EnvName, Text] = Field(default_factory=dict, max_length=bounds.ENV_MAX)
    resources: Resources = Field(default_factory=Resources)
    profile: Profile = Field(default="fast", description="How it runs.")
    capabilities: Capabilities = Field(default_factory=Capabilities)
    concurrency: int = Field(
        default=bounds.CONCURRENCY_DEFAULT, ge=1, le=bounds.CONCURRENCY_MAX, description="Calls at a time."
    )
    public: bool = Field(default=False, description="Its route under /fn/ needs no credential.")
    description: Annotated[Text, StringConstraints(max_length=bounds.DESCRIPTION_MAX)] = ""

    @model_validator(mode="after")
    def _whole(self) -> FunctionSpec:
        if self.source.function is not None:
            raise PydanticCustomError(
                "invalid",
                "a function is made of a module, of code or of a package, not of a function",
                {"field": "source.function"},
            )
        if self.abi == "reactor" and self.source.module is None:
            raise PydanticCustomError("invalid", "code is always of the abi command", {"field": "abi"})
        if sum(len(arg.encode()) for arg in self.args) > bounds.TEXT_MAX:
            raise PydanticCustomError("too_large", "args are over 32768 bytes together", {"field": "args"})
        if sum(len(k) + len(v.encode()) for k, v in self.env.items()) > bounds.TEXT_MAX:
            raise PydanticCustomError("too_large", "env is over 32768 bytes together", {"field": "env"})
        return self

    def as_json(self) -> dict[str, Any]:
        """The spec as it is stored and shown: what was given, and the defaults that apply."""
        return self.model_dump(exclude_none=True)


class AliasSetting(_Strict):
    """Where an alias points: one version, or several with the percentage of calls that each gets."""

    version: int | None = Field(default=None, ge=1, le=999_999_999, description="The version that gets all calls.")
    weights: (
        dict[Annotated[str, StringConstraints(pattern=f"^{VERSION_NUMBER}$")], Annotated[int, Field(ge=1, le=100)]]
        | None
    ) = Field(
        default=None,
        min_length=1,
        max_length=bounds.WEIGHTS_MAX,
        description="Percent of the calls by version, together 100.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> AliasSetting:
        if (self.version is None) == (self.weights is None):
            raise PydanticCustomError("one_of", "give either version or weights")
        if self.weights is not None and sum(self.weights.values()) != 100:
            raise PydanticCustomError("sum", "are not 100 together", {"field": "weights"})
        return self

    def by_version(self) -> dict[str, int]:
        """Percent of the calls by version."""
        return {str(self.version): 100} if self.weights is None else self.weights


def granted(spec: dict[str, Any]) -> list[str]:
    """Names of the capabilities that a stored spec has."""
    return [name for name, value in spec["capabilities"].items() if value]
