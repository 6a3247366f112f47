"""`hzc backup` and `hzc restore`: the state folder as one file, and back."""

from __future__ import annotations

from pathlib import Path

import click

from hanzo_compute_host.cli.progress import Progress
from hanzo_compute_host.cli.render import size
from hanzo_compute_host.cli.session import Session, output_option, pass_session

SHOW_AFTER_S = 2.0


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@output_option
@pass_session
@click.pass_context
def backup(context: click.Context, session: Session, file: Path | None, force: bool) -> None:
    """Back up HZC_HOME as FILE (default: hanzo-<time>.tar here), while the platform runs or not.

    It holds keys: keep it where nobody else can read it. The exit code is 1 when blobs that jobs refer to were
    missing or damaged; all else is in the backup.
    """
    from hanzo_compute_host import backups

    target = (file or Path(backups.default_name())).absolute()
    with Progress(SHOW_AFTER_S) as progress:
        made = backups.backup(session.home, target, force=force, say=progress)
    if session.json:
        session.print_json(
            {
                "file": str(target),
                "size": made.size,
                "jobs": made.jobs,
                "blobs": made.blobs,
                "lost": made.lost_count,
                "lost_blobs": made.lost,
            }
        )
    else:
        session.say(f"backed up {made.jobs} jobs and {made.blobs} blobs, {size(made.size)}, verified")
        for name in made.lost:
            session.say(f"  not in it, because it is missing or damaged: {name}")
        if made.lost_count > len(made.lost):
            session.say(f"  and {made.lost_count - len(made.lost)} more")
        click.echo(str(target))
    context.exit(1 if made.lost_count else 0)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Set the state folder that is there aside.")
@output_option
@pass_session
def restore(session: Session, file: Path, force: bool) -> None:
    """Restore the backup FILE as HZC_HOME, whose platform must be stopped."""
    from hanzo_compute_host import backups

    with Progress(SHOW_AFTER_S) as progress:
        done = backups.restore(session.home, file.absolute(), force=force, say=progress)
    if session.json:
        aside = None if done.set_aside is None else str(done.set_aside)
        session.print_json({"home": str(session.home), "created_at": done.head.created_at, "set_aside": aside})
        return
    session.say(f"restored {session.home} as it was at {done.head.created_at}; start it with: hzc up")
    if done.set_aside is not None:
        session.say(f"the earlier state folder is now {done.set_aside}")
