"""Asking for an upload: the same request and answer for tenants and for agents."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from hanzo_compute.model import bounds
from hanzo_compute.model.spec import format_time
from hanzo_compute.ports import PresignedUrl


class UploadRequest(BaseModel):
    """Bytes that somebody wants to upload, by digest and size."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(description="Digest, lower-case hex.")
    size: int = Field(ge=0, le=bounds.BLOB_MAX, description="Bytes; at most 8 MiB.")

    @property
    def blob(self) -> str:
        """The blob's id."""
        return f"b1-{self.sha256}"


def upload_view(request: UploadRequest, url: PresignedUrl | None) -> dict[str, Any]:
    """The answer; ``url`` None when the bytes are there already."""
    upload = url and {"url": url.url, "method": url.method, "expires_at": format_time(url.expires_ms)}
    return {"id": request.blob, "size": request.size, "exists": url is None, "upload": upload}
