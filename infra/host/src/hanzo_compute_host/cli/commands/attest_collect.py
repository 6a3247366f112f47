"""`hzc attest collect` and `hzc attest selftest`: evidence of this machine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hanzo_compute import __version__
from hanzo_compute.errors import ComputeError, InternalError
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute_host.cli import verdicts
from hanzo_compute_host.cli.evidence_bundle import MANIFEST, Bundle, as_json, check_new, write_archive, write_folder
from hanzo_compute_host.cli.failure import problem_of
from hanzo_compute_host.cli.render import cell, print_table, size
from hanzo_compute_host.cli.session import Session, output_option, pass_session

if TYPE_CHECKING:
    from hanzo_compute.attestation import AttestationResult
    from hanzo_compute.ports import Found

NONCE: Final = 32
UNAVAILABLE: Final = 3
REJECTED: Final = 4
TCTI: Final = click.option(
    "--tcti", metavar="TCTI", help="Another TPM than this machine's, like swtpm:host=127.0.0.1,port=2321."
)


@click.command()
@click.option("--nonce", metavar="HEX", help="What the evidence is to answer: 32 bytes. A new one, if it is not given.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="evidence", show_default=True, help="A new folder for the files."
)
@click.option("--platform", type=click.Choice([each.value for each in Platform]), help="Leave the others out.")
@TCTI
@output_option
@pass_session
def collect(session: Session, nonce: str | None, out: Path, platform: str | None, tcti: str | None) -> None:
    """Collect evidence of this machine: of its CPU, GPUs and TPM, whatever is ready.

    \b
    hzc attest collect --out evidence
    hzc attest verify --batch evidence/manifest.json

    It answers the nonce, and commits to no keys: it is for looking. The exit code is 3 when nothing is ready.
    """
    from hanzo_compute import wiring

    given = _nonce(nonce)
    check_new(out)
    found = wiring.attester(tcti).answer(given, Platform(platform) if platform else None)
    bundle = Bundle(found, given, _now_ms())
    write_folder(out, bundle.files())
    if session.json:
        session.print_json(bundle.manifest() | {"manifest": str(out / MANIFEST), "nonce": given.hex()})
        return
    rows = [
        [name, ", ".join(f"{file} ({size(len(data))})" for file, data in each.files.items())]
        for name, each in bundle.named()
    ]
    print_table(session.console, ["EVIDENCE", "FILES"], rows)
    session.say(f"nonce {given.hex()}")
    session.say(f"judge it: hzc attest verify --batch {out / MANIFEST} --nonce {given.hex()}")


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="The archive to write (default: attest-selftest-TIME.tar.gz)."
)
@click.option(
    "--anchor",
    "anchors",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A root to trust, PEM or DER; repeatable.",
)
@TCTI
@output_option
@pass_session
def selftest(session: Session, out: Path | None, anchors: tuple[Path, ...], tcti: str | None) -> None:
    """Collect evidence of whatever this machine has, judge it by the policy `baseline`, and archive both.

    The archive is what to send of a machine on which something does not work; there are no secrets in it. Exit codes:
    0 all was accepted, 3 there is no hardware or a part of it failed, 4 something was rejected.
    """
    from hanzo_compute import wiring

    path = out or Path(f"attest-selftest-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz")
    check_new(path)
    attester = wiring.attester(tcti)
    looked = attester.detect()
    nonce, at_ms = secrets.token_bytes(NONCE), _now_ms()
    evidence: list[Evidence] = []
    failures: dict[str, ComputeError] = {}
    for platform in [each.platform for each in looked if each.platform and each.ready]:
        try:
            evidence += attester.answer(nonce, platform)
        except ComputeError as error:
            failures[platform.value] = error
    bundle = Bundle(evidence, nonce, at_ms)
    results = _judged(bundle, anchors, failures)
    document = _document(looked, failures, results)
    if evidence:
        write_archive(path, bundle.files() | {"result.json": as_json(document)}, at_ms)
    if session.json:
        session.print_json(document | {"archive": str(path) if evidence else None})
    else:
        _show(session, looked, failures, results)
        session.say(f"written to {path}" if evidence else "nothing to archive: no evidence was collected")
    raise click.exceptions.Exit(_code(failures, results))


def _judged(bundle: Bundle, anchors: Sequence[Path], failures: dict[str, ComputeError]) -> dict[str, AttestationResult]:
    from hanzo_compute.attestation import appraise, builtin

    roots, policy = [each.read_bytes() for each in anchors], builtin("baseline")
    results: dict[str, AttestationResult] = {}
    for name, each in bundle.named():
        try:
            results[name] = appraise(each, policy, {}, bundle.at_ms, nonce=bundle.nonce, anchors=roots)
        except ComputeError as error:
            failures[name] = error
        except Exception as error:
            # A defect of ours that only this machine shows: its evidence must be archived all the same.
            failures[name] = InternalError(f"the appraisal broke: {type(error).__name__}: {error}")
    return results


def _document(
    looked: Sequence[Found], failures: dict[str, ComputeError], results: dict[str, AttestationResult]
) -> dict[str, Any]:
    return {
        "version": __version__,
        "found": [each.as_json() for each in looked],
        "failures": {name: problem_of(error) for name, error in failures.items()},
        "results": [{"id": name} | result.as_json() for name, result in results.items()],
    }


def _show(
    session: Session,
    looked: Sequence[Found],
    failures: dict[str, ComputeError],
    results: dict[str, AttestationResult],
) -> None:
    rows = []
    for each in looked:
        style = "green" if each.ready else "dim"
        remedy = "; ".join(one.remedy for one in each.missing)
        rows.append([each.name, cell("ready" if each.ready else "not ready", style), each.summary, remedy])
    print_table(session.console, ["SOURCE", "STATE", "FOUND", "WHAT IT WOULD TAKE"], rows)
    for name, error in failures.items():
        session.say(f"{name}: {error.message}" + (f" (try: {error.hint})" if error.hint else ""))
    for name, result in results.items():
        session.console.print(f"\n{name}")
        verdicts.summary(session.console, result)
    if not failures and not results:
        session.say("no evidence: there is no hardware here that gives any, and none is made up")


def _code(failures: dict[str, ComputeError], results: dict[str, AttestationResult]) -> int:
    found = {result.verdict.value for result in results.values()}
    if "reject" in found:
        return REJECTED
    return UNAVAILABLE if failures or not results or "unavailable" in found else 0


def _nonce(value: str | None) -> bytes:
    if value is None:
        return secrets.token_bytes(NONCE)
    try:
        found = bytes.fromhex(value)
    except ValueError:
        found = b""
    if len(found) != NONCE:
        raise click.UsageError(f"--nonce: it is {2 * NONCE} hex digits")
    return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
