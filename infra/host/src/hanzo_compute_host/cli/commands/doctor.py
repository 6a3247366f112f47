"""`hzc doctor`: is this machine fit, and what would each missing part enable."""

from __future__ import annotations

from dataclasses import asdict

import click

from hanzo_compute_host.cli.checks import ABSENT, MISSING, OK, all_checks, healthy
from hanzo_compute_host.cli.home import find_port
from hanzo_compute_host.cli.render import cell, print_table
from hanzo_compute_host.cli.session import Session, output_option, pass_session

_STYLES = {OK: "green", MISSING: "bold red", ABSENT: "dim"}


@click.command()
@output_option
@pass_session
@click.pass_context
def doctor(context: click.Context, session: Session) -> None:
    """Check this machine. The exit code is 1 when something is missing that is needed."""
    checks = all_checks(session.home, find_port())
    if session.json:
        session.print_json({"healthy": healthy(checks), "checks": [asdict(check) for check in checks]})
    else:
        rows = [[check.name, cell(check.verdict, _STYLES[check.verdict]), check.found, check.means] for check in checks]
        print_table(session.console, ["CHECK", "VERDICT", "FOUND", "MEANS"], rows)
    context.exit(0 if healthy(checks) else 1)
