"""`hzc quote`: what a job can cost, before it runs."""

from __future__ import annotations

from typing import Any

import click

from hanzo_compute.model.money import show
from hanzo_compute_host.cli.build import build_spec, job_options
from hanzo_compute_host.cli.render import print_pairs, print_table
from hanzo_compute_host.cli.session import Session, client_options, pass_session


@click.command()
@job_options
@client_options
@pass_session
def quote(session: Session, /, file: str | None, args: tuple[str, ...], **given: Any) -> None:
    """Say what FILE as a job can cost at most, and how that is made up. Nothing is submitted."""
    found = session.proofs.quote(build_spec(session, file, args, given))
    if session.json:
        session.print_json(found)
        return
    print_quote(session, found)


def print_quote(session: Session, found: dict[str, Any]) -> None:
    """A quote for people."""
    most = show(int(found["units"]), found["decimals"], found["symbol"])
    kind = "firm: the same on every machine" if found["firm"] else "by its timeout: it is billed for what it uses"
    rows = [
        [item["unit"], f"{item['quantity']:,}", item["of"], f"{item['rate']:,} per {item['per']:,}"]
        for item in found["items"]
    ]
    print_table(session.console, ["UNIT", "AT MOST", "OF", "BASE UNITS"], rows)
    pairs = [
        ("at most", f"{most} ({found['units']} base units of {found['token']})"),
        ("attempts", found["attempts"]),
        ("basis", kind),
        ("tariff", found["tariff"]["version"]),
    ]
    print_pairs(session.console, pairs)
