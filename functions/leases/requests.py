"""Bodies that agents send."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from hanzo_compute.front.uploads import UploadRequest
from hanzo_compute.model import bounds
from hanzo_compute.model.canonical import EXACT_MAX
from hanzo_compute.model.capabilities import SecretName
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.model.spec import TIME_MS_MAX, BlobId
from hanzo_compute.model.statement import Signed
from hanzo_compute.ports import LogEntry, Touched


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise PydanticCustomError("base64", "is not valid base64") from None
    return value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Attempt = Annotated[int, Field(ge=1, le=2**31, strict=True)]
Wait = Annotated[float, Field(ge=0, le=bounds.WAIT_S_MAX)]
KeyBase64 = Annotated[
    str, StringConstraints(min_length=1, max_length=bounds.KV_KEY_MAX * 4 // 3 + 4), AfterValidator(_base64)
]
ValueBase64 = Annotated[str, StringConstraints(max_length=bounds.KV_VALUE_MAX * 4 // 3 + 4), AfterValidator(_base64)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Want(_Body):
    """Work wanted: up to ``limit`` attempts from a pool."""

    pool: Name
    agent: Name
    key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="SHA-256 of the public key that the agent signs with, hex. The first of a name stays its key."
    )
    limit: Annotated[int, Field(ge=1, le=16)] = 1


class LeaseRequest(Want):
    """Work wanted now, or as soon as there is some."""

    wait_s: Wait = 0


class Seen(_Body):
    """What the agent knows already."""

    cancel: Annotated[str, StringConstraints(max_length=64)] | None = None
    follow: bool = False


class HeartbeatRequest(_Body):
    """The attempt is alive."""

    attempt: Attempt
    seen: Seen = Seen()
    wait_s: Wait = 0


class Entry(_Body):
    """A piece of output."""

    at_ms: Annotated[int, Field(ge=0, le=TIME_MS_MAX)]
    stream: Annotated[str, StringConstraints(pattern=r"^(stdout|stderr)$")]
    text: Annotated[str, StringConstraints(max_length=bounds.LOG_CHUNK_MAX)]


class LogRequest(_Body):
    """A chunk of the log."""

    attempt: Attempt
    seq: Annotated[int, Field(ge=1, le=bounds.LOG_CHUNKS_MAX)]
    entries: Annotated[list[Entry], Field(max_length=bounds.LOG_ENTRIES_MAX)]


class LogTail(_Body):
    """The last chunk of the log."""

    seq: Annotated[int, Field(ge=1, le=bounds.LOG_CHUNKS_MAX)]
    entries: Annotated[list[Entry], Field(max_length=bounds.LOG_ENTRIES_MAX)]


class BlobRequest(UploadRequest):
    """An output to be uploaded."""

    attempt: Attempt


class EntryRequest(_Body):
    """A key-value entry of the job's function is read."""

    attempt: Attempt
    key_base64: KeyBase64
    fresh: Annotated[bool, Field(strict=True)] = Field(default=False, description="As it is now, however new that is.")


class SecretRequest(_Body):
    """A secret that the job's function was granted is read."""

    attempt: Attempt
    name: SecretName


class TouchedEntry(_Body):
    """A key-value entry that the attempt has used."""

    key_base64: KeyBase64
    rev: Annotated[int, Field(ge=0, le=EXACT_MAX, strict=True)] = Field(description="The revision that it saw.")
    changed: Annotated[bool, Field(strict=True)] = False
    version: Annotated[int, Field(ge=0, le=EXACT_MAX, strict=True)] = Field(
        default=0, description="What the guest was told that its own write is."
    )
    value_base64: ValueBase64 | None = Field(default=None, description="Changed, and neither value nor blob: removed.")
    blob: BlobId | None = Field(default=None, description="An uploaded value, instead of value_base64.")

    @model_validator(mode="after")
    def _holds(self) -> TouchedEntry:
        values = sum(value is not None for value in (self.value_base64, self.blob))
        if values > self.changed:
            raise PydanticCustomError("one_of", "give one of value_base64 or blob, and either with changed alone")
        return self

    def touched(self) -> Touched:
        """The port's value."""
        value = None if self.value_base64 is None else base64.b64decode(self.value_base64)
        key = base64.b64decode(self.key_base64)
        return Touched(key, self.rev, self.version, value, self.changed, self.blob)


class Statement(_Body):
    """The agent's signature over the statement of the outcome: see docs/receipts.md."""

    key: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}){1,200}$")] = Field(
        description="P-256 public key: SubjectPublicKeyInfo in DER, hex."
    )
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")] = Field(
        description="r and s, with low s, hex."
    )

    def signed(self) -> Signed:
        """The model's value."""
        return Signed(bytes.fromhex(self.key), bytes.fromhex(self.signature))


class Report(_Body):
    """An attempt has ended."""

    job: Annotated[str, StringConstraints(max_length=64)]
    attempt: Attempt
    outcome: Outcome
    log: LogTail | None = None
    statement: Statement | None = None
    kv: Annotated[list[TouchedEntry], Field(max_length=bounds.KV_TOUCHED_MAX)] | None = Field(
        default=None,
        description="All key-value entries that it has used: there if its function has such and it ended with ok.",
    )

    def touched(self) -> Sequence[Touched] | None:
        """The port's values."""
        return None if self.kv is None else [each.touched() for each in self.kv]


class CompleteRequest(_Body):
    """Attempts have ended, and there may be more to do."""

    reports: Annotated[list[Report], Field(min_length=1, max_length=16)]
    want: Want | None = Field(default=None, description="Lease this with the same call, if it is there.")


class ReleaseRequest(_Body):
    """The attempt is given back."""

    attempt: Attempt
    reason: Annotated[str, StringConstraints(min_length=1, max_length=255)]


def entries(given: list[Entry]) -> list[LogEntry]:
    """The port's entries."""
    return [LogEntry(each.at_ms, each.stream, each.text) for each in given]
