"""`hzc show`: one job, from its spec to its end."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from hanzo_compute_host.cli.render import (
    age,
    cell,
    duration,
    elapsed,
    end_text,
    moment,
    print_pairs,
    print_table,
    size,
    state_cell,
    usage_text,
)
from hanzo_compute_host.cli.session import Session, client_options, pass_session

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Body = dict[str, Any]

BOLD_EVENTS = {"failed": "bold red", "dead": "bold red", "timed_out": "bold red", "lapsed": "yellow"}
CODE_SHOWN = 60
"""Characters of a program's text that stand for it."""


@click.command()
@click.argument("job")
@client_options
@pass_session
def show(session: Session, job: str) -> None:
    """Show JOB (an id, or `last`): how it stands, what it asked for, and its way so far."""
    view = session.jobs.get(session.job_id(job))
    events = session.jobs.events(view["id"])
    if session.json:
        session.print_json(view | {"events": events})
        return
    console = session.console
    console.print(sentence(view))
    console.print()
    print_pairs(console, _facts(view))
    console.print()
    print_timeline(console, events)


def sentence(view: Body) -> Text:
    """The job in one sentence."""
    from rich.text import Text

    outcome = view.get("outcome")
    text = Text("Job ").append(cell(view["id"], "bold")).append(" ")
    if "finished_at" in view:
        said = end_text(view["state"], outcome, view.get("reason"))
        text.append(state_cell(view["state"])).append(cell(said.removeprefix(view["state"])))
        text.append(f", {age(view['finished_at'])} ago")
        if outcome:
            text.append(f", in {usage_text(outcome['usage'])}")
    else:
        text.append("is ").append(state_cell(view["state"]))
        if elapsed(view):
            text.append(f", for {elapsed(view)} so far")
        if "cancel_requested" in view:
            text.append(", and was asked to stop")
        if "next_attempt_at" in view:
            text.append(f"; its next attempt is at {view['next_attempt_at']}")
    return text.append(".")


def print_timeline(console: Console, events: list[Body]) -> None:
    """Events with the time since the first, one a line."""
    if not events:
        return
    first = moment(events[0]["at"])
    print_table(console, ["AFTER", "EVENT", "TRY", "DETAIL"], [_event_row(event, first) for event in events])


def _event_row(event: Body, first: datetime) -> list[Any]:
    data = event.get("data") or {}
    detail = " ".join(f"{name}={value}" for name, value in data.items() if value is not None)
    after = (moment(event["at"]) - first).total_seconds() * 1000
    kind = cell(event["type"], BOLD_EVENTS.get(event["type"], ""))
    return [f"+{duration(after)}", kind, event.get("attempt", ""), detail]


def _facts(view: Body) -> list[tuple[str, Any]]:
    spec = view.get("spec") or {}
    facts: list[tuple[str, Any]] = [
        ("created", view["created_at"]),
        ("source", _source(spec.get("source", {}))),
    ]
    named = ("args", "env", "resources", "retry", "deadline")
    facts += [(name, _compact(spec[name])) for name in named if spec.get(name)]
    if "input" in spec:
        facts.append(("input", _input(spec["input"])))
    if view.get("labels"):
        facts.append(("labels", _compact(view["labels"])))
    if "origin" in view:
        facts.append(("origin", f"{view['origin']['kind']} of {view['origin']['job']}"))
    if "pool" in view:
        facts.append(("placed in", f"{view['pool']}" + (f", agent {view['agent']}" if "agent" in view else "")))
    outcome = view.get("outcome")
    if outcome:
        facts += _outcome_facts(outcome)
    return facts


def _outcome_facts(outcome: Body) -> list[tuple[str, Any]]:
    usage = outcome["usage"]
    facts: list[tuple[str, Any]] = [("outcome", outcome["category"])]
    if "exit_code" in outcome:
        facts.append(("exit code", outcome["exit_code"]))
    if usage.get("fuel") is not None:
        facts.append(("fuel", f"{usage['fuel']:,}"))
    facts.append(("time", f"{duration(usage['wall_ms'])} wall, {duration(usage['cpu_ms'])} CPU"))
    facts.append(("memory", f"{size(usage['memory_peak_bytes'])} at most"))
    outputs = ", ".join(f"{output['name']} {size(output['size'])}" for output in outcome.get("outputs", []))
    facts.append(("outputs", outputs or "none"))
    if outcome.get("truncated"):
        facts.append(("cut", ", ".join(outcome["truncated"])))
    if outcome.get("runtime_version"):
        facts.append(("ran on", outcome["runtime_version"]))
    return facts


def _source(source: Body) -> str:
    if "function" in source:
        program = {name: value for name, value in source.items() if name != "function"}
        return f"function {source['function']} ({_source(program)})"
    if "code" in source:
        first = source["code"].strip().partition("\n")[0][:CODE_SHOWN]
        return f"{source.get('language', 'code')}, {size(len(source['code'].encode()))}: {first} …"
    if "package" in source:
        return f"{source['language']}, package {source['package']}, {source.get('entry', '')}"
    return f"module {source.get('module', '')}"


def _input(given: Body) -> str:
    if "blob" in given:
        return str(given["blob"])
    if "inline_base64" in given:
        return f"{len(given['inline_base64']) * 3 // 4} bytes inline"
    return f"{size(len(given['inline'].encode()))} inline"


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, text in value.items())
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
