"""`hzc logs`: what a job said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from hanzo_compute_host.cli.session import Session, client_options, pass_session, write_text


@click.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the job has ended.")
@client_options
@pass_session
def logs(session: Session, job: str, follow: bool) -> None:
    """Print the log of JOB (an id, or `last`), from its beginning."""
    name = session.job_id(job)
    for entry in session.jobs.follow(name) if follow else _history(session, name):
        if session.json:
            session.print_json(entry)
        else:
            write_text(entry["text"])


def _history(session: Session, job: str) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        page = session.jobs.logs(job, cursor=cursor)
        yield from page.items
        if page.done or page.cursor == cursor:
            return
        cursor = page.cursor
