"""`hzc bench routing`: a tape of requests through the router and what it is measured beside. No platform is needed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from hanzo_compute_host.cli.render import print_table
from hanzo_compute_host.cli.session import Session, output_option, pass_session


@click.group()
def bench() -> None:
    """Measure on this machine."""


@bench.command("routing")
@click.argument("tape", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Of the samples.")
@output_option
@pass_session
def routing(session: Session, *, tape: Path | None, seed: int) -> None:
    """Replay TAPE (default: a packaged one) through the router and baselines.

    Regret is against the best candidate under the tape's true rates, latency is the tape's, and CPU is what a choice
    took here.
    """
    from hanzo_compute_host.cli.tape import read, replay

    read_tape = read(tape)
    played = list(replay(read_tape, seed))
    if session.json:
        session.print_json({"requests": len(read_tape.rows), "agents": [asdict(p) for p in played]})
        return
    session.console.print(f"{len(read_tape.rows):,} requests")
    print_table(
        session.console,
        ["agent", "regret", "paid", "ok", "in time", "p50", "p99", "CPU a choice"],
        [
            [
                p.agent,
                f"{p.regret:.1f}",
                f"{p.paid:.1f}",
                f"{p.ok:.1%}",
                f"{p.met:.1%}",
                f"{p.latency_p50_s:.2f} s",
                f"{p.latency_p99_s:.2f} s",
                f"{p.decision_s * 1e6:.0f} µs",
            ]
            for p in played
        ],
    )
