"""`hzc up`, `hzc down` and `hzc restart`: the platform itself, on this machine."""

from __future__ import annotations

import os

import click

from hanzo_compute_host.cli import local
from hanzo_compute_host.cli.home import find_port
from hanzo_compute_host.cli.progress import Progress
from hanzo_compute_host.cli.session import Session, output_option, pass_session

STOP_S = 30.0
"""Running jobs are given this long to be handed back."""
RESTART_S = 300.0
"""A rolling restart that makes no step in this time is reported as stuck."""


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1 (default: HZC_PORT, or 8787).")
@click.option("--fronts", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that serve HTTP.")
@click.option("--agents", type=click.IntRange(0, 64), default=1, show_default=True, help="Processes that run jobs.")
@click.option("--slots", type=click.IntRange(1, 256), help="Jobs at a time in an agent (default: one per CPU).")
@output_option
@pass_session
def up(session: Session, port: int | None, fronts: int, agents: int, slots: int | None) -> None:
    """Run the platform in the foreground, until Ctrl-C.

    State is kept in HZC_HOME; the owner's key is shown when it is created, and kept in credentials.json there.
    """
    from hanzo_compute_host.supervisor import Supervisor

    port = port or find_port()
    with Progress() as progress:
        local.prepare(progress)
    Supervisor(session.home, port, fronts, agents, slots or os.cpu_count() or 1).run()


@click.command()
@output_option
@pass_session
def down(session: Session) -> None:
    """Stop the platform of HZC_HOME."""
    from hanzo_compute_host.running import stop

    stopped = stop(session.home, STOP_S)
    if session.json:
        session.print_json({"home": str(session.home), "stopped": stopped})
    else:
        session.say(f"the platform of {session.home} " + ("has stopped" if stopped else "was not running"))


@click.command()
@output_option
@pass_session
def restart(session: Session) -> None:
    """Replace the processes of the platform of HZC_HOME one by one, while it serves.

    They load the code that is installed now; no request fails, and running jobs go on or are run again at no cost.
    The process of `hzc up` itself stays: a release that changes it, or the database's schema, needs down and up.
    """
    from hanzo_compute_host.running import roll

    with Progress() as progress:
        replaced = roll(session.home, RESTART_S, progress)
    if session.json:
        session.print_json({"home": str(session.home), "replaced": replaced})
    else:
        session.say(f"{replaced} processes of {session.home} were replaced")
