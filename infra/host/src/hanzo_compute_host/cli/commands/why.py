"""`hzc why` and `hzc regimes`: why a job is where it is, and what was learnt of the infrastructure."""

from __future__ import annotations

from typing import Any

import click

from hanzo_compute_host.cli.render import duration, print_pairs, print_table
from hanzo_compute_host.cli.session import Session, client_options, pass_session

Body = dict[str, Any]

BY = {
    "hllm": "by the router",
    "least_loaded": "by load alone",
    "only": "without a choice",
}


@click.command()
@click.argument("job")
@click.option("--attempt", type=click.IntRange(1), help="The placement for this attempt (default: the last).")
@client_options
@pass_session
def why(session: Session, job: str, attempt: int | None) -> None:
    """Say why JOB (an id, or `last`) was placed where it was, and what else was considered."""
    trace = session.jobs.trace(session.job_id(job), attempt=attempt)
    if session.json:
        session.print_json(trace)
        return
    chosen, learnt, console = trace["chosen"], trace.get("learnt"), session.console
    facts = [
        ("job", f"{trace['job']}, attempt {trace['attempt']}"),
        ("placed in", f"{chosen['pool']}, runtime {chosen['runtime']}, {BY.get(trace['by'], trace['by'])}"),
        ("because", trace["why"]),
        ("at", trace["at"]),
        ("learnt from", "nothing yet" if learnt is None else f"{learnt['folded']:,} attempts, {_ago(learnt)}"),
    ]
    decision = trace.get("decision", {})
    beliefs = decision.get("beliefs")
    if beliefs:
        facts += [(name, _belief(belief)) for name, belief in beliefs.items()]
    print_pairs(console, facts)
    console.print()
    _places(session, trace, decision)
    for name, texts in (("rejected", decision.get("rejected")), ("would change", decision.get("counterfactuals"))):
        if texts:
            console.print()
            print_pairs(console, [(name, _line(each)) for each in texts])


def _places(session: Session, trace: Body, decision: Body) -> None:
    """The places in the order of the router's preference, each with what was seen and what was expected."""
    terms = {each["action"]: each for each in decision.get("candidates", [])}
    names = {id(each): f"{each['pool']}/{each['runtime']}" for each in trace["places"]}
    places = sorted(trace["places"], key=lambda each: terms.get(names[id(each)], {}).get("efe", 0.0))
    rows = []
    for each in places:
        name = names[id(each)]
        mark = "*" if (each["pool"], each["runtime"]) == (trace["chosen"]["pool"], trace["chosen"]["runtime"]) else ""
        wait = each.get("wait_ms")
        seen = [each["load"], f"{each['seen'] - each['lost']}/{each['seen']}", "" if wait is None else duration(wait)]
        term = terms.get(name, {})
        rows.append([name + mark, *seen, *(_number(term.get(key)) for key in ("utility", "risk", "curiosity", "efe"))])
    heads = ["PLACE", "WAITING", "HELD", "WAIT", "UTILITY", "RISK", "CURIOSITY", "EFE"]
    print_table(session.console, heads if terms else heads[:4], rows if terms else [row[:4] for row in rows])


@click.command()
@client_options
@pass_session
def regimes(session: Session) -> None:
    """Show what was learnt: how the infrastructure is now, and how pools have served jobs."""
    found = session.jobs.regimes()
    if session.json:
        session.print_json(found)
        return
    console, fit = session.console, found["fit"]
    facts = [("routing", found["routing"]), ("learnt from", f"{found['folded']:,} attempts")]
    if not found["readable"]:
        facts.append(("state", "what was learnt cannot be read: it is learnt anew with the next attempts"))
    if fit is not None and fit["fitted_at"] is None:
        facts.append(("regimes", "one: none are fitted yet, which is tried once a day"))
    elif fit is not None:
        quality = "" if fit["held_out"] is None else f", {fit['held_out']:.3f} nats for each held-out row"
        facts.append(("regimes", f"fitted at {fit['fitted_at']} to {fit['rows']} rows{quality}"))
    print_pairs(console, facts)
    if found["regimes"]:
        console.print()
        rows = [
            [
                each["name"],
                f"{each['probability']:.3f}",
                _number(each.get("stays")),
                _number(each.get("waiting")),
                _time(each.get("wait_ms")),
            ]
            for each in found["regimes"]
        ]
        print_table(console, ["REGIME", "NOW", "STAYS", "WAITING", "WAIT"], rows)
    console.print()
    rows = [
        [
            each["pool"],
            each["seen"],
            each["lost"],
            *(_time(each[name]) for name in ("wait_ms", "pace_ms", "run_ms")),
            each["attested_at"] or "",
        ]
        for each in found["pools"]
    ]
    print_table(console, ["POOL", "ATTEMPTS", "LOST", "WAIT", "PACE", "RUN", "ATTESTED"], rows)


def _ago(learnt: Body) -> str:
    return f"the last of them {duration(learnt['age_ms'])} before"


def _belief(belief: Any) -> str:
    if not isinstance(belief, dict):
        return str(belief)
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in belief.items()
    )


def _line(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{name} {_number(each) if isinstance(each, float) else each}" for name, each in value.items())


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def _time(ms: float | None) -> str:
    return "" if ms is None else duration(ms)
