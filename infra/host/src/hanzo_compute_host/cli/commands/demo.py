"""`hzc demo`: a real job through the platform, from its start to its result."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanzo_compute.model.money import show as show_money
from hanzo_compute_host.cli import local, witness
from hanzo_compute_host.cli.commands.receipt import fetch, print_verified, read_receipt
from hanzo_compute_host.cli.commands.show import print_timeline
from hanzo_compute_host.cli.follow import output_of
from hanzo_compute_host.cli.home import find_port, read_credentials
from hanzo_compute_host.cli.known import open_known
from hanzo_compute_host.cli.next_steps import next_steps
from hanzo_compute_host.cli.progress import Progress
from hanzo_compute_host.cli.render import cell, duration, end_text, print_pairs, print_table, size
from hanzo_compute_host.cli.session import Session, output_option, pass_session, write_text

if TYPE_CHECKING:
    from hanzo_compute.wiring import JobsClient, ProofClient

Body = dict[str, Any]


@click.command()
@output_option
@pass_session
@click.pass_context
def demo(context: click.Context, session: Session) -> None:
    """Start the platform if it is not running, and carry a real job through it.

    The job is a Python program that reports on some 8,000 orders in a CSV file. Its report is compared with
    the one that this Python makes of the same file.
    """
    from hanzo_compute_host import demo as package
    from hanzo_compute_host.demo.generate import orders_csv

    jobs = _platform(session.home)
    orders = orders_csv()
    path = _write(session.home / "demo" / "orders.csv", orders)
    _write(path.with_name("orders.py"), package.program().encode())
    begin = time.monotonic()
    spec = _spec(jobs, package.program(), orders)
    proofs = _proofs(session.home, jobs)
    quote = proofs.quote(spec)
    job = str(jobs.submit(spec).job["id"])
    if not session.json:
        click.echo(f"It can cost {_price(quote, quote['units'])} at most (hzc quote shows how that is made up).")
        click.echo(f"Job {job} reads {path} ({size(len(orders))}) in a WASM sandbox. Its log:\n")
    for entry in jobs.follow(job):
        if entry["stream"] == "stderr" and not session.json:
            write_text(entry["text"])
    jobs.wait(job)
    took_ms = (time.monotonic() - begin) * 1000
    result, events = jobs.result(job), jobs.events(job)
    report = _report(output_of(jobs, result))
    agrees = report is not None and report == package.expected(orders)
    path = path.with_name("receipt.json")
    with open_known(session.home) as known:
        receipt, _ = fetch(proofs, known, job)
        _write(path, json.dumps(receipt, indent=1).encode())
        proven = witness.verified(read_receipt(path), known, job=job, platform=None, agents=set())
    if session.json:
        session.print_json(
            {
                "result": result,
                "report": report,
                "agrees": agrees,
                "events": events,
                "quote": quote,
                "receipt": receipt,
                "proven": proven.proven,
            }
        )
    else:
        _show(session, result, events, report, took_ms)
        _verdict(agrees, report)
        click.echo(f"Its receipt, in {path}, was verified without the platform:\n")
        print_verified(session, proven)
        click.echo()
        click.echo(next_steps(session.home, jobs.url, job))
    context.exit(0 if result["state"] == "succeeded" and agrees else 1)


def _platform(home: Path) -> JobsClient:
    """The platform of this home, started if it does not answer."""
    running = local.find_running(home)
    if running is not None:
        return running
    port = find_port()
    local.require_free(port)
    with Progress() as progress:
        local.prepare(progress)
        return local.start(home, port, progress)


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _proofs(home: Path, jobs: JobsClient) -> ProofClient:
    from hanzo_compute import wiring

    stored = read_credentials(home)
    return wiring.proof_client(jobs.url, stored.key if stored else None)


def _spec(jobs: JobsClient, code: str, orders: bytes) -> Body:
    return {
        "source": {"code": code, "language": "python"},
        "input": {"blob": jobs.upload_blob(orders)},
        "labels": {"demo": "orders"},
    }


def _price(quote: Body, units: str) -> str:
    return show_money(int(units), quote["decimals"], quote["symbol"])


def _report(stdout: bytes) -> Body | None:
    try:
        found = json.loads(stdout)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _show(session: Session, result: Body, events: list[Body], report: Body | None, took_ms: float) -> None:
    console = session.console
    if report is not None:
        click.echo("\nIts result:\n")
        _show_report(session, report)
    click.echo("\nIts way:\n")
    print_timeline(console, events)
    click.echo()
    outcome = result.get("outcome")
    facts: list[tuple[str, Any]] = [("end", end_text(result["state"], outcome, result.get("reason")))]
    if outcome:
        usage = outcome["usage"]
        if usage.get("fuel") is not None:
            facts.append(("fuel", f"{usage['fuel']:,} instructions"))
        facts.append(("memory", f"{size(usage['memory_peak_bytes'])} at most"))
        facts.append(("time", f"{duration(usage['wall_ms'])} in the sandbox"))
    facts.append(("in all", f"{duration(took_ms)} from upload to result"))
    print_pairs(console, facts)


def _show_report(session: Session, report: Body) -> None:
    console = session.console
    pairs = [
        ("orders", f"{report['orders']:,}, {sum(report['rejected'].values())} rows rejected"),
        ("revenue", _money(report["revenue_cents"])),
        ("median basket", _money(report["median_basket_cents"])),
        ("outliers", f"{report['outliers']['count']} above {_money(report['outliers']['above_cents'])}"),
    ]
    print_pairs(console, pairs)
    for title, name in (("REGION", "by_region"), ("MONTH", "by_month"), ("TOP PRODUCTS", "top_products")):
        click.echo()
        most = max(report[name].values(), default=1)
        rows = [
            [key, cell(f"{_money(cents):>14}"), "█" * round(24 * cents / most)] for key, cents in report[name].items()
        ]
        print_table(console, [title, "REVENUE".rjust(14), ""], rows)


def _money(cents: int) -> str:
    return f"{cents / 100:,.2f}"


def _verdict(agrees: bool, report: Body | None) -> None:
    if agrees and report is not None:
        click.echo(f"\nThis Python makes the same report of the same file: checksum {report['checksum'][:16]}…\n")
    else:
        click.echo("\nThe report is NOT what this Python makes of the same file.\n")
