"""`hzc key`: the keys of sealed jobs - how their runners were appraised, and who gets them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import click

from hanzo_compute import errors
from hanzo_compute.security import hpke
from hanzo_compute_host.cli import appraisals, data_keys, verdicts
from hanzo_compute_host.cli.render import age, print_table
from hanzo_compute_host.cli.session import Session, client_options, pass_session

Body = dict[str, Any]

POLL_S: Final = 1.0


@click.group()
def key() -> None:
    """Keys of sealed jobs: who asked for them, with what evidence, and who gets them."""


@key.command()
@click.argument("job")
@client_options
@pass_session
def attestations(session: Session, job: str) -> None:
    """Show how the runners of JOB were appraised, the newest first."""
    found = session.keys.attestations(session.job_id(job))
    if session.json:
        session.print_json({"items": found})
    elif not found:
        session.say("no runner has presented evidence yet")
    else:
        rows = [
            [
                age(each["at"]),
                each["attempt"],
                each["verdict"],
                each["tier"],
                each["policy"],
                ", ".join(each["reasons"]),
            ]
            for each in found
        ]
        print_table(session.console, ["WHEN", "ATTEMPT", "VERDICT", "TIER", "POLICY", "REASONS"], rows)


@key.command()
@click.argument("job")
@client_options
@pass_session
def deposit(session: Session, job: str) -> None:
    """Give the platform the key of JOB, of tier 0 or 1, again: `hzc run --privacy-tier` has done so."""
    job_id = session.job_id(job)
    session.keys.deposit(job_id, data_keys.find(session.home, _data_key(session, job_id)))
    session.say(f"the platform has the key of {job_id}")


@key.command()
@click.argument("job")
@click.option(
    "--policy",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What the runner's evidence must show.",
)
@click.option("--wait", default=60, show_default=True, type=click.IntRange(0), help="Seconds to wait for a runner.")
@client_options
@pass_session
def release(session: Session, job: str, policy: Path, wait: int) -> None:
    """Judge the evidence of the runner of JOB here, and seal the job's key to it.

    The platform passes evidence and sealed key on, and never has the key. The exit code is 0 when the key was sealed,
    4 when the evidence was not good enough: `hzc attest explain --job JOB` says why.
    """
    from hanzo_compute.attestation import policy as policies

    chosen = policies.parse(policy.read_text(encoding="utf-8", errors="replace"))
    if not chosen.release_keys:
        raise errors.InvalidRequest(f"{policy} is not for releasing keys", hint="set release_keys: true in it")
    job_id = session.job_id(job)
    secret = data_keys.find(session.home, _data_key(session, job_id))
    shown = _awaited(session, job_id, wait)
    kept = appraisals.fetch(session, shown)
    result, recipient = kept.judged(chosen, time.time_ns() // 1_000_000), kept.binding.sealing_key
    wanted = int(session.jobs.get(job_id)["spec"].get("privacy_tier", 0))
    if result.verdict.value != "accept" or result.tier < wanted:
        verdicts.summary(session.console, result)
        raise errors.Rejected(
            f"the evidence of attempt {shown['attempt']} proves tier {int(result.tier)}, and {wanted} is asked for: "
            "the key stays here",
            name="evidence",
        )
    boxed = hpke.seal(recipient, secret, hpke.info(job_id, shown["attempt"]))
    session.keys.entrust(job_id, shown["attempt"], recipient, boxed)
    session.say(
        f"the key of {job_id} is sealed to the runner of attempt {shown['attempt']}, of tier {int(result.tier)}"
    )


def _awaited(session: Session, job: str, wait_s: int) -> Body:
    """The newest appraisal of the attempt that runs."""
    end = time.monotonic() + wait_s
    while True:
        attempt = session.jobs.get(job)["attempt"]
        for each in session.keys.attestations(job):
            if each["attempt"] == attempt:
                return each
        if time.monotonic() >= end:
            raise errors.Unavailable(
                f"no runner of {job} has presented evidence yet", hint="try again when it runs: hzc show JOB"
            )
        time.sleep(POLL_S)


def _data_key(session: Session, job: str) -> str:
    digest = session.jobs.get(job)["spec"].get("data_key")
    if digest is None:
        raise errors.InvalidRequest(f"{job} is not sealed: it has no data_key", hint="hzc run --privacy-tier N")
    return str(digest)
