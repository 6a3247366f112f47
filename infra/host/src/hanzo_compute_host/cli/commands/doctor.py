"""`hzc doctor`: is this machine fit, what would each missing part enable; with ``--repair``, the state folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from hanzo_compute_host.cli.checks import ABSENT, MISSING, OK, all_checks, healthy
from hanzo_compute_host.cli.home import find_port
from hanzo_compute_host.cli.progress import Progress
from hanzo_compute_host.cli.render import cell, print_table
from hanzo_compute_host.cli.session import Session, output_option, pass_session

if TYPE_CHECKING:
    from hanzo_compute.services.audit import Finding

SHOWN_MAX: Final = 200
"""Findings of one kind that are shown one by one."""

_STYLES = {OK: "green", MISSING: "bold red", ABSENT: "dim"}


@click.command()
@click.option("--repair", is_flag=True, help="Check and repair the state folder of a stopped platform.")
@click.option("--digests", is_flag=True, help="With --repair: also read the blobs that unfinished jobs need.")
@output_option
@pass_session
@click.pass_context
def doctor(context: click.Context, session: Session, repair: bool, digests: bool) -> None:
    """Check this machine. The exit code is 1 when something is missing that is needed.

    With --repair: check the state folder instead, whose platform must be stopped, and repair what can be. The exit
    code is 1 when something is left.
    """
    if digests and not repair:
        raise click.UsageError("--digests belongs to --repair")
    if repair:
        context.exit(_repair(session, digests))
    checks = all_checks(session.home, find_port())
    if session.json:
        session.print_json({"healthy": healthy(checks), "checks": [asdict(check) for check in checks]})
    else:
        rows = [[check.name, cell(check.verdict, _STYLES[check.verdict]), check.found, check.means] for check in checks]
        print_table(session.console, ["CHECK", "VERDICT", "FOUND", "MEANS"], rows)
    context.exit(0 if healthy(checks) else 1)


def _repair(session: Session, digests: bool) -> int:
    from hanzo_compute_host.repair import repair

    with Progress(after_s=2.0) as progress:
        shown, counts, left = _collect(repair(session.home, progress, digests=digests))
    more = sum(counts.values()) - len(shown)
    if session.json:
        fields = ("check", "subject", "found", "remedy", "repaired")
        findings = [{name: getattr(finding, name) for name in fields} for finding in shown]
        session.print_json({"healthy": not left, "left": left, "counts": counts, "findings": findings})
        return 1 if left else 0
    if shown:
        repaired, left_over = cell("repaired", "green"), cell("left", "bold red")
        rows = [
            [each.check, repaired if each.repaired else left_over, each.subject, each.found, each.remedy]
            for each in shown
        ]
        print_table(session.console, ["CHECK", "VERDICT", "WHERE", "FOUND", "DONE, OR TO DO"], rows)
    if more:
        session.say(f"and {more} more of the same kinds")
    total = sum(counts.values())
    session.say(f"{total - left} repaired, {left} left" if total else f"nothing is wrong with {session.home}")
    return 1 if left else 0


def _collect(findings: Iterable[Finding]) -> tuple[list[Finding], Counter[str], int]:
    """The findings to show, how many of each kind there are, and how many are left."""
    shown: list[Finding] = []
    counts: Counter[str] = Counter()
    left = 0
    for finding in findings:
        counts[finding.check] += 1
        left += not finding.repaired
        if counts[finding.check] <= SHOWN_MAX or not finding.repaired:
            shown.append(finding)
    return shown, counts, left
