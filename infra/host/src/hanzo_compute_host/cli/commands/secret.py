"""`hzc secret`: secrets of functions - set, list, remove; none is ever shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from hanzo_compute_host.cli.pages import collect
from hanzo_compute_host.cli.render import age, print_table
from hanzo_compute_host.cli.session import Session, client_options, is_terminal, pass_session

Body = dict[str, Any]


@click.group()
def secret() -> None:
    """Secrets: set by name, read by the functions that were granted them, shown to nobody."""


@secret.command("set")
@click.argument("name")
@click.option(
    "--from-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The value: all of its bytes."
)
@client_options
@pass_session
def set_secret(session: Session, name: str, from_file: Path | None) -> None:
    """Set the secret NAME to what standard input or --from-file holds.

    On a terminal it is asked for, and not shown. One line break at the end of standard input is left out. The value
    is never an argument: those are seen by everybody on the machine.
    """
    if from_file is not None:
        value = from_file.read_bytes()
    elif is_terminal(sys.stdin):
        value = click.prompt(name, hide_input=True, confirmation_prompt=True, err=True).encode()
    else:
        given = sys.stdin.buffer.read()
        value = given[:-2] if given.endswith(b"\r\n") else given.removesuffix(b"\n")
    made = session.secrets.put(name, value)
    if session.json:
        session.print_json(made)
    else:
        session.say(f"{made['name']}: version {made['version']}")


@secret.command()
@client_options
@pass_session
def ls(session: Session) -> None:
    """List secrets by name."""
    items, _ = collect(lambda cursor, limit: session.secrets.list_secrets(cursor=cursor, limit=limit))
    if session.json:
        session.print_json({"items": items})
    elif not items:
        session.say("no secrets")
    else:
        rows = [[each["name"], each["version"], age(each["updated_at"])] for each in items]
        print_table(session.console, ["NAME", "VERSION", "SET"], rows)


@secret.command()
@click.argument("name")
@client_options
@pass_session
def rm(session: Session, name: str) -> None:
    """Remove the secret NAME."""
    session.secrets.remove(name)
    session.say(f"{name} removed")


@secret.command()
@click.argument("name", required=False)
@click.option("-n", "count", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most.")
@client_options
@pass_session
def audit(session: Session, name: str | None, count: int) -> None:
    """Tell which calls have read secrets, or the secret NAME, newest first."""
    items, _ = collect(lambda cursor, limit: session.secrets.reads(secret=name, cursor=cursor, limit=limit), count)
    if session.json:
        session.print_json({"items": items})
    elif not items:
        session.say("no reads")
    else:
        rows = [[age(each["at"]), each["secret"], each["function"], each["call"]] for each in items]
        print_table(session.console, ["WHEN", "SECRET", "FUNCTION", "CALL"], rows)
