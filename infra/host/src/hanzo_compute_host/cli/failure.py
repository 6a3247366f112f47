"""Errors as a person reads them: what, why, and the next command; or as a problem document."""

from __future__ import annotations

import json
from typing import Any

import click

from hanzo_compute import errors
from hanzo_compute_host.cli.escape import escape_line


def problem_of(error: errors.ComputeError) -> dict[str, Any]:
    """The problem document (RFC 9457) that says what ``error`` says."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        "retryable": error.retryable,
    }
    if error.hint:
        document["hint"] = error.hint
    if isinstance(error, errors.InvalidRequest) and error.fields:
        document["errors"] = [field.as_json() for field in error.fields]
    return document | {name: value for name, value in error.data.items() if name not in document}


def show_failure(error: errors.ComputeError, *, as_json: bool) -> None:
    """Print an error on standard error."""
    if as_json:
        click.echo(json.dumps(problem_of(error), separators=(",", ":"), default=str), err=True)
        return
    click.echo(f"hzc: {escape_line(error.message)}", err=True)
    for field in getattr(error, "fields", ()):
        said = f"  {field.field}: {field.message}" + (f" ({field.hint})" if field.hint else "")
        if field.message not in error.message or field.hint:
            click.echo(escape_line(said), err=True)
    if error.hint and error.hint not in (field.hint for field in getattr(error, "fields", ())):
        click.echo(f"  try: {escape_line(error.hint)}", err=True)
    if isinstance(error, errors.InternalError) and "request_id" in error.data:
        click.echo(escape_line(f"  request id: {error.data['request_id']}"), err=True)
