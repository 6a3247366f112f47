"""``python -m hanzo_compute_host.front --fd N``: a process that serves HTTP on a socket it was given.

SIGUSR1: the platform is about to stop; whoever waits is answered, only agents are still served.
SIGTERM: finish what has been accepted, then end.
SIGUSR2: another process serves the socket from now on. Accept no more; answer whoever waits; say with the next answer
on each connection that it ends; close those that stay idle, but only after a while; then end. No request fails.
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
from uvicorn.server import ServerState

from hanzo_compute import ready, wiring
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
IDLE_S: Final = 3.0
"""Connections that nobody uses end this long after the front was told to retire."""
RETIRE_S: Final = 40.0
"""A front that was told to retire ends after this time whatever it still does."""
BACKLOG: Final = 2048
_TICK_S: Final = 0.1


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


class State(ServerState):
    """What connections ask their server."""

    retiring = False


class Server(uvicorn.Server):
    """uvicorn, with signals that reach the app first, on the loop."""

    def __init__(self, app: App) -> None:
        super().__init__(configure(app))
        self.server_state = self._state = State()
        self._app = app
        self._retired_at = 0.0

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle signals on the loop; a stop that was asked for is a normal end."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._app.stop)
        loop.add_signal_handler(signal.SIGUSR2, self.retire)
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        # The terminal's Ctrl-C is for the supervisor, which sends SIGTERM in its turn.
        loop.add_signal_handler(signal.SIGINT, self.stop)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and tell so."""
        await super().startup(sockets)
        ready.say(ready.READY)

    def retire(self) -> None:
        """Leave the socket to another process; end when every connection has ended."""
        if self._state.retiring:
            return
        self._state.retiring = True
        self._retired_at = asyncio.get_running_loop().time()
        for server in self.servers:
            server.close()
        self._retire_connections()  # first: what is answered now says that its connection ends
        self._app.retire()

    def _retire_connections(self) -> None:
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.retire(round(IDLE_S / _TICK_S))

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server."""
        if self._state.retiring:
            self._retire_connections()
            late = asyncio.get_running_loop().time() - self._retired_at > RETIRE_S
            if late or not self.server_state.connections:
                return True
        return await super().on_tick(counter)

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
        guests=wiring.guests(container.config),
    )
    Server(app).run(sockets=[socket.socket(fileno=options.fd)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
