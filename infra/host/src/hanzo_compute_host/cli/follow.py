"""A job followed to its end: its log as it comes, its result, and a summary."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING, Any

import click

from hanzo_compute_host.cli import data_keys
from hanzo_compute_host.cli.escape import escape_bytes
from hanzo_compute_host.cli.render import end_text, usage_text
from hanzo_compute_host.cli.session import Session, is_terminal, write_text

if TYPE_CHECKING:
    from hanzo_compute.wiring import JobsClient


def follow_to_end(session: Session, job: str) -> int:
    """Show a job until it has ended; 0 if it succeeded, else 1.

    A terminal shows the log. In a pipe, standard output carries the result's bytes and nothing else.
    With ``-o json`` each log entry is a line, and the result the last.
    """
    try:
        shown = _show_log(session, job)
        session.jobs.wait(job)
    except KeyboardInterrupt:
        session.say(f"detached; {job} goes on. hzc logs -f {job} follows it again, hzc cancel {job} ends it")
        click.get_current_context().exit(130)
    result = session.jobs.result(job)
    sealed_log = stdout_of(session, result, "log")
    if sealed_log and not session.json:
        write_text(sealed_log.decode(errors="replace"), err=True)
    if session.json:
        session.print_json(result)
    elif not is_terminal(sys.stdout):
        write_bytes(stdout_of(session, result))
    elif shown and shown != "\n":
        click.echo()
    summarise(session, result)
    return 0 if result["state"] == "succeeded" else 1


def summarise(session: Session, result: dict[str, Any]) -> None:
    """One line about the end of a job, and what was cut, on standard error."""
    outcome = result.get("outcome")
    text = f"{result['id']} {end_text(result['state'], outcome, result.get('reason'))}"
    session.say(text + (f" · {usage_text(outcome['usage'])}" if outcome else ""))
    for name in (outcome or {}).get("truncated", []):
        session.say(f"{name} was cut at its limit")


def stdout_of(session: Session, result: dict[str, Any], name: str = "stdout") -> bytes:
    """The bytes that a job wrote to standard output, or another output; empty if it left none."""
    return data_keys.opened(session, result["id"], name, output_of(session.jobs, result, name))


def output_of(jobs: JobsClient, result: dict[str, Any], name: str = "stdout") -> bytes:
    """An output as the platform has it, of a sealed job sealed; empty if there is none."""
    outcome = result.get("outcome") or {}
    for output in outcome.get("outputs", []):
        if output["name"] == name:
            inline = output.get("inline_base64")
            return jobs.output(result["id"], name) if inline is None else base64.b64decode(inline)
    return b""


def write_bytes(data: bytes) -> None:
    """A job's output: exactly its bytes in a pipe or file, harmless text on a terminal."""
    if is_terminal(sys.stdout):
        click.echo(escape_bytes(data), nl=bool(data) and not data.endswith(b"\n"))
    else:
        stream = sys.stdout.buffer
        stream.write(data)
        stream.flush()


def _show_log(session: Session, job: str) -> str:
    """Print the log to its end; returns the last character that a terminal was shown."""
    terminal = is_terminal(sys.stdout)
    last = ""
    for entry in session.jobs.follow(job):
        if session.json:
            session.print_json(entry)
        elif entry["stream"] == "stderr" or terminal:
            write_text(entry["text"], err=entry["stream"] == "stderr")
            last = entry["text"][-1:] or last
    return last
