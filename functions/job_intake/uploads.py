"""The routes of blobs: where to upload bytes that a job will read, and where to get them back."""

from __future__ import annotations

from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.params import Body

from hanzo_compute.front.api import reply, shaped
from hanzo_compute.front.uploads import UploadRequest, upload_view
from hanzo_compute.security.authorizer import Action
from hanzo_compute.services import read
from hanzo_compute.wiring import container
from job_intake.api import api


@api.route("POST", "/v1/blobs", action=Action.UPLOAD, summary="Ask where to upload bytes", answers=shaped("Upload"))
def create_blob(request: Annotated[UploadRequest, Body()]) -> Response[str]:
    """The blob's id, and unless it exists already a URL that takes exactly these bytes by PUT."""
    ctx, tenant = container(), api.caller.tenant
    exists = ctx.blobs.size(tenant, request.blob) == request.size
    url = None if exists else ctx.blobs.presign_put(tenant, request.blob, request.size)
    return reply(upload_view(request, url))


@api.route("GET", "/v1/blobs/{id}", action=Action.READ, summary="Ask where to download bytes", answers=shaped("Blob"))
def get_blob(id: str) -> Response[str]:  # noqa: A002
    """A URL that needs no credential for 15 minutes."""
    return reply(read.blob(container(), api.caller.tenant, id))
