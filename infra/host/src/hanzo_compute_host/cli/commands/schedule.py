"""`hzc schedule`: jobs that are submitted again and again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click

from hanzo_compute_host.cli.build import spec_of_file
from hanzo_compute_host.cli.render import cell, print_pairs, print_table, state_cell
from hanzo_compute_host.cli.session import Session, client_options, pass_session

Body = dict[str, Any]

_STYLES = {"submitted": "succeeded", "partial": "failed", "failed": "failed", "missed": "retrying"}
"""What becomes of a time, in the colours of jobs."""


@click.group()
def schedule() -> None:
    """Jobs that are submitted again and again."""


@schedule.command("set")
@click.argument("name")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--cron", required=True, help="Minute, hour, day of month, month, day of week: '*/5 * * * *'.")
@click.option("--tz", "timezone", default="UTC", show_default=True, help="Time zone: Europe/Zurich.")
@click.option("--missed", type=click.Choice(["skip", "once", "all"]), help="What becomes of times while it was down.")
@click.option(
    "--overlap", type=click.Choice(["allow", "skip"]), help="Whether a run waits for nothing, or is left out."
)
@click.option("--paused", is_flag=True, help="It begins when it is resumed.")
@client_options
@pass_session
def set_(session: Session, /, name: str, files: tuple[Path, ...], **given: Any) -> None:
    """Create or replace schedule NAME: each FILE is a job, at each time.

    FILE is a Python program (.py), a WASI module (.wasm), or a job spec or an array of them (.json).
    """
    jobs = [job for file in files for job in _jobs(session, file)]
    spec = {field: value for field, value in given.items() if value is not None} | {"jobs": jobs}
    _print(session, session.schedules.put(name, spec))


@schedule.command("ls")
@client_options
@pass_session
def ls(session: Session) -> None:
    """List schedules."""
    items = session.schedules.all()
    if session.json:
        session.print_json({"items": items})
        return
    if not items:
        session.say("no schedules")
        return
    headings = ["NAME", "CRON", "TIME ZONE", "JOBS", "NEXT", "LAST", "WHY"]
    print_table(session.console, headings, [_row(item) for item in items])


@schedule.command("show")
@click.argument("name")
@client_options
@pass_session
def show(session: Session, name: str) -> None:
    """Show schedule NAME, its jobs and the next five times."""
    found = session.schedules.get(name)
    if session.json:
        session.print_json(found)
        return
    spec = found["spec"]
    pairs: list[tuple[str, Any]] = [
        ("schedule", f"{found['name']}, revision {found['revision']}{', paused' if found['paused'] else ''}"),
        ("cron", f"{spec['cron']} ({spec['timezone']})"),
        ("missed", spec["missed"]),
        ("overlap", spec["overlap"]),
        *((f"job {number}", json.dumps(job)) for number, job in enumerate(spec["jobs"])),
        *(("next", _clock(time, spec["timezone"])) for time in found["upcoming"]),
        ("runs", found["runs"]),
    ]
    if found["last_at"]:
        pairs.append(("last", _clock(found["last_at"], spec["timezone"])))
    if "submitting" in found:
        submitting = found["submitting"]
        pairs.append(("now", f"{_clock(submitting['at'], spec['timezone'])}: {len(submitting['jobs'])} jobs submitted"))
    if "last_error" in found:
        pairs.append(("refused", f"{found['last_error']['at']}: {_why(found['last_error'])}"))
    print_pairs(session.console, pairs)


@schedule.command("runs")
@click.argument("name")
@client_options
@pass_session
def runs(session: Session, name: str) -> None:
    """List the last 50 runs of schedule NAME, newest first, with the ids of their jobs."""
    items = session.schedules.runs(name)
    if session.json:
        session.print_json({"items": items})
        return
    if not items:
        session.say("no runs yet")
        return
    rows = []
    for run in items:
        until = f" … {run['until']}" if run.get("until", run["at"]) != run["at"] else ""
        status = state_cell(run["status"])
        status.style = state_cell(_STYLES.get(run["status"], "")).style
        rows.append([run["at"] + until, status, " ".join(run["jobs"]), "; ".join(map(_why, run.get("errors", [])))])
    print_table(session.console, ["TIME", "STATUS", "JOBS", "WHY"], rows)


@schedule.command("pause")
@click.argument("name")
@client_options
@pass_session
def pause(session: Session, name: str) -> None:
    """Let schedule NAME have no times until it is resumed."""
    _set_paused(session, name, True)


@schedule.command("resume")
@click.argument("name")
@client_options
@pass_session
def resume(session: Session, name: str) -> None:
    """Let schedule NAME go on; times that passed while it was paused are not made up for."""
    _set_paused(session, name, False)


@schedule.command("rm")
@click.argument("name")
@client_options
@pass_session
def rm(session: Session, name: str) -> None:
    """Delete schedule NAME; its jobs stay."""
    session.schedules.delete(name)
    if session.json:
        session.print_json({"name": name, "deleted": True})
    else:
        session.say(f"schedule {name} is deleted")


def _jobs(session: Session, file: Path) -> list[Any]:
    if file.suffix == ".json":
        try:
            found = json.loads(file.read_bytes())
        except ValueError as error:
            raise click.UsageError(f"{file} is not JSON: {error}") from None
        if isinstance(found, list):
            return found
    return [spec_of_file(session, file)]


def _set_paused(session: Session, name: str, paused: bool) -> None:
    found = session.schedules.get(name)
    spec = found["spec"] | {"paused": paused}
    _print(session, session.schedules.put(name, spec, revision=found["revision"]))


def _print(session: Session, found: Body) -> None:
    if session.json:
        session.print_json(found)
    elif found["paused"]:
        session.say(f"schedule {found['name']} is paused; it goes on with: hzc schedule resume {found['name']}")
    else:
        session.say(f"schedule {found['name']}, next {_clock(found['next_at'], found['timezone'])}")


def _row(item: Body) -> list[Any]:
    following = "paused" if item["paused"] else _clock(item["next_at"], item["timezone"])
    last = item["last_at"] and _clock(item["last_at"], item["timezone"])
    why = cell(_why(item["last_error"]), "bold red") if "last_error" in item else ""
    return [item["name"], item["cron"], item["timezone"], item["jobs"], following, last, why]


def _why(error: Body) -> str:
    return f"job {error['job']}: {error['message']}" if "job" in error else str(error["message"])


def _clock(time: str | None, zone: str) -> str:
    """A time as the clocks of the schedule show it, if this machine knows them."""
    if time is None:
        return "never"
    moment = datetime.fromisoformat(time)
    try:
        return moment.astimezone(ZoneInfo(zone)).strftime("%a %Y-%m-%d %H:%M %z")
    except (OSError, ValueError, LookupError):
        return time
