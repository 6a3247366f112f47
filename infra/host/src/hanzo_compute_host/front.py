"""``python -m hanzo_compute_host.front --fd N``: a process that serves HTTP on a socket it was given.

SIGUSR1: the platform is about to stop; whoever waits is answered, only agents are still served.
SIGTERM: finish what has been accepted, then end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Generator
from typing import Final

import uvicorn

from hanzo_compute.security.authorizer import known
from hanzo_compute.services import credentials
from hanzo_compute_host import limits, process
from hanzo_compute_host.functions import Functions
from hanzo_compute_host.http import App
from hanzo_compute_host.protocol import Protocol

KEEP_ALIVE_S: Final = 75
"""An idle connection stays open this long."""
GRACE_S: Final = 5
"""What is being answered when the process is told to end has this long."""
BACKLOG: Final = 2048


def configure(app: App) -> uvicorn.Config:
    """uvicorn's settings."""
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
    )


class Server(uvicorn.Server):
    """uvicorn, with signals that reach the app first, on the loop."""

    def __init__(self, app: App) -> None:
        super().__init__(configure(app))
        self._app = app

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals on the loop; a stop that was asked for is a normal end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._app.stop)
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        # The terminal's Ctrl-C is for the supervisor, which sends SIGTERM in its turn.
        loop.add_signal_handler(signal.SIGINT, self.stop)
        yield

    def stop(self) -> None:
        """Accept no more, answer whoever waits, and end."""
        self._app.stop()
        self.should_exit = True


def main(argv: list[str] | None = None) -> int:
    """The front's process."""
    parser = argparse.ArgumentParser(prog="python -m hanzo_compute_host.front", description=main.__doc__)
    parser.add_argument("--fd", type=int, required=True, help="descriptor of a listening socket")
    options = parser.parse_args(argv)
    manifest = process.prepare()
    functions = Functions(manifest, dict.fromkeys(route.function for route in manifest.routes), watchdog=True)
    container = process.container()
    app = App(
        manifest,
        functions,
        commits=container.commits,
        blobs=container.blobs,
        clock=container.clock,
        ids=container.ids,
        admit=lambda header: known(credentials.authenticate(container, header)),
        limits=limits.from_system(),
    )
    Server(app).run(sockets=[socket.socket(fileno=options.fd)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
