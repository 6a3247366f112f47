"""The process that owns the database: ``python -m hanzo_compute.adapters.local.writer --home DIR``.

Everything else on the machine sends it transactions over ``DIR/run/writer.sock``. It can be killed at any
moment: what it called durable is on disk, and no transaction is there by half. On SIGTERM it finishes the
open batch and says goodbye to its clients. With ``HZC_TAKEOVER=1`` it waits for the writer that runs to end, and
follows it within milliseconds.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hanzo_compute import ready
from hanzo_compute.adapters.local import frames, schema
from hanzo_compute.adapters.local.engine import Engine, StoreUnusable
from hanzo_compute.adapters.local.integrity import DamagedDatabase, DatabaseRefused
from hanzo_compute.adapters.local.server import Server

EXIT_REFUSED: Final = 1
"""The database cannot be opened."""
EXIT_LOCKED: Final = 3
"""Another writer owns this home."""
EXIT_NEWER: Final = 4
"""The database is of a newer release."""
EXIT_DAMAGED: Final = 5
"""The database is damaged."""
EXIT_DISK: Final = 6
"""The disk does not confirm what is written, or the database was found damaged while it was used."""
EXIT_UPGRADE: Final = 7
"""It cannot follow the writer that runs: the database must be migrated, or its clients started anew."""

_BACKLOG: Final = 128


def socket_path(home: Path) -> Path:
    """Where the writer of a state folder listens."""
    return home / "run" / "writer.sock"


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="hanzo-compute-writer", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="state folder")
    home: Path = parser.parse_args(argv).home.absolute()
    logging.basicConfig(level=logging.INFO, format="writer: %(message)s")
    try:
        return _run(home)
    except OSError as error:
        return _refuse(f"cannot use {home}: {error}; see whether the disk is full or read-only", EXIT_REFUSED)


def _run(home: Path) -> int:
    for folder in (home, home / "db", home / "run"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(home / "run" / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    takes_over = ready.takes_over()
    if takes_over and (reason := _cannot_follow(home)):
        return _refuse(reason, EXIT_UPGRADE)
    try:
        if takes_over:
            ready.say(ready.STANDING_BY)
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if takes_over else fcntl.LOCK_NB))
    except BlockingIOError:
        return _refuse(f"another writer owns {home}: stop it, or use another HZC_HOME", EXIT_LOCKED)
    path = schema.path_of(home)
    try:
        db = schema.open_for_writing(path)
    except schema.NewerSchema as error:
        return _refuse(str(error), EXIT_NEWER)
    except DamagedDatabase as error:
        return _refuse(str(error), EXIT_DAMAGED)
    except DatabaseRefused as error:
        return _refuse(str(error), EXIT_REFUSED)
    try:
        _serve(socket_path(home), Engine(db, path))
    except StoreUnusable as error:
        _refuse(str(error), EXIT_DISK)
        sys.stderr.flush()
        os._exit(EXIT_DISK)  # closing the database in good order would write to it
    return 0


def _refuse(message: str, code: int) -> int:
    print(f"writer: {message}", file=sys.stderr)
    return code


def _cannot_follow(home: Path) -> str | None:
    """Why this release cannot take over from the writer that runs, or None."""
    try:
        found, known = schema.version(schema.path_of(home)), len(schema.MIGRATIONS)
        spoken = frames.spoken_at(socket_path(home))
    except (OSError, sqlite3.Error) as error:
        return f"the writer that runs cannot be followed: {error}"
    if found != known:
        return f"this release migrates the database (schema version {found} to {known}): hzc down, then hzc up"
    if spoken != frames.PROTOCOL:
        return f"this release speaks protocol {frames.PROTOCOL}, what runs speaks {spoken}: hzc down, then hzc up"
    return None


def _serve(path: Path, engine: Engine) -> None:
    with _listen(path) as listener:
        server = Server(listener, engine)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            signal.set_wakeup_fd(theirs.fileno())
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: server.stop())
            server.wake_by(ours)
            ready.say(ready.READY)
            server.run()
            signal.set_wakeup_fd(-1)
    path.unlink(missing_ok=True)
    engine.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The lock is ours, so a socket that is there belongs to a writer that was killed.
    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        with frames.address(path) as name:
            listener.bind(name)
    finally:
        os.umask(mask)
    listener.listen(_BACKLOG)
    return listener


if __name__ == "__main__":
    sys.exit(main())
