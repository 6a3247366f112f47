"""`hzc attest`: evidence of what runs where - judged here, without any platform or network."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from pydantic_core import PydanticCustomError

from hanzo_compute import errors
from hanzo_compute.model.evidence import Platform
from hanzo_compute.model.spec import parse_time
from hanzo_compute_host.cli import appraisals, evidence_files, verdicts
from hanzo_compute_host.cli.commands.attest_collect import collect, selftest
from hanzo_compute_host.cli.escape import escape
from hanzo_compute_host.cli.evidence_files import Presented
from hanzo_compute_host.cli.pages import collect as collect_pages
from hanzo_compute_host.cli.render import age, print_table
from hanzo_compute_host.cli.session import Session, client_options, output_option, pass_session

if TYPE_CHECKING:
    from hanzo_compute.attestation import AttestationResult, Policy

F = TypeVar("F", bound=Callable[..., Any])

EXIT = {"accept": 0, "unavailable": 3, "reject": 4}
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def attest() -> None:
    """Evidence of what runs where: collect it, and judge it without any platform or network."""


attest.add_command(collect)
attest.add_command(selftest)


def _options(command: F) -> F:
    """What an appraisal is told, beside the evidence."""
    for option in (
        click.option("--nonce", metavar="HEX", help="What the evidence must answer, in the platform's own field."),
        click.option("--at", metavar="TIME", help="The time to judge at (RFC 3339); now, if it is not given."),
        click.option("--policy", default="baseline", show_default=True, help="A built-in policy, or a file of one."),
        click.option("--anchor", "anchors", multiple=True, type=FILE, help="A root to trust, PEM or DER; repeatable."),
        click.option("--file", "files", metavar="NAME=PATH", multiple=True, help="A file of the evidence; repeatable."),
        click.option("--platform", type=click.Choice([each.value for each in Platform]), help="What made it."),
    ):
        command = option(command)
    return command


@attest.command()
@_options
@click.option("--batch", metavar="MANIFEST", type=FILE, help="Judge each of the `cases` that a manifest lists.")
@output_option
@pass_session
def verify(
    session: Session,
    platform: str | None,
    files: tuple[str, ...],
    anchors: tuple[Path, ...],
    policy: str,
    at: str | None,
    nonce: str | None,
    batch: Path | None,
) -> None:
    """Judge evidence, offline: is it genuine, and does it satisfy a policy?

    \b
    hzc attest verify --platform snp --file report=report.bin --file vek=vcek.der
    hzc attest verify --batch evidence/manifest.json

    The exit code is 0 when it is accepted, 4 when it is rejected, 3 when that cannot be said because collateral is
    missing. With --batch there is one line of JSON for each case; the exit code is 0 when all were judged.
    """
    judge = _judge(policy, anchors, nonce)
    if batch is not None:
        if files or platform:
            raise click.UsageError("--batch takes platform and files from the manifest: leave --platform, --file out")
        for presented in evidence_files.manifest(batch):
            result = judge(presented, _at_ms(at))
            session.print_json({"id": presented.id} | result.as_json())
        return
    presented = evidence_files.named(_platform(platform), files)
    result = judge(presented, _at_ms(at))
    if session.json:
        session.print_json({"id": presented.id} | result.as_json())
    else:
        verdicts.summary(session.console, result)
    raise click.exceptions.Exit(EXIT[result.verdict.value])


@attest.command()
@_options
@click.option("--job", help="Instead of files: the newest appraisal of the runners of this job (an id, or `last`).")
@client_options
@pass_session
def explain(
    session: Session,
    platform: str | None,
    files: tuple[str, ...],
    anchors: tuple[Path, ...],
    policy: str,
    at: str | None,
    nonce: str | None,
    job: str | None,
) -> None:
    """Show every check of an appraisal: what was asked, by what, and what was found.

    \b
    hzc attest explain --platform tdx --file quote=quote.bin --file collateral=collateral.json
    hzc attest explain --job last
    hzc attest explain --job last --at 2026-01-31T12:00:00Z --policy draft.yaml

    With --job the appraisal is made again here from what the platform kept of it: as it was, or by another policy or
    at another time. Exit codes are those of `hzc attest verify`.
    """
    if job is None:
        presented = evidence_files.named(_platform(platform), files)
        name, result = presented.id, _judge(policy, anchors, nonce)(presented, _at_ms(at))
    else:
        if files or platform or anchors or nonce:
            raise click.UsageError("--job takes all but --policy and --at from the platform")
        told = click.get_current_context().get_parameter_source("policy") is not click.core.ParameterSource.DEFAULT
        name, result = _again(session, job, _policy(policy) if told else None, _at_ms(at))
    if session.json:
        session.print_json({"id": name} | result.as_json())
    else:
        verdicts.tree(session.console, result)
    raise click.exceptions.Exit(EXIT[result.verdict.value])


def _again(session: Session, job: str, policy: Policy | None, at_ms: int | None) -> tuple[str, AttestationResult]:
    """The newest appraisal of a job's runners, made again."""
    job_id = session.job_id(job)
    shown = session.keys.attestations(job_id)
    if not shown:
        raise errors.NotFound(f"no runner of {job_id} has presented evidence yet", hint="try again when it runs")
    return str(shown[0]["id"]), appraisals.fetch(session, shown[0]).again(policy, at_ms)


@attest.group("policy")
def policy_group() -> None:
    """Appraisal policies: built-in ones, files, and those that the platform keeps for you."""


@policy_group.command("check")
@click.argument("policy")
@output_option
@pass_session
def check_policy(session: Session, policy: str) -> None:
    """Check POLICY, a built-in one or a file, and show all that it says, with its defaults."""
    found = _policy(policy)
    _show(session, found.model_dump(mode="json"), {"digest": found.digest()})
    session.say(f"{found.name}@{found.version}, SHA-256 {found.digest()}")


@policy_group.command("put")
@click.argument("name")
@click.argument("file", type=FILE)
@client_options
@pass_session
def put_policy(session: Session, name: str, file: Path) -> None:
    """Put FILE as the next version of the policy NAME.

    By `default` runners are appraised that want a key of your jobs.
    """
    made = session.keys.put_policy(name, file.read_text(encoding="utf-8", errors="replace"))
    if session.json:
        session.print_json(made)
    else:
        session.say(f"{made['name']}: version {made['version']}")


@policy_group.command("show")
@click.argument("name")
@click.option("--version", type=click.IntRange(min=1), help="An earlier one.")
@client_options
@pass_session
def show_policy(session: Session, name: str, version: int | None) -> None:
    """Show the policy NAME as the platform has it."""
    found = session.keys.policy(name, version)
    _show(session, found["policy"], {"digest": found["digest"]})


@policy_group.command("ls")
@client_options
@pass_session
def list_policies(session: Session) -> None:
    """List your policies by name."""
    items, _ = collect_pages(lambda cursor, limit: session.keys.policies(cursor=cursor, limit=limit))
    if session.json:
        session.print_json({"items": items})
    elif not items:
        session.say("no policies")
    else:
        rows = [[each["name"], each["version"], each["digest"][:16], age(each["updated_at"])] for each in items]
        print_table(session.console, ["NAME", "VERSION", "SHA-256", "PUT"], rows)


def _show(session: Session, document: dict[str, Any], more: dict[str, Any]) -> None:
    if session.json:
        session.print_json(document | more)
    else:
        import yaml

        click.echo(escape(yaml.safe_dump(document, sort_keys=False)).rstrip())


def _judge(
    policy: str, anchors: tuple[Path, ...], nonce: str | None
) -> Callable[[Presented, int | None], AttestationResult]:
    from hanzo_compute.attestation import appraise, refused

    chosen, given = _policy(policy), tuple(each.read_bytes() for each in anchors)
    asked = _nonce(nonce)

    def judge(presented: Presented, at_ms: int | None) -> AttestationResult:
        given_ms = presented.at_ms if at_ms is None else at_ms
        now_ms = time.time_ns() // 1_000_000 if given_ms is None else given_ms
        if presented.evidence is None:
            return refused(presented.platform, presented.problem, chosen, now_ms)
        return appraise(presented.evidence, chosen, {}, now_ms, nonce=asked, anchors=given)

    return judge


def _policy(name: str) -> Policy:
    from hanzo_compute.attestation import builtin, policy

    if name in policy.BUILTIN:
        return builtin(name)
    path = Path(name)
    if not path.is_file():
        raise click.UsageError(f"--policy: {name} is no built-in policy ({', '.join(policy.BUILTIN)}) and no file")
    return policy.parse(path.read_text(encoding="utf-8", errors="replace"))


def _platform(value: str | None) -> Platform:
    if value is None:
        raise click.UsageError("--platform is needed: " + ", ".join(each.value for each in Platform))
    return Platform(value)


def _nonce(value: str | None) -> bytes | None:
    try:
        return None if value is None else bytes.fromhex(value)
    except ValueError:
        raise click.UsageError("--nonce: it is written as hex digits, two for a byte") from None


def _at_ms(value: str | None) -> int | None:
    try:
        return None if value is None else parse_time(value)
    except PydanticCustomError as error:
        raise click.UsageError(f"--at: {error.message()}") from None
