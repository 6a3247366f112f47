"""`hzc version` and `hzc completion`."""

from __future__ import annotations

import platform

import click
from click.shell_completion import get_completion_class

from hanzo_compute import __version__
from hanzo_compute_host.cli.session import Session, output_option, pass_session


@click.command()
@output_option
@pass_session
def version(session: Session) -> None:
    """Show the version of this command."""
    python = platform.python_version()
    if session.json:
        session.print_json({"version": __version__, "python": python})
    else:
        click.echo(f"hzc {__version__} (Python {python})")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@output_option
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash: eval "$(hzc completion bash)"
    zsh:  eval "$(hzc completion zsh)"
    fish: hzc completion fish | source
    """
    root = context.find_root()
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    script = found(root.command, {}, "hzc", "_HZC_COMPLETE").source()
    session = context.ensure_object(Session)
    if session.json:
        session.print_json({"shell": shell, "script": script})
    else:
        click.echo(script)
