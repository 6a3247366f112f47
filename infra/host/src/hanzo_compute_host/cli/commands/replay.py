"""`hzc replay`: what a receipt says of a run is compared with the run done again, here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import click

from hanzo_compute import errors
from hanzo_compute.model import spec as specs
from hanzo_compute.model.bounds import BLOB_MAX
from hanzo_compute.model.capabilities import of_source
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.transparency import replay as compared_by
from hanzo_compute.transparency.receipt import Verified
from hanzo_compute.transparency.replay import Difference, Scope
from hanzo_compute_host.cli import witness
from hanzo_compute_host.cli.commands.receipt import fetch, platform_key_of, read_receipt, tell
from hanzo_compute_host.cli.escape import escape_line
from hanzo_compute_host.cli.known import open_known
from hanzo_compute_host.cli.render import print_pairs
from hanzo_compute_host.cli.session import Session, client_options, pass_session

Body = dict[str, Any]

DIFFERENT: Final = 4
SPEC_MAX: Final = 4 * 1024 * 1024
RECEIPT, SPEC, MODULE, PACKAGE, INPUT = "receipt.json", "spec.json", "module.wasm", "package.zip", "input"
"""What a folder that `--save` has made holds."""
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a run is made of."""

    receipt: Body
    spec: Body
    module: bytes | None
    stdin: bytes


@click.command()
@click.argument("target", metavar="RECEIPT|JOB|FOLDER")
@click.option("--spec", type=_FILE, help="The job's spec, as `hzc show JOB -o json` has it in `spec`.")
@click.option("--module", type=_FILE, help="The module or package that ran.")
@click.option("--input", "input_", type=_FILE, help="What it read on standard input.")
@click.option("--attempt", type=click.IntRange(min=1), help="An earlier attempt of JOB that was billed.")
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), help="Keep all that it takes in a folder.")
@click.option("--platform-key", metavar="KEY", help="The platform's key, instead of the pinned one.")
@click.option("--agent-key", metavar="SHA256", multiple=True, help="An agent's key that may have signed; repeatable.")
@client_options
@pass_session
@click.pass_context
def replay(context: click.Context, session: Session, /, target: str, save: Path | None, **given: Any) -> None:
    """Run again, in the sandbox on this machine, what a receipt tells of, and compare.

    RECEIPT is a file of `hzc receipt show --save`; FOLDER is one of `hzc replay --save`, which needs no
    platform. What is not given is asked of the platform. The receipt is verified first.

    The exit code is 0 when the run is the same, 4 when something differs (it is named) or the receipt does not
    hold, 3 when the two cannot be compared: another version of the sandbox, or an end that time brought.
    """
    folder = Path(target) if Path(target).is_dir() else None
    if folder is not None:
        for option, name in (("spec", SPEC), ("module", MODULE), ("module", PACKAGE), ("input_", INPUT)):
            if given[option] is None and (folder / name).is_file():
                given[option] = folder / name
    receipt, proven = _receipt(session, target if folder is None else str(folder / RECEIPT), given)
    statement = proven.statement
    if statement is None:
        raise errors.NotComparable(
            f"nothing to replay: no agent signed for this end of {proven.job} ({proven.category})",
            hint=f"hzc show {proven.job} says how it ended",
        )
    spec = _spec(session, proven.job, given["spec"])
    parse_spec(spec, stored=True)
    found = of_source(spec["source"]).granted
    if found:
        raise errors.NotComparable(
            f"nothing to replay: {spec['source']['function']} has the capabilities {', '.join(found)}, and what it was "
            "answered by them is not on record",
            hint="a function without capabilities can be replayed",
        )
    module, stdin = _bytes(session, spec, given["module"], given["input_"])
    parts = Parts(receipt, spec, module, stdin)
    if save is not None:
        _save(parts, save)
        session.say(f"kept in {save}; anybody replays it: hzc replay {save}")
    scope = compared_by.scope(spec, statement)
    differences = [
        Difference(name, statement[name], digest)
        for name, digest in _digests(parts).items()
        if statement[name] != digest
    ]
    if not differences:
        differences = _run(session, parts, statement, scope)
    _show(session, proven, scope, differences)
    if differences:
        context.exit(DIFFERENT)


def _receipt(session: Session, target: str, given: Body) -> tuple[Body, Verified]:
    file = Path(target)
    with open_known(session.home) as known:
        if file.is_file():
            if given["attempt"] is not None:
                raise click.UsageError("--attempt is for a JOB: a receipt is of one attempt")
            found = read_receipt(file)
            key, agents = given["platform_key"], set(given["agent_key"])
            platform = None if key is None else platform_key_of(key)
            proven = witness.verified(found, known, job=None, platform=platform, agents=agents)
        elif file.suffix == ".json" or os.sep in target:
            raise click.BadParameter(f"there is no file {target}", param_hint="RECEIPT")
        else:
            found, proven = fetch(session.proofs, known, session.job_id(target), given["attempt"])
    tell(session, known)
    return found, proven


def _spec(session: Session, job: str, file: Path | None) -> Body:
    if file is None:
        found = session.jobs.get(job).get("spec")
    else:
        try:
            found = json.loads(_read(file, SPEC_MAX))
        except (ValueError, RecursionError) as error:
            raise errors.InvalidRequest(f"{file} is no job spec: {error}") from None
    if not isinstance(found, dict):
        raise errors.InvalidRequest("the job spec is not a JSON object", hint="hzc show JOB -o json has it in `spec`")
    return found


def _bytes(session: Session, spec: Body, module: Path | None, given: Path | None) -> tuple[bytes | None, bytes]:
    """The module or package, if it is one, and standard input: from files, from the spec, or from the platform."""
    code: bytes | None = None
    blob = specs.program_blob(spec["source"])
    if blob is not None:
        code = session.jobs.blob(blob) if module is None else _read(module, BLOB_MAX)
    elif module is not None:
        raise click.UsageError("--module: what ran was source code, which is in the spec")
    wanted = spec.get("input")
    if given is not None:
        if wanted is None:
            raise click.UsageError("--input: it read nothing on standard input")
        return code, _read(given, BLOB_MAX)
    if wanted is None:
        return code, b""
    if wanted.get("blob") is not None:
        return code, session.jobs.blob(wanted["blob"])
    return code, specs.Input.model_validate(wanted).data()


def _read(file: Path, most: int) -> bytes:
    with file.open("rb") as source:
        data = source.read(most + 1)
    if len(data) > most:
        raise errors.PayloadTooLarge(f"{file} is over {most} bytes")
    return data


def _digests(parts: Parts) -> Body:
    """What is about to run, as a statement names it."""
    spec, module = parts.spec, parts.module
    code = specs.code_digest(spec) if module is None else specs.sha256(module)
    read = None if spec.get("input") is None else specs.sha256(parts.stdin)
    return {"spec": specs.digest(spec), "code": code, "input": read}


def _save(parts: Parts, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in ((RECEIPT, parts.receipt), (SPEC, parts.spec)):
        (folder / name).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    if parts.module is not None:
        (folder / (PACKAGE if "package" in parts.spec["source"] else MODULE)).write_bytes(parts.module)
    if parts.spec.get("input") is not None:
        (folder / INPUT).write_bytes(parts.stdin)


def _run(session: Session, parts: Parts, statement: Mapping[str, Any], scope: Scope) -> list[Difference]:
    """Run it, and compare. Raises NotComparable."""
    from hanzo_compute import wiring
    from hanzo_compute.config import default_cache

    _comparable(compared_by.why_not(statement, statement["runtime"]["version"]))
    said = session.say if not session.json else _nothing
    ran = wiring.replay(parts.spec, parts.module, parts.stdin, default_cache(os.environ), said)
    ours = compared_by.restated(statement, parts.receipt["rates"], ran.outcome, ran.stdout)
    if compared_by.why_not(ours, ours["runtime"]["version"]) is not None:
        _comparable(f"it could not be run to its end here: {ran.outcome.detail}")
    _comparable(compared_by.why_not(statement, ours["runtime"]["version"]))
    return compared_by.compare(statement, ours, scope)


def _comparable(reason: str | None) -> None:
    if reason is not None:
        raise errors.NotComparable(f"cannot be compared: {reason}", hint="hzc version says what runs here")


def _nothing(_: str) -> None:
    pass


def _show(session: Session, proven: Verified, scope: Scope, differences: list[Difference]) -> None:
    statement = proven.statement
    assert statement is not None, "what was replayed was signed"
    checked = compared_by.names(statement, scope)
    if session.json:
        session.print_json(
            {
                "equal": not differences,
                "job": proven.job,
                "attempt": proven.attempt,
                "agent": proven.agent,
                "agent_key": proven.agent_key,
                "runtime": statement["runtime"]["version"],
                "scope": scope.why,
                "compared": checked,
                "differences": [asdict(each) for each in differences],
            }
        )
        return
    facts: list[tuple[str, Any]] = [("replay", "it is not what was signed" if differences else "the same")]
    facts += [("job", f"{proven.job}, attempt {proven.attempt}"), ("signed by", f"{proven.agent}, {proven.agent_key}")]
    facts += [("runtime", statement["runtime"]["version"]), ("compared", scope.why)]
    print_pairs(session.console, facts)
    for each in differences:
        click.echo(escape_line(f"  differs: {each.name}: signed {each.signed!r}, replayed {each.replayed!r}"))
