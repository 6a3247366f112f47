"""What a function may do besides computing: checked when it is deployed, kept with each job that is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from hanzo_compute.model import bounds
from hanzo_compute.model.origins import normalised

HOST_FUNCTIONS: Final[dict[str, frozenset[str]]] = {
    "kv": frozenset({"kv_get", "kv_put", "kv_delete"}),
    "secrets": frozenset({"secret"}),
    "http": frozenset({"http"}),
    "input": frozenset({"input_size", "input_read"}),
    "outputs": frozenset({"output"}),
}
"""Host functions by the capability that they need."""
SECRET_FORM: Final = r"[A-Za-z][A-Za-z0-9_.-]{0,63}"  # noqa: S105 — of a name
SecretName = Annotated[str, StringConstraints(pattern=f"^{SECRET_FORM}$")]
Origin = Annotated[str, AfterValidator(normalised)]


def _sorted(values: list[str]) -> list[str]:
    return sorted(set(values))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Capabilities(_Strict):
    """What a function may do besides computing. What is not named is denied."""

    kv: bool = Field(default=False, description="Read and write the function's key-value store.")
    secrets: Annotated[list[SecretName], AfterValidator(_sorted)] = Field(
        default_factory=list, max_length=bounds.SECRETS_MAX, description="Names of secrets that it may read."
    )
    http: Annotated[list[Origin], AfterValidator(_sorted)] = Field(
        default_factory=list,
        max_length=bounds.ORIGINS_MAX,
        description="Origins that it may call, like https://api.example.com: exact, without wildcards or paths.",
    )
    input: bool = Field(default=False, description="Read parts of a blob that is its input.")
    outputs: bool = Field(default=False, description="Leave outputs besides its response.")

    @property
    def granted(self) -> list[str]:
        """Names of the capabilities that are asked for."""
        return [name for name in HOST_FUNCTIONS if getattr(self, name)]


def of_source(source: Mapping[str, Any]) -> Capabilities:
    """The capabilities of a job's stored source: those of the version that it was made of, else none."""
    return Capabilities.model_validate(source.get("capabilities") or {})
