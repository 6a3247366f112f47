"""The job spec: what a client may ask for, checked to the last field.

Nothing is accepted and ignored: an unknown field is refused with the name that was probably meant, and a field
of the full spec whose support has not landed is refused with ``not_supported``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from hanzo_compute.model import bounds, canonical
from hanzo_compute.model.capabilities import Capabilities
from hanzo_compute.model.money import MaxPrice
from hanzo_compute.model.package import MAIN, path_problem

UNSUPPORTED: Final[dict[str, frozenset[str]]] = {
    "": frozenset({"secrets", "isolation", "network", "webhook"}),
    "source": frozenset({"image"}),
    "resources": frozenset({"cpu_millis", "gpu", "disk_mib"}),
}
"""Fields of the full spec that this release refuses, by the object that holds them."""

UNSUPPORTED_VALUES: Final[dict[str, frozenset[str]]] = {
    "runtime": frozenset({"docker", "kubernetes"}),
}

RUNTIMES_OF: Final[dict[str, tuple[str, ...]]] = {"module": ("wasm",), "code": ("wasm",), "package": ("wasm",)}
"""The runtimes that can run each kind of source: what ``auto`` may become."""

BLOB_ID: Final = r"^b1-[0-9a-f]{64}$"
FUNCTION_NAME: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
VERSION_NUMBER: Final = r"[1-9][0-9]{0,8}"
ALIAS_NAME: Final = r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?"
FUNCTION_REFERENCE: Final = rf"^{FUNCTION_NAME}(@({VERSION_NUMBER}|{ALIAS_NAME}))?$"
STORED: Final = {"stored": True}
"""Validation context of a spec as the platform stores it: there a function's name stands beside what it stood for."""
JOB_ID: Final = r"^j-[0-9A-HJKMNP-TV-Z]{26}$"

RFC3339: Final = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)"
TIME_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: what RFC 3339 can write."""

LABEL_NAME: Final = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
LABEL_VALUE: Final = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"


def _storable(value: str) -> str:
    if "\x00" in value:
        raise PydanticCustomError("nul", "must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("unicode", "must not contain a lone surrogate") from None
    return value


Text = Annotated[str, AfterValidator(_storable)]
Profile = Literal["fast", "deterministic"]
BlobId = Annotated[str, StringConstraints(pattern=BLOB_ID)]
FunctionReference = Annotated[str, StringConstraints(pattern=FUNCTION_REFERENCE)]
LabelName = Annotated[str, StringConstraints(pattern=LABEL_NAME)]
LabelValue = Annotated[str, StringConstraints(pattern=LABEL_VALUE)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def refuse_unsupported(holder: str, value: Any) -> Any:
    """Raise for fields of the object ``holder`` that exist in the full spec but not in this release."""
    if isinstance(value, dict):
        for name in sorted(UNSUPPORTED[holder] & value.keys()):
            raise PydanticCustomError(
                "not_supported",
                "{name} is not supported by this release",
                {"name": name, "field": name},
            )
    return value


def _path(value: str) -> str:
    problem = path_problem(value)
    if problem is not None:
        raise PydanticCustomError("path", "{problem}", {"problem": problem})
    return value


class Source(_Strict):
    """What runs: a WASM module by blob id, source code or a package in a language known here, or a function.

    In a stored spec a function's reference, with its version, stands beside the program that it stood for, and beside
    both what that version was granted.
    """

    module: BlobId | None = Field(default=None, description="Blob id of a WASM module (WASI preview 1 command).")
    code: Text | None = Field(default=None, description="Source text, at most 64 KiB of UTF-8.")
    language: Literal["python", "javascript"] | None = Field(
        default=None, description="Language of `code` or `package`."
    )
    package: BlobId | None = Field(
        default=None, description="Blob id of a package: a ZIP archive of a program's files, and of wheels in wheels/."
    )
    entry: Annotated[Text, AfterValidator(_path)] | None = Field(
        default=None, description="File of `package` that it begins with; main.py or main.js."
    )
    function: FunctionReference | None = Field(
        default=None, description="A function: `name` (its alias `live`), `name@3` or `name@alias`."
    )
    capabilities: SkipJsonSchema[Capabilities | None] = None

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, value: Any) -> Any:
        refuse_unsupported("source", value)
        if isinstance(value, dict) and value.get("package") is not None and value.get("entry") is None:
            language = value.get("language")
            if isinstance(language, str) and language in MAIN:
                return {**value, "entry": MAIN[language]}
        return value

    @model_validator(mode="after")
    def _one_kind(self, info: ValidationInfo) -> Source:
        kinds = sum(value is not None for value in (self.module, self.code, self.package))
        stored = bool((info.context or {}).get("stored"))
        if self.capabilities is not None and (self.function is None or not stored):
            message = "is what a function was granted: deploy one, and give its name as source.function"
            raise PydanticCustomError("not_granted", message, {"field": "capabilities"})
        if self.function is not None and not stored:
            kinds += 1
        if kinds != 1:
            raise PydanticCustomError(
                "one_of", "give one of module, code with language, package with language, or function"
            )
        if (self.code is None and self.package is None) != (self.language is None):
            raise PydanticCustomError("together", "code or package and language go together")
        if self.entry is not None and self.package is None:
            raise PydanticCustomError("together", "entry is a file of a package, and there is none", {"field": "entry"})
        if self.code is not None and len(self.code.encode()) > bounds.INLINE_MAX:
            raise PydanticCustomError("too_large", "code is over 65536 bytes")
        return self

    @property
    def concrete(self) -> bool:
        """Whether it says what runs, and not only which function."""
        return any(value is not None for value in (self.module, self.code, self.package))


class Input(_Strict):
    """What the program reads on standard input: inline (text or base64) up to 64 KiB, or a blob."""

    inline: Text | None = Field(default=None, description="UTF-8 text, at most 64 KiB.")
    inline_base64: str | None = Field(
        default=None,
        description="Bytes in base64 (RFC 4648 section 4), at most 64 KiB decoded.",
        max_length=bounds.INLINE_MAX * 4 // 3 + 4,
    )
    blob: BlobId | None = Field(default=None, description="Blob id of an uploaded input, at most 8 MiB.")

    @model_validator(mode="after")
    def _one_kind(self) -> Input:
        if sum(value is not None for value in (self.inline, self.inline_base64, self.blob)) != 1:
            raise PydanticCustomError("one_of", "give one of inline, inline_base64 or blob")
        try:
            size = len(self.data())
        except (binascii.Error, ValueError):
            raise PydanticCustomError("base64", "inline_base64 is not valid base64") from None
        if size > bounds.INLINE_MAX:
            raise PydanticCustomError("too_large", "inline input is over 65536 bytes: upload it as a blob")
        return self

    def data(self) -> bytes:
        """The inline bytes; empty for a blob."""
        if self.inline is not None:
            return self.inline.encode()
        if self.inline_base64 is not None:
            return base64.b64decode(self.inline_base64, validate=True)
        return b""


class Resources(_Strict):
    """What one attempt may use."""

    memory_mib: int = Field(
        default=bounds.MEMORY_MIB_DEFAULT,
        ge=bounds.MEMORY_MIB_MIN,
        le=bounds.MEMORY_MIB_MAX,
        description="Linear memory of the sandbox, MiB.",
    )
    timeout_s: int = Field(
        default=bounds.TIMEOUT_S_DEFAULT,
        ge=1,
        le=bounds.TIMEOUT_S_MAX,
        description="Wall-clock limit of one attempt, seconds.",
    )
    fuel: int | None = Field(
        default=None,
        ge=1,
        le=bounds.FUEL_MAX,
        description="WASM instructions that one attempt may execute (about one unit each); absent: no limit.",
    )

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, value: Any) -> Any:
        return refuse_unsupported("resources", value)


class Retry(_Strict):
    """Attempts in all, and the wait before the second, which doubles for each further one."""

    max_attempts: int = Field(default=1, ge=1, le=bounds.ATTEMPTS_MAX)
    backoff_s: int = Field(default=5, ge=1, le=bounds.BACKOFF_S_MAX)

    def delay_s(self, failures: int) -> int:
        """Seconds to wait after the given number of failed attempts (at least 1)."""
        return int(min(self.backoff_s * 2 ** (failures - 1), bounds.BACKOFF_S_MAX))


def _deadline(value: str) -> str:
    parse_time(value)
    return value


def parse_time(value: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time with its offset; raises a validation error."""
    try:
        if not re.fullmatch(RFC3339, value):
            raise ValueError
        return int(datetime.fromisoformat(value.upper()).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise PydanticCustomError(
            "time", "must be an RFC 3339 time with an offset, like 2030-01-31T12:00:00Z"
        ) from None


def format_time(ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    ms = min(max(ms, 0), TIME_MS_MAX)
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(1024)
def _second(seconds: int) -> str:
    # Most times that are shown are of the last few seconds.
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JobSpec(_Strict):
    """One job: a program, its input, and the bounds of its run."""

    runtime: Literal["wasm", "auto"] = Field(default="auto", description="Where it runs; `auto` lets us choose.")
    profile: Profile = Field(default="fast", description="How it runs.")
    source: Source
    args: list[Text] = Field(default_factory=list, max_length=bounds.ARGS_MAX)
    env: dict[EnvName, Text] = Field(default_factory=dict, max_length=bounds.ENV_MAX)
    input: Input | None = None
    resources: Resources = Field(default_factory=Resources)
    max_price: MaxPrice | None = Field(
        default=None, description="Refuse the job if it could cost more, all its attempts together."
    )
    deadline: Annotated[str, AfterValidator(_deadline)] | None = Field(
        default=None, description="RFC 3339 time at which the job expires unless it has ended.", max_length=64
    )
    retry: Retry = Field(default_factory=Retry)
    privacy_tier: int | None = Field(
        default=None, ge=0, le=4, description="The least that the runner must prove: see docs/attestation.md."
    )
    data_key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None,
        description="SHA-256, hex, of the 32 bytes that input and outputs are sealed with; needed from tier 1 on.",
    )
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict, max_length=bounds.LABELS_MAX)
    log_limit: int = Field(
        default=bounds.LOG_LIMIT_DEFAULT,
        ge=bounds.LOG_LIMIT_MIN,
        le=bounds.LOG_LIMIT_MAX,
        description="Bytes of log that are kept for one attempt.",
    )

    @model_validator(mode="before")
    @classmethod
    def _supported(cls, value: Any) -> Any:
        refuse_unsupported("", value)
        if isinstance(value, dict):
            for name, refused in UNSUPPORTED_VALUES.items():
                if isinstance(value.get(name), str) and value[name] in refused:
                    raise PydanticCustomError(
                        "not_supported",
                        "{name} {value} is not supported by this release",
                        {"name": name, "value": value[name], "field": name},
                    )
        return value

    @model_validator(mode="after")
    def _totals(self) -> JobSpec:
        if sum(len(arg.encode()) for arg in self.args) > bounds.TEXT_MAX:
            raise PydanticCustomError("too_large", "args are over 32768 bytes together", {"field": "args"})
        if sum(len(k) + len(v.encode()) for k, v in self.env.items()) > bounds.TEXT_MAX:
            raise PydanticCustomError("too_large", "env is over 32768 bytes together", {"field": "env"})
        if self.privacy_tier and self.data_key is None:
            raise PydanticCustomError(
                "together",
                "data_key must be given with a privacy_tier from 1 on: only an attested runner gets the key",
                {"field": "data_key"},
            )
        return self

    @property
    def deadline_ms(self) -> int | None:
        """The deadline in milliseconds since the epoch."""
        return None if self.deadline is None else parse_time(self.deadline)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Where it may run: the runtime that it names, or with ``auto`` each that can run its source."""
        if self.runtime != "auto":
            return (self.runtime,)
        return next((fit for kind, fit in RUNTIMES_OF.items() if getattr(self.source, kind) is not None), ())

    def as_json(self) -> dict[str, Any]:
        """The spec as it is stored and shown: what was given, and the defaults that apply."""
        return self.model_dump(exclude_none=True)

    def blobs(self) -> dict[str, str]:
        """Blob ids that the spec refers to, by field."""
        found = {
            "source.module": self.source.module,
            "source.package": self.source.package,
            "input.blob": self.input.blob if self.input else None,
        }
        return {field: blob for field, blob in found.items() if blob is not None}


def sha256(data: bytes) -> str:
    """SHA-256, hex, of bytes."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """SHA-256, hex, of a JSON value in its canonical form (RFC 8785)."""
    return canonical.digest(value)


def program_blob(source: Mapping[str, Any]) -> str | None:
    """Blob id of a stored source's module or package; None for source text."""
    blob = source.get("module") or source.get("package")
    return None if blob is None else str(blob)


def code_digest(spec: dict[str, Any]) -> str:
    """SHA-256, hex, of what runs: the bytes of the module or package, or the source text in UTF-8."""
    blob = program_blob(spec["source"])
    if blob is not None:
        return blob.removeprefix("b1-")
    return hashlib.sha256(spec["source"]["code"].encode()).hexdigest()


def input_digest(spec: dict[str, Any]) -> str | None:
    """SHA-256, hex, of the bytes on standard input; None when the spec gives none."""
    given = spec.get("input")
    if given is None:
        return None
    blob = given.get("blob")
    if blob is not None:
        return str(blob).removeprefix("b1-")
    return hashlib.sha256(Input.model_validate(given).data()).hexdigest()
