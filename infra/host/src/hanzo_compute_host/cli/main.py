"""Entry point of `hzc`: which commands there are, and how their ends become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, Final, NoReturn

import click

from hanzo_compute import errors
from hanzo_compute_host.cli.failure import show_failure
from hanzo_compute_host.cli.session import Session, client_options

INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

COMMANDS: Final = {
    "up": "platform:up",
    "down": "platform:down",
    "restart": "platform:restart",
    "demo": "demo:demo",
    "run": "run:run",
    "submit": "run:submit",
    "ls": "jobs:ls",
    "show": "show:show",
    "why": "why:why",
    "logs": "logs:logs",
    "result": "result:result",
    "cancel": "jobs:cancel",
    "rerun": "run:rerun",
    "fn": "fn:fn",
    "secret": "secret:secret",
    "quote": "quote:quote",
    "plan": "plan:plan",
    "receipt": "receipt:receipt",
    "replay": "replay:replay",
    "log": "log:log",
    "attest": "attest:attest",
    "adapter": "adapter:adapter",
    "bench": "bench:bench",
    "key": "key:key",
    "dlq": "jobs:dlq",
    "schedule": "schedule:schedule",
    "regimes": "why:regimes",
    "backup": "backup:backup",
    "restore": "backup:restore",
    "doctor": "doctor:doctor",
    "version": "about:version",
    "completion": "about:completion",
}


class Commands(click.Group):
    """Imports a command's module when the command is asked for: starting `hzc` stays quick."""

    def main(self, args: Sequence[str] | None = None, *others: Any, **extra: Any) -> NoReturn:
        """Run a command line; every end of it is an exit code of the table below."""
        sys.exit(self._code(list(sys.argv[1:] if args is None else args), extra.get("prog_name") or "hzc"))

    def _code(self, args: list[str], prog_name: str) -> int:
        session: Session | None = None
        try:
            session = Session()
            code = super().main(args, prog_name=prog_name, standalone_mode=False, obj=session)
            return code if isinstance(code, int) else 0
        except (KeyboardInterrupt, click.Abort):
            return INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            return 2
        except click.ClickException as error:
            usage = errors.InvalidRequest(error.format_message(), hint=_usage_hint(error))
            show_failure(usage, as_json=session is not None and session.json)
            return 2
        except errors.ComputeError as error:
            show_failure(error, as_json=session is not None and session.json)
            return error.exit_code
        except OSError as error:  # a file of the reader's: what and where say enough
            where = f"{error.filename}: " if error.filename else ""
            show_failure(
                errors.InvalidRequest(f"{where}{error.strerror or error}"), as_json=session is not None and session.json
            )
            return 2

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader of our pipe who has left is no error (click itself would exit with 1)."""
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
            return found
        except BrokenPipeError:
            _drop_output()
            raise click.exceptions.Exit(BROKEN_PIPE) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"hanzo_compute_host.cli.commands.{module}"), name)
        return command


EPILOG = """
Exit codes: 0 ok, 1 a job failed, 2 usage, 3 evidence or collateral unavailable, 4 rejected or denied,
5 no capacity, 6 cannot reach the platform.
"""


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@client_options
@click.pass_context
def cli(context: click.Context) -> None:
    """Run programs in a sandbox, on one machine or many."""
    context.ensure_object(Session)


def main() -> NoReturn:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A C locale cannot encode everything; a traceback would help nobody.
            stream.reconfigure(errors="backslashreplace")
    cli.main(sys.argv[1:], prog_name="hzc")


def _usage_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else None


def _drop_output() -> None:
    """What is left in the buffer has no reader: keep the interpreter from trying again at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
