"""What the commands share: the platform they talk to, and how they answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from hanzo_compute_host.cli.escape import escape, escape_line
from hanzo_compute_host.cli.home import find_endpoint, find_home

if TYPE_CHECKING:
    from rich.console import Console

    from hanzo_compute.wiring import (
        FunctionsClient,
        JobsClient,
        KeysClient,
        ProofClient,
        RoutingClient,
        SchedulesClient,
        SecretsClient,
    )

F = TypeVar("F", bound=Callable[..., Any])

LAST = "last"
"""Stands for the id of the newest job."""


@dataclass
class Session:
    """One run of the command."""

    url: str | None = None
    key: str | None = None
    output: str = "table"
    home: Path = field(default_factory=find_home)

    @property
    def json(self) -> bool:
        """Whether answers are JSON."""
        return self.output == "json"

    @cached_property
    def jobs(self) -> JobsClient:
        """The API of the platform that flags, environment or state folder name."""
        from hanzo_compute import wiring

        endpoint = find_endpoint(self.url, self.key, self.home)
        return wiring.jobs_client(endpoint.url, endpoint.key)

    @cached_property
    def proofs(self) -> ProofClient:
        """Quotes, receipts and the log of the same platform."""
        from hanzo_compute import wiring

        endpoint = find_endpoint(self.url, self.key, self.home)
        return wiring.proof_client(endpoint.url, endpoint.key)

    @cached_property
    def functions(self) -> FunctionsClient:
        """The functions of the same tenant."""
        from hanzo_compute import wiring

        endpoint = find_endpoint(self.url, self.key, self.home)
        return wiring.functions_client(endpoint.url, endpoint.key)

    @cached_property
    def schedules(self) -> SchedulesClient:
        """Schedules of the same platform."""
        from hanzo_compute import wiring

        endpoint = find_endpoint(self.url, self.key, self.home)
        return wiring.schedules_client(endpoint.url, endpoint.key)

    @cached_property
    def routing(self) -> RoutingClient:
        """The router of the same platform."""
        from hanzo_compute import wiring

        endpoint = find_endpoint(self.url, self.key, self.home)
        return wiring.routing_client(endpoint.url, endpoint.key)

    @cached_property
    def secrets(self) -> SecretsClient:
        """The secrets of the same tenant."""
        from hanzo_compute import wiring

        endpoint = find_endpoint(self.url, self.key, self.home)
        return wiring.secrets_client(endpoint.url, endpoint.key)

    @cached_property
    def keys(self) -> KeysClient:
        """Attestation and the keys of jobs of the same tenant."""
        from hanzo_compute import wiring

        endpoint = find_endpoint(self.url, self.key, self.home)
        return wiring.keys_client(endpoint.url, endpoint.key)

    @cached_property
    def console(self) -> Console:
        """Standard output for tables; markup is off, so nothing in a cell is an instruction."""
        return make_console(sys.stdout)

    def job_id(self, name: str) -> str:
        """The id that ``name`` stands for: itself, or that of the newest job for ``last``."""
        if name != LAST:
            return name
        items = self.jobs.list_jobs(limit=1).items
        if not items:
            raise click.UsageError("there is no last job: none has been submitted yet")
        return str(items[0]["id"])

    def print_json(self, value: Any, *, stream: IO[str] | None = None) -> None:
        """One JSON document on one line; ASCII only, so it holds no control characters."""
        click.echo(json.dumps(value, separators=(",", ":")), file=stream)

    def say(self, text: str) -> None:
        """A line of ours about what happens, on standard error; others' text in it is made harmless."""
        click.echo(escape_line(text), err=True)


def make_console(stream: IO[str]) -> Console:
    """A console that prints what it is given: no markup, no emoji codes, no colour in pipes."""
    from rich.console import Console

    wide = None if stream.isatty() else 200
    return Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=False, width=wide)


def is_terminal(stream: IO[Any]) -> bool:
    """Whether a person reads this stream."""
    return stream.isatty()


def write_text(text: str, *, err: bool = False) -> None:
    """A job's text, at once; never raw, as what reads our pipe may hand it on to a terminal."""
    stream = sys.stderr if err else sys.stdout
    stream.write(escape(text))
    stream.flush()


pass_session = click.make_pass_decorator(Session, ensure=True)


def _remember(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            setattr(context.ensure_object(Session), name, value)

    return callback


def output_option(command: F) -> F:
    """Adds ``-o``."""
    return _output_option("-o", "--output")(command)


def json_option(command: F) -> F:
    """Adds ``--output`` to a command whose ``-o`` names the file that it makes."""
    return _output_option("--output")(command)


def _output_option(*names: str) -> Callable[[F], F]:
    return click.option(
        *names,
        type=click.Choice(["table", "json"]),
        help="How to answer: for people, or as JSON.",
        expose_value=False,
        is_eager=True,
        callback=_remember("output"),
    )


def client_options(command: F) -> F:
    """Adds ``--url``, ``--key`` and ``-o``."""
    for name, text in (
        ("key", "Credential (default: HZC_KEY, or that of the state folder)."),
        ("url", "The platform's address (default: HZC_URL, or that of the state folder)."),
    ):
        command = click.option(f"--{name}", help=text, expose_value=False, callback=_remember(name))(command)
    return output_option(command)
