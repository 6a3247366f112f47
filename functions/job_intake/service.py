"""Routes about the service itself."""

from __future__ import annotations

import functools
from importlib import resources

from aws_lambda_powertools.event_handler import Response

from hanzo_compute import __version__
from hanzo_compute.front.api import reply
from hanzo_compute.security.authorizer import Action
from job_intake.api import api


@api.route("GET", "/healthz", action=None, summary="Whether the API answers")
def health() -> Response[str]:
    """Needs no credential and touches nothing."""
    return reply({"status": "ok", "version": __version__})


@api.route("GET", "/openapi.json", action=Action.DESCRIBE, summary="This description")
def openapi() -> Response[str]:
    """OpenAPI 3.1 of every route of the platform."""
    return Response(status_code=200, content_type="application/json", body=_document())


@functools.cache
def _document() -> str:
    """Written by ``python -m hanzo_compute_host.openapi``: the other functions are not here to be asked."""
    return resources.files("job_intake").joinpath("openapi.json").read_text("utf-8")
