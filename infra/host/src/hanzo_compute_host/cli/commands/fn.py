"""`hzc fn`: functions - deploy, call, look at, point aliases, roll back, remove."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from hanzo_compute.model.bounds import INLINE_MAX, PAGE_MAX
from hanzo_compute_host.cli.build import LANGUAGES, memory, new_idempotency_key, pair, seconds, source_of
from hanzo_compute_host.cli.commands.kv import kv as key_values
from hanzo_compute_host.cli.escape import escape_line
from hanzo_compute_host.cli.follow import follow_to_end
from hanzo_compute_host.cli.pages import collect
from hanzo_compute_host.cli.render import age, print_pairs, print_table
from hanzo_compute_host.cli.session import Session, client_options, pass_session

Body = dict[str, Any]

ACCEPTED: Final = 202
TOLD: Final = ("x-function", "x-invocation", "x-wall-us", "x-fuel")
"""What a call's answer says of the call."""


@click.group()
def fn() -> None:
    """Functions: programs under a name, with versions that never change and aliases that point to them."""


fn.add_command(key_values)


@fn.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--entry", metavar="PATH", help="With a folder as FILE: its file to begin with (main.py, main.js).")
@click.option("--reactor", is_flag=True, help="The module exports alloc and handle instead of _start.")
@click.option("--env", type=pair, metavar="K=V", multiple=True, help="Environment variable; repeatable.")
@click.option("--kv", is_flag=True, help="It may use its key-value store.")
@click.option("--secret", "secrets", metavar="NAME", multiple=True, help="It may read this secret; repeatable.")
@click.option("--http", metavar="ORIGIN", multiple=True, help="It may call https://HOST[:PORT]; repeatable.")
@click.option("--read-input", is_flag=True, help="It may read parts of its input blob.")
@click.option("--outputs", is_flag=True, help="It may leave outputs besides its response.")
@click.option("--memory", type=memory, metavar="MIB", help="Memory of the sandbox: 256, 512m, 1g.")
@click.option("--timeout", type=seconds, metavar="SECONDS", help="Time of one call: 5, 1m.")
@click.option("--fuel", type=click.IntRange(min=1), help="WASM instructions that one call may execute.")
@click.option("--profile", metavar="NAME", help="How it runs (default: fast).")
@click.option("--concurrency", type=click.IntRange(min=1), help="Calls at a time (default: 10).")
@click.option("--public", is_flag=True, help="Its route /fn/NAME needs no credential.")
@click.option("--description", metavar="TEXT", help="What it is for.")
@click.option("--no-publish", is_flag=True, help="Only make the version: `live` stays where it is.")
@client_options
@pass_session
def deploy(session: Session, /, name: str, file: Path, args: tuple[str, ...], **given: Any) -> None:
    """Make a version of NAME from FILE (.wasm, .py, .js) or a folderand point `live` at it. ARGS are its args."""
    source = source_of(session, file, given["entry"])
    if source is None:
        raise click.UsageError(
            f"{file}: not a kind of program that is known here; give a .wasm, {_known()} file, or a folder"
        )
    capabilities = {
        "kv": given["kv"],
        "secrets": list(given["secrets"]),
        "http": list(given["http"]),
        "input": given["read_input"],
        "outputs": given["outputs"],
    }
    resources = {"memory_mib": given["memory"], "timeout_s": given["timeout"], "fuel": given["fuel"]}
    optional: Body = {
        "abi": "reactor" if given["reactor"] else None,
        "args": list(args),
        "env": dict(given["env"]),
        "resources": {unit: value for unit, value in resources.items() if value is not None},
        "capabilities": {each: value for each, value in capabilities.items() if value},
        "public": given["public"],
        **{field: given[field] for field in ("profile", "concurrency", "description")},
    }
    spec = {"source": source} | {field: value for field, value in optional.items() if value}
    made = session.functions.deploy(name, spec, publish=not given["no_publish"])
    if session.json:
        session.print_json(made)
        return
    click.echo(made["reference"])
    session.say(f"aliases: {_aliases(made['aliases'])}")


@fn.command()
@click.argument("name", metavar="NAME[@REF]")
@click.option("-i", "--input", "input_", type=click.File("rb"), help="What it gets (default: nothing; - is stdin).")
@click.option("-d", "--data", help="What it gets, as text.")
@click.option("--stream", is_flag=True, help="Print what it writes as it comes.")
@click.option("--async", "detached", is_flag=True, help="Make a job of it, print its id, and do not wait.")
@client_options
@pass_session
@click.pass_context
def invoke(
    context: click.Context,
    session: Session,
    name: str,
    input_: BinaryIO | None,
    data: str | None,
    stream: bool,
    detached: bool,
) -> None:
    """Call a function and print what it answers. A call of more than 25 s becomes a job, which is followed.

    With --stream it becomes none; with -o json each event is a line.
    """
    if input_ is not None and data is not None:
        raise click.UsageError("give --input or --data")
    if stream and detached:
        raise click.UsageError("give --stream or --async")
    sent = input_.read() if input_ is not None else (data or "").encode()
    if detached:
        _detach(session, name, sent)
        return
    name, _, ref = name.partition("@")
    if stream:
        _stream(session, session.functions.stream(name, ref or None, sent))
        return
    answered = session.functions.invoke(name, ref or None, sent)
    if answered.status == ACCEPTED:
        job = json.loads(answered.body)["id"]
        session.say(f"the call takes longer than anybody waits: it goes on as {job}")
        context.exit(follow_to_end(session, str(job)))
    if session.json:
        text = answered.body.decode("utf-8", "backslashreplace")
        told = {name[2:]: answered.headers[name] for name in TOLD if name in answered.headers}
        session.print_json({"output": text, **told})
        return
    sys.stdout.buffer.write(answered.body)
    sys.stdout.buffer.flush()


@fn.command()
@click.argument("name")
@click.option("-n", "--limit", type=click.IntRange(1, PAGE_MAX), default=50, help="How many calls (default: 50).")
@client_options
@pass_session
def logs(session: Session, name: str, limit: int) -> None:
    """Show what the newest calls of a function wrote to standard error or logged, and how they failed."""
    items = session.functions.logs(name, limit=limit)
    if session.json:
        session.print_json({"items": items})
        return
    for each in items:
        head = f"{each['at']} {each['function']} {each['invocation']}"
        failed = f" {each['category']}: {each['detail']}" if "category" in each else ""
        click.echo(escape_line(f"{head}{failed}"))
        for line in each["text"].splitlines():
            click.echo(f"  {escape_line(line)}")


@fn.command()
@client_options
@pass_session
def ls(session: Session) -> None:
    """List functions by name."""
    items, _ = collect(lambda cursor, limit: session.functions.list_functions(cursor=cursor, limit=limit))
    if session.json:
        session.print_json({"items": items})
    elif not items:
        session.say("no functions")
    else:
        rows = [[each["name"], each["newest"], _aliases(each["aliases"]), age(each["updated_at"])] for each in items]
        print_table(session.console, ["NAME", "NEWEST", "ALIASES", "CHANGED"], rows)


@fn.command()
@click.argument("name", metavar="NAME[@REF]")
@client_options
@pass_session
def show(session: Session, name: str) -> None:
    """Show a function, or a version of it: REF is a number or an alias."""
    name, _, ref = name.partition("@")
    found: Body = {} if ref.isdigit() else session.functions.get(name)
    numbers = [ref] if ref.isdigit() else _pointed(found, ref)
    versions = [session.functions.version(name, number) for number in numbers]
    if session.json:
        session.print_json(found | {"shown": versions} if found else versions[0])
        return
    if found and not ref:
        print_pairs(session.console, _facts(found))
        print_table(
            session.console,
            ["WHEN", "ALIAS", "POINTS TO", "BY"],
            [[age(each["at"]), each["alias"], _weights(each["weights"]), each["by"]] for each in found["history"]],
        )
    for each in versions:
        session.console.print()
        print_pairs(session.console, _version_facts(each))


@fn.command()
@click.argument("name")
@click.argument("alias")
@click.argument("weights", metavar="VERSION=PERCENT...", type=pair, nargs=-1)
@click.option("--remove", is_flag=True, help="Remove the alias.")
@client_options
@pass_session
def alias(session: Session, name: str, alias: str, weights: tuple[tuple[str, str], ...], remove: bool) -> None:
    """Point ALIAS at versions: `hzc fn alias resize live 3=90 4=10`."""
    if remove == bool(weights):
        raise click.UsageError("give either VERSION=PERCENT, one or several, or --remove")
    if remove:
        session.functions.remove_alias(name, alias)
        session.say(f"{name}: alias {alias} removed")
        return
    if not all(re.fullmatch(r"[0-9]{1,3}", percent) for _, percent in weights):
        raise click.BadParameter("weights are whole numbers that are 100 together, like 3=90 4=10")
    _told(session, session.functions.set_alias(name, alias, {number: int(percent) for number, percent in weights}))


@fn.command()
@click.argument("name")
@click.option("--alias", default="live", show_default=True, help="The alias that goes back.")
@client_options
@pass_session
def rollback(session: Session, name: str, alias: str) -> None:
    """Point `live` where it pointed before its last change; again, and it goes back one more."""
    _told(session, session.functions.rollback(name, alias))


@fn.command()
@click.argument("name")
@client_options
@pass_session
def rm(session: Session, name: str) -> None:
    """Remove a function with all its versions. Jobs that were made of it keep what they run."""
    session.functions.remove(name)
    session.say(f"{name} removed")


def _detach(session: Session, function: str, sent: bytes) -> None:
    """Submit a call as a job."""
    spec: Body = {"source": {"function": function}}
    if len(sent) > INLINE_MAX:
        spec["input"] = {"blob": session.jobs.upload_blob(sent)}
    elif sent:
        spec["input"] = {"inline_base64": base64.b64encode(sent).decode()}
    job = session.jobs.submit(spec, idempotency_key=new_idempotency_key()).job
    if session.json:
        session.print_json(job)
    else:
        click.echo(job["id"])


def _stream(session: Session, events: Iterator[tuple[str, Body]]) -> None:
    """Print standard output as it comes."""
    for kind, told in events:
        if session.json:
            session.print_json({"event": kind, **told})
            sys.stdout.flush()
        elif kind == "output" and "name" not in told:
            piece = told["text"].encode() if "text" in told else base64.b64decode(told["base64"])
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def _told(session: Session, found: Body) -> None:
    if session.json:
        session.print_json(found)
    else:
        session.say(f"{found['name']}: {found['alias']} points to {_weights(found['weights'])}")


def _known() -> str:
    return " or ".join(LANGUAGES)


def _pointed(found: Body, ref: str) -> list[str]:
    """Numbers of the versions that an alias points to; without one those of ``live``, or the newest."""
    aliases = found["aliases"]
    if ref and ref not in aliases:
        raise click.UsageError(f"function {found['name']} has no alias {ref}; it has {', '.join(aliases) or 'none'}")
    return sorted(aliases.get(ref or "live", {str(found["newest"]): 100}), key=int)


def _weights(weights: dict[str, int]) -> str:
    if list(weights.values()) == [100]:
        return next(iter(weights))
    return " ".join(f"{number}={weights[number]}" for number in sorted(weights, key=int)) or "nothing: removed"


def _aliases(aliases: dict[str, dict[str, int]]) -> str:
    return ", ".join(f"{name} → {_weights(weights)}" for name, weights in aliases.items()) or "none"


def _facts(found: Body) -> list[tuple[str, Any]]:
    return [
        ("function", found["name"]),
        ("versions", ", ".join(map(str, found["versions"]))),
        ("aliases", _aliases(found["aliases"])),
        ("created", found["created_at"]),
    ]


def _version_facts(found: Body) -> list[tuple[str, Any]]:
    spec = found["spec"]
    source = spec["source"]
    program = source.get("module")
    if program is None:
        of = (
            f"{len(source['code'].encode()):,} bytes" if "code" in source else f"{source['package']}, {source['entry']}"
        )
        program = f"{source['language']}, {of}"
    granted = [
        name if value is True else f"{name} {' '.join(value)}" for name, value in spec["capabilities"].items() if value
    ]
    facts = [
        ("version", found["reference"]),
        ("created", found["created_at"]),
        ("digest", found["digest"]),
        ("program", program),
        ("abi", spec["abi"]),
        ("capabilities", "; ".join(granted) or "none"),
        ("limits", " ".join(f"{name}={value}" for name, value in spec["resources"].items())),
        ("profile", spec["profile"]),
        ("concurrency", spec["concurrency"]),
        ("public", "yes" if spec["public"] else "no"),
    ]
    named = [("args", " ".join(spec["args"])), ("env", " ".join(spec["env"])), ("description", spec["description"])]
    return facts + [(name, value) for name, value in named if value]
