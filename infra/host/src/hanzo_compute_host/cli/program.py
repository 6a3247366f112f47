"""`hzc run --local`: a program in the sandbox of this machine, without a platform."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from hanzo_compute import config
from hanzo_compute.model import bounds
from hanzo_compute_host.cli.build import LANGUAGES
from hanzo_compute_host.cli.escape import escape_line
from hanzo_compute_host.cli.folder import packed
from hanzo_compute_host.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

LOCAL: Final = ("local", "exit_code", "folders")
"""Options that are about programs run here."""
MEANT: Final = frozenset({"env", "memory", "timeout", "fuel", "input_", "profile", "entry"})
"""Options of a job that mean something here, too."""
TRAPPED: Final = 134
"""Exit status of a program that trapped, as of one that aborted."""
TIMED_OUT: Final = 124
"""… of one whose time was over, as of timeout(1)."""


def folder(value: str) -> tuple[str, str]:
    """``HOST::GUEST`` as a folder of this machine and its name for the program; without ``::`` both are the same."""
    host, _, guest = value.partition("::")
    if not Path(host).is_dir():
        raise click.BadParameter(f"{host!r} is no folder")
    return str(Path(host).resolve()), guest or host


def local_options(command: F) -> F:
    """Adds the options of programs that are run here."""
    for option in (
        click.option(
            "--dir",
            "folders",
            type=folder,
            metavar="HOST::GUEST",
            multiple=True,
            help="With --local: a folder that the program may read and write; repeatable.",
        ),
        click.option("--exit-code", is_flag=True, help="With --local: exit as the program did (134: it trapped)."),
        click.option("--local", is_flag=True, help="Run FILE here, without a platform."),
    ):
        command = option(command)
    return command


def run_local(
    session: Session,
    file: str | None,
    args: tuple[str, ...],
    given: dict[str, Any],
    *,
    exit_code: bool,
    folders: tuple[tuple[str, str], ...],
) -> int:
    """Run FILE here; the exit code of the command."""
    from hanzo_compute import wiring

    stray = [name for name, value in given.items() if value not in (None, (), False) and name not in MEANT]
    if stray:
        raise click.UsageError(f"--{stray[0].replace('_', '-')} means nothing with --local")
    if file is None:
        raise click.UsageError("Missing argument 'FILE'.")
    path = Path(file)
    made = packed(path, given["entry"]) if path.is_dir() else None
    if made is None and given["entry"] is not None:
        raise click.UsageError(f"--entry names a file of a folder, and {file} is none")
    if made is None and path.suffix not in (".wasm", *LANGUAGES):
        raise click.UsageError(f"{file}: --local runs files that end in .wasm, {', '.join(LANGUAGES)}, and folders")
    program = wiring.local_program(
        file=path if made is None else Path(made.entry),
        language=LANGUAGES.get(path.suffix) if made is None else made.language,
        package=None if made is None else made.data,
        args=args,
        env=dict(given["env"]),
        folders=folders,
        memory_mib=given["memory"] or bounds.MEMORY_MIB_DEFAULT,
        timeout_s=given["timeout"],
        fuel=given["fuel"],
        deterministic=given["profile"] == "deterministic",
        stdin=None if given["input_"] in (None, "-") else Path(given["input_"]).resolve(strict=True),
    )
    ended = wiring.run_local(program, config.default_cache(os.environ), _write, session.say)
    if ended.exit_code is None:
        click.echo(f"hzc: {escape_line(path.name)}: {escape_line(ended.why)}", err=True)
        if exit_code:
            return TIMED_OUT if ended.timed_out else TRAPPED
        return 1
    return ended.exit_code & 0xFF if exit_code else int(ended.exit_code != 0)


def _write(stream: int, data: bytes) -> None:
    out = sys.stdout if stream == 1 else sys.stderr
    out.flush()
    view = memoryview(data)
    while view:
        view = view[os.write(out.fileno(), view) :]
