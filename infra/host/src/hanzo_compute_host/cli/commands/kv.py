"""`hzc fn kv`: the key-value entries of a function."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import Any

import click

from hanzo_compute_host.cli.escape import escape_line
from hanzo_compute_host.cli.follow import write_bytes
from hanzo_compute_host.cli.pages import collect
from hanzo_compute_host.cli.render import age, print_table
from hanzo_compute_host.cli.session import Session, client_options, pass_session

Body = dict[str, Any]

base64_option = click.option("--base64", "coded", is_flag=True, help="KEY is in base64url.")
expect_option = click.option(
    "--expect",
    type=click.IntRange(min=-1),
    default=-1,
    help="The version that must be there; 0: nothing may be. Without it: whatever is there.",
)


@click.group()
@click.argument("name")
@click.pass_context
def kv(context: click.Context, name: str) -> None:
    """The key-value entries of function NAME: `hzc fn kv counter ls`."""
    context.meta[__name__] = name


@kv.command()
@click.argument("entry", metavar="KEY")
@base64_option
@click.option("-O", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write the value to FILE.")
@client_options
@pass_session
def get(session: Session, entry: str, coded: bool, target: Path | None) -> None:
    """Give the value of KEY: its bytes in a pipe or with -O, made harmless on a terminal."""
    found = session.functions.entry(_function(), _key(entry, coded))
    if session.json:
        session.print_json(found)
        return
    value = found["value"].encode() if "value" in found else base64.b64decode(found["value_base64"])
    if target is not None:
        target.write_bytes(value)
    else:
        write_bytes(value)
    session.say(f"version {found['version']}")


@kv.command()
@click.argument("entry", metavar="KEY")
@click.argument("value", required=False)
@click.option("--from-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The value.")
@base64_option
@expect_option
@client_options
@pass_session
def put(session: Session, entry: str, value: str | None, from_file: Path | None, coded: bool, expect: int) -> None:
    """Write VALUE, or the content of --from-file or of standard input, under KEY."""
    if value is not None and from_file is not None:
        raise click.UsageError("give either VALUE or --from-file")
    data = value.encode() if value is not None else from_file.read_bytes() if from_file else sys.stdin.buffer.read()
    made = session.functions.put_entry(_function(), _key(entry, coded), data, expect)
    if session.json:
        session.print_json(made)
    else:
        session.say(f"{_shown(made)}: version {made['version']}, {made['size']:,} bytes")


@kv.command()
@click.option("--prefix", default="", help="Only keys that begin so.")
@client_options
@pass_session
def ls(session: Session, prefix: str) -> None:
    """List entries by key."""
    items, _ = collect(
        lambda cursor, limit: session.functions.entries(_function(), prefix=prefix.encode(), cursor=cursor, limit=limit)
    )
    if session.json:
        session.print_json({"items": items})
    elif not items:
        session.say("no entries")
    else:
        rows = [[escape_line(_shown(each)), each["version"], each["size"], age(each["updated_at"])] for each in items]
        print_table(session.console, ["KEY", "VERSION", "BYTES", "CHANGED"], rows)


@kv.command()
@click.argument("entry", metavar="KEY")
@base64_option
@expect_option
@client_options
@pass_session
def rm(session: Session, entry: str, coded: bool, expect: int) -> None:
    """Remove the entry KEY."""
    session.functions.remove_entry(_function(), _key(entry, coded), expect)
    session.say(f"{entry} removed")


def _function() -> str:
    name: str = click.get_current_context().meta[__name__]
    return name


def _key(text: str, coded: bool) -> bytes:
    if not coded:
        return text.encode("utf-8", "surrogateescape")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise click.BadParameter("KEY is no base64url") from None


def _shown(entry: Body) -> str:
    """The key, or its base64url where it is no text."""
    return str(entry["key"] if entry["key"] is not None else f"--base64 {entry['key_base64url']}")
