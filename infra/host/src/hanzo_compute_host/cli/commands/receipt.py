"""`hzc receipt`: what a job or an invocation was and cost, and the proof of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hanzo_compute import errors
from hanzo_compute.model.invocation import ID, began_ms
from hanzo_compute.model.money import show as show_money
from hanzo_compute.model.spec import format_time
from hanzo_compute.transparency.checkpoint import VerifierKey
from hanzo_compute.transparency.receipt import Verified
from hanzo_compute_host.cli import witness
from hanzo_compute_host.cli.escape import escape_line
from hanzo_compute_host.cli.known import Known, open_known
from hanzo_compute_host.cli.render import print_pairs, usage_text
from hanzo_compute_host.cli.session import Session, client_options, output_option, pass_session

if TYPE_CHECKING:
    from hanzo_compute.wiring import ProofClient

Body = dict[str, Any]

FILE_MAX: Final = 4 * 1024 * 1024
INVOCATION: Final = "i-"
YOUNG_MS: Final = 60_000
"""The receipt of an invocation that began this long ago may still come."""
WAIT_S: Final = 10.0
"""A checkpoint comes within two seconds; a platform that is restarting may need longer."""


@click.group()
def receipt() -> None:
    """What a job or an invocation was and cost, and the proof of it."""


@receipt.command("show")
@click.argument("job")
@click.option("--attempt", type=click.IntRange(min=1), help="An earlier attempt that was billed.")
@click.option("--save", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write it to FILE.")
@client_options
@pass_session
def show(session: Session, job: str, attempt: int | None, save: Path | None) -> None:
    """Fetch the receipt of JOB (an id, `last`, or the id of an invocation), verify it, and say what it proves.

    With `-o json` the receipt itself is printed.
    """
    if attempt is not None and job.startswith(INVOCATION):
        raise click.UsageError("an invocation is attempted once: leave --attempt out")
    with open_known(session.home) as known:
        found, proven = fetch(session.proofs, known, session.job_id(job), attempt)
    if save is not None:
        save.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    tell(session, known)
    if session.json:
        session.print_json(found)
        return
    print_verified(session, proven)
    if save is not None:
        session.say(f"written to {save}; anybody verifies it: hzc receipt verify {save}")


def fetch(proofs: ProofClient, known: Known, job: str, attempt: int | None = None) -> tuple[Body, Verified]:
    """A receipt from the platform, verified, and its checkpoint shown to be of the log that was seen before."""
    end = time.monotonic() + WAIT_S
    while (found := _ask(proofs, job, attempt, end)) is None:
        if time.monotonic() > end:
            raise errors.Unavailable(
                f"the receipt of {job} still waits for a checkpoint", hint="try again; if it stays so: hzc doctor"
            )
    _, key, _ = witness.look(proofs, known)
    proven = witness.verified(found, known, job=job, platform=key, agents=set())
    witness.extend(proofs, known, key, found["checkpoint"])
    return found, proven


def _ask(proofs: ProofClient, job: str, attempt: int | None, end: float) -> Body | None:
    """A receipt. That of an invocation is not there for about a second after the answer."""
    young = False
    if match := ID.fullmatch(job):
        young = abs(time.time() * 1000 - began_ms(match[1])) < YOUNG_MS
    while True:
        try:
            return proofs.receipt(job, attempt, wait_s=2.0)
        except errors.NotFound:
            if not young or time.monotonic() > end:
                raise
            time.sleep(0.2)


@receipt.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--job", help="It must be the receipt of this job or invocation.")
@click.option("--platform-key", metavar="KEY", help="The platform's key, instead of the pinned one.")
@click.option("--agent-key", metavar="SHA256", multiple=True, help="An agent's key that may have signed; repeatable.")
@output_option
@pass_session
def verify(session: Session, file: Path, job: str | None, platform_key: str | None, agent_key: tuple[str, ...]) -> None:
    """Verify the receipt in FILE, without any network.

    The keys of platforms and agents are pinned when they are first seen. The exit code is 0 when everything
    holds, 4 when something does not: it is named.
    """
    given = read_receipt(file)
    with open_known(session.home) as known:
        platform = None if platform_key is None else platform_key_of(platform_key)
        proven = witness.verified(given, known, job=job, platform=platform, agents=set(agent_key))
    tell(session, known)
    if session.json:
        session.print_json(
            {
                "valid": True,
                **_subject(proven),
                "state": proven.state,
                "token": proven.token,
                "units": str(proven.units),
                "billed": str(proven.billed),
                "index": proven.index,
                "platform_key": str(proven.platform_key),
                "agent_key": proven.agent_key,
                "proven": proven.proven,
                "pinned": known.news,
            }
        )
        return
    print_verified(session, proven)


def _subject(proven: Verified) -> Body:
    if proven.batch is not None:
        return {"invocation": proven.job, "batch": proven.batch["batch"]}
    return {"job": proven.job, "attempt": proven.attempt}


def read_receipt(file: Path) -> Any:
    """The JSON of a file.

    Raises:
        Rejected: it is none, so it is no receipt.
    """
    with file.open("rb") as source:
        data = source.read(FILE_MAX + 1)
    if len(data) > FILE_MAX:
        raise errors.Rejected(f"{file} is over {FILE_MAX} bytes: no receipt is", name="format")
    try:
        return json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise errors.Rejected(f"{file} is no receipt: {error}", name="format") from None


def _unique(pairs: list[tuple[str, Any]]) -> Body:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def platform_key_of(text: str) -> VerifierKey:
    """The key that an option gives."""
    try:
        return VerifierKey.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no key of a platform: {error}", param_hint="--platform-key") from None


def print_verified(session: Session, proven: Verified) -> None:
    """What a receipt proves, for people."""
    facts: list[tuple[str, Any]] = [("receipt", "everything in it holds")]
    state = f"{proven.state}, {format_time(proven.at_ms)} by the platform's clock"
    if proven.batch is not None and proven.statement is not None:
        facts += [("invocation", proven.job), ("function", proven.statement["function"]), ("state", state)]
    else:
        facts += [("job", proven.job), ("state", state), ("attempt", proven.attempt or "never ran")]
    price = show_money(proven.units, proven.decimals, proven.symbol)
    facts.append(("bill", f"{price} ({proven.units} base units of {proven.token})"))
    if proven.billed != proven.units:
        facts.append(("in all", f"{show_money(proven.billed, proven.decimals, proven.symbol)} with earlier attempts"))
    if proven.statement is not None:
        facts.append(("usage", usage_text(proven.statement["usage"])))
    facts.append(("log", f"leaf {proven.index} of {proven.checkpoint.size}, {proven.platform_key.name}"))
    print_pairs(session.console, facts)
    for sentence in proven.proven:
        click.echo(f"  proven: {escape_line(sentence)}")


def tell(session: Session, known: Known) -> None:
    """Say which keys have been pinned just now."""
    for news in known.news:
        session.say(f"new: {news}")
    if known.news:
        session.say("compare new keys with what the platform's operator publishes")
