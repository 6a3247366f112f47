"""`hzc ls`, `hzc cancel`, `hzc dlq`: many jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hanzo_compute import errors
from hanzo_compute.model.states import State
from hanzo_compute_host.cli.data_keys import give_key_again
from hanzo_compute_host.cli.failure import show_failure
from hanzo_compute_host.cli.pages import collect
from hanzo_compute_host.cli.render import age, elapsed, print_table, state_cell
from hanzo_compute_host.cli.session import Session, client_options, pass_session

Body = dict[str, Any]


@click.command()
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only jobs in this state.")
@click.option("--label", metavar="NAME=VALUE", help="Only jobs with this label.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@client_options
@pass_session
def ls(session: Session, state: str | None, label: str | None, limit: int, everything: bool) -> None:
    """List jobs, newest first."""

    found = collect(
        lambda cursor, count: session.jobs.list_jobs(state=state, label=label, cursor=cursor, limit=count),
        None if everything else limit,
    )
    _print_list(session, *found)


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@client_options
@pass_session
@click.pass_context
def cancel(context: click.Context, session: Session, jobs: tuple[str, ...]) -> None:
    """Cancel jobs (ids, or `last`)."""

    def ask(name: str) -> None:
        job = session.jobs.cancel(session.job_id(name))
        if session.json:
            session.print_json(job)
        else:
            stopping = "" if job["state"] == "cancelled" else ", asked to stop"
            session.say(f"{job['id']} {job['state']}{stopping}")

    context.exit(_each(session, jobs, ask))


@click.group()
def dlq() -> None:
    """Jobs that the platform gave up on."""


@dlq.command("ls")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many.")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@client_options
@pass_session
def dlq_ls(session: Session, limit: int, everything: bool) -> None:
    """List dead jobs."""

    found = collect(
        lambda cursor, count: session.jobs.dead_letters(cursor=cursor, limit=count), None if everything else limit
    )
    _print_list(session, *found)


@dlq.command("redrive")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@client_options
@pass_session
@click.pass_context
def dlq_redrive(context: click.Context, session: Session, jobs: tuple[str, ...]) -> None:
    """Make a new job in place of each dead JOB (ids, or `last`)."""

    def ask(name: str) -> None:
        if name == "last":
            dead = session.jobs.dead_letters(limit=1).items
            name = str(dead[0]["id"]) if dead else name
        job = session.jobs.redrive(name)
        give_key_again(session, job)
        if session.json:
            session.print_json(job)
        else:
            click.echo(job["id"])

    context.exit(_each(session, jobs, ask))


def _each(session: Session, names: tuple[str, ...], ask: Callable[[str], None]) -> int:
    """Ask for each, also after a refusal; the exit code of the first refusal, or 0."""
    code = 0
    for name in names:
        try:
            ask(name)
        except (errors.Conflict, errors.NotFound) as error:
            show_failure(error, as_json=session.json)
            code = code or error.exit_code
    return code


def _print_list(session: Session, items: list[Body], cursor: str | None) -> None:
    if session.json:
        session.print_json({"items": items, "next_cursor": cursor})
        return
    if not items:
        session.say("no jobs")
        return
    headings = ["ID", "STATE", "RUNTIME", "TRY", "AGE", "TIME", "WHY", "LABELS"]
    print_table(session.console, headings, [_row(job) for job in items])
    if cursor is not None:
        session.say("there are more: --limit N or --all")


def _row(job: Body) -> list[Any]:
    labels = " ".join(f"{name}={value}" for name, value in job["labels"].items())
    why = job.get("reason") or (job.get("category") if job.get("category") != "ok" else "")
    return [
        job["id"],
        state_cell(job["state"]),
        job["runtime"],
        job["attempt"] or "",
        age(job["created_at"]),
        elapsed(job),
        why,
        labels,
    ]
