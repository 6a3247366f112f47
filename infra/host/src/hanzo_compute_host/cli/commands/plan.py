"""`hzc plan`: what to do next, by expected free energy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hanzo_compute_host.cli.render import cell, print_pairs, print_table
from hanzo_compute_host.cli.session import Session, client_options, pass_session

Body = dict[str, Any]


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@client_options
@pass_session
def plan(session: Session, /, file: Path) -> None:
    """Say what to do next about the problem in FILE, and why.

    FILE is JSON: beliefs, options, outcomes, goal and horizon, as POST /v1/plan/efe takes them.
    """
    try:
        problem = json.loads(file.read_bytes())
        json.dumps(problem, allow_nan=False)  # which Python reads, and JSON does not have
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file} is not JSON: {error}") from None
    if not isinstance(problem, dict):
        raise click.UsageError(f"{file} holds no planning problem: it must be a JSON object")
    found = session.routing.plan(problem)
    if session.json:
        session.print_json(found)
        return
    _print(session, found)


def _print(session: Session, found: Body) -> None:
    trace = found["trace"]
    print_table(
        session.console,
        ["ACTION", "EFE", "UTILITY", "CURIOSITY", "PROBABILITY", "PLAN"],
        [
            [
                cell(_words(each["action"])),
                *(f"{each[name]:.4f}" for name in ("efe", "utility", "curiosity", "probability")),
                cell(" > ".join(_words(step) for step in each["plan"])),
            ]
            for each in trace["candidates"]
        ],
    )
    pairs = [("next", _words(found["action"])), ("why", trace["why"]), ("plans", f"{trace['plans']:,} compared")]
    pairs += [(f"if {_condition(each['if'])}", _words(each["action"])) for each in trace["counterfactuals"]]
    print_pairs(session.console, pairs)


def _words(action: Body) -> str:
    return ", ".join(f"{factor}={choice}" for factor, choice in action.items())


def _condition(condition: Body) -> str:
    if "known" in condition:
        return _words(condition["known"])
    return _words(condition)
