"""`hzc run`, `hzc submit`, `hzc rerun`: a job goes in."""

from __future__ import annotations

from typing import Any

import click

from hanzo_compute_host.cli.build import build_spec, job_options, new_idempotency_key
from hanzo_compute_host.cli.data_keys import give_key, give_key_again
from hanzo_compute_host.cli.follow import follow_to_end
from hanzo_compute_host.cli.program import LOCAL, local_options, run_local
from hanzo_compute_host.cli.session import Session, client_options, pass_session


@click.command()
@job_options
@click.option("-d", "--detach", is_flag=True, help="Only submit: print the id and return.")
@local_options
@client_options
@pass_session
@click.pass_context
def run(
    context: click.Context, session: Session, /, file: str | None, args: tuple[str, ...], detach: bool, **given: Any
) -> None:
    """Run FILE as a job, follow its log, and give its result.

    FILE is a program in Python (.py) or JavaScript (.js), a WASI module (.wasm), a whole job
    spec (.json), or a folder: a program of several files, with pure-Python wheels in its wheels/. ARGS after `--` go
    to the program. The exit code is 0 when the job succeeded, 1 when it did not. Ctrl-C detaches: the job goes
    on.

    With --local no platform is asked: FILE runs here in the same sandbox, its streams passed through.
    """
    local = {name: given.pop(name) for name in LOCAL}
    if local.pop("local"):
        context.exit(run_local(session, file, args, given, **local))
    if any(local.values()):
        raise click.UsageError("--exit-code and --dir go with --local")
    job = _submit(session, file, args, given)
    if detach:
        _print_submitted(session, job)
        return
    session.say(f"{job['id']} {job['state']}")
    context.exit(follow_to_end(session, job["id"]))


@click.command()
@job_options
@client_options
@pass_session
def submit(session: Session, /, file: str | None, args: tuple[str, ...], **given: Any) -> None:
    """Submit FILE as a job and print its id."""
    _print_submitted(session, _submit(session, file, args, given))


@click.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Follow the new job to its end, as `hzc run` does.")
@client_options
@pass_session
@click.pass_context
def rerun(context: click.Context, session: Session, job: str, follow: bool) -> None:
    """Make a new job with the spec of JOB (an id, or `last`)."""
    new = session.jobs.rerun(session.job_id(job))
    give_key_again(session, new)
    if not follow:
        _print_submitted(session, new)
        return
    session.say(f"{new['id']} {new['state']}")
    context.exit(follow_to_end(session, new["id"]))


def _submit(session: Session, file: str | None, args: tuple[str, ...], given: dict[str, Any]) -> dict[str, Any]:
    spec = build_spec(session, file, args, given)
    key = given["idempotency_key"] or new_idempotency_key()
    submitted = session.jobs.submit(spec, idempotency_key=key)
    if submitted.replayed and given["idempotency_key"]:
        session.say(f"{submitted.job['id']} was submitted with this idempotency key before")
    give_key(session, submitted.job["id"], spec)
    return submitted.job


def _print_submitted(session: Session, job: dict[str, Any]) -> None:
    if session.json:
        session.print_json(job)
    else:
        click.echo(job["id"])
