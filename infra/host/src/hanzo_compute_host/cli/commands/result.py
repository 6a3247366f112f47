"""`hzc result`: what a job came to."""

from __future__ import annotations

from pathlib import Path

import click

from hanzo_compute_host.cli.follow import stdout_of, summarise, write_bytes
from hanzo_compute_host.cli.session import Session, client_options, pass_session


@click.command()
@click.argument("job")
@click.option("--stdout", "only_stdout", is_flag=True, help="Only its standard output, without the summary.")
@click.option(
    "-O", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write its standard output to FILE."
)
@client_options
@pass_session
@click.pass_context
def result(context: click.Context, session: Session, job: str, only_stdout: bool, target: Path | None) -> None:
    """Give the standard output of JOB (an id, or `last`), and say how it ended.

    In a pipe or with -O the bytes are those that the job wrote; a terminal is shown its control characters
    spelled out. The exit code is 0 when the job succeeded, 1 when it did not.
    """
    if only_stdout and target is not None:
        raise click.UsageError("give either --stdout or -O")
    found = session.jobs.result(session.job_id(job))
    if target is not None:
        target.write_bytes(stdout_of(session, found))
    if only_stdout or (target is None and not session.json):
        write_bytes(stdout_of(session, found))
    elif session.json:
        session.print_json(found)
    if not only_stdout and not session.json:
        summarise(session, found)
    context.exit(0 if found["state"] == "succeeded" else 1)
