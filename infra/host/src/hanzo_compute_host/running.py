"""Which platform runs in a state folder: its lock, and ``run/platform.json`` that tells others about it."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from hanzo_compute.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, Unavailable
from hanzo_compute.model.stored import UNFINISHED

POLL_S: Final = 0.05
FORCE_S: Final = 5.0
"""After a stop that took too long and was forced, this long until it must be over."""


@contextlib.contextmanager
def claim(home: Path) -> Iterator[None]:
    """Be the one platform of ``home``. The kernel lets go of the lock however this process ends.

    Raises:
        Conflict: another one runs there.
        InvalidRequest, PermissionDenied: see :func:`own`.
    """
    with _locked(home, str(os.getpid())):
        published = home / "run" / "platform.json"
        # One that was killed could not take back what it had said, nor what it was about to say.
        published.unlink(missing_ok=True)
        for place in (home, home / "run", home / "keys"):
            for path in place.glob(".*"):
                # Nothing else is touched: the folder may be somebody's own.
                if UNFINISHED.fullmatch(path.name) and path.is_file():
                    path.unlink(missing_ok=True)
        try:
            yield
        finally:
            published.unlink(missing_ok=True)


@contextlib.contextmanager
def hold(home: Path, doing: str) -> Iterator[None]:
    """Keep platforms out of ``home`` while a command works on it; ``doing`` is that command's name.

    Raises:
        Conflict: a platform runs there, or another command works on it.
        InvalidRequest, PermissionDenied: see :func:`own`.
    """
    with _locked(home, f"{doing}, process {os.getpid()}"):
        yield


@contextlib.contextmanager
def _locked(home: Path, holder: str) -> Iterator[None]:
    own(home)
    folder = home / "run"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "lock"
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(home, path.read_text()) from None
        try:
            ours = os.path.samestat(os.fstat(lock.fileno()), path.stat())
        except FileNotFoundError:
            ours = False
        if not ours:  # a restore put another folder in place between the two
            raise Conflict(f"{home} was replaced just now", hint="try again")
        lock.truncate(0)
        lock.write(holder)
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def _taken(home: Path, holder: str) -> Conflict:
    if holder and not holder.isdecimal():
        return Conflict(f"a command works on {home} ({holder})", hint="wait until it has ended")
    return Conflict(
        f"a platform already runs in {home} (process {holder or 'unknown'})",
        hint="stop it with: hzc down; or set HZC_HOME to another folder",
    )


def own(home: Path) -> None:
    """Make the state folder, or make sure that it is ours alone: what lies in it is trusted.

    Raises:
        InvalidRequest: it cannot be a folder.
        PermissionDenied: it belongs to another user, or others may write to it.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = home.stat()
    except OSError as error:
        raise InvalidRequest(
            f"{home} cannot be the state folder: {error.strerror}", hint="set HZC_HOME to a folder of yours"
        ) from None
    if info.st_uid != os.geteuid() or info.st_mode & 0o022:
        raise PermissionDenied(
            f"{home} belongs to another user, or others may write to it, and what lies in it is trusted",
            hint=f"look into it; if nothing there is foreign: chown {os.geteuid()} {home} && chmod 700 {home}",
        )
    home.chmod(0o700)


def owner(home: Path) -> int | None:
    """The process that runs the platform of ``home``, or None. Only who holds the lock writes its pid there."""
    try:
        with (home / "run" / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(home)
    except FileNotFoundError:
        pass
    return None


def _pid(home: Path) -> int | None:
    text = (home / "run" / "lock").read_text()
    return int(text) if text.isdecimal() else None


def publish(home: Path, state: dict[str, Any]) -> None:
    """Write ``run/platform.json``."""
    write_private(home / "run" / "platform.json", json.dumps(state, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read, wholly or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # mkstemp makes the file with mode 0600.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def is_ready(url: str, timeout: float) -> bool:
    """Whether the platform at ``url`` answers within ``timeout`` seconds."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (http.client.HTTPException, OSError):
        return False
    finally:
        connection.close()


def state(home: Path) -> dict[str, Any] | None:
    """What ``run/platform.json`` says; None when no platform runs."""
    try:
        found: dict[str, Any] = json.loads((home / "run" / "platform.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    return found


def roll(home: Path, patience: float, progress: Callable[[str], None]) -> int:
    """Have the platform of ``home`` replace its processes, and wait for that; returns how many were replaced.

    Raises:
        NotFound: none runs there.
        Conflict: it cannot, or does so already.
        Unavailable: not all could be replaced, or it made no step within ``patience`` seconds.
    """
    pid, now = owner(home), state(home)
    if pid is None or now is None:
        raise NotFound(f"no platform runs in {home}", hint="start it with: hzc up")
    if "restart" not in now:  # its signal would end an older one
        raise Conflict("this platform is of a release without rolling restarts", hint="hzc down, then hzc up")
    if now["restart"]["state"] == "running":
        raise Conflict("a rolling restart is under way", hint="wait until it is over")
    number = now["restart"]["number"]
    os.kill(pid, signal.SIGUSR2)
    seen, deadline = now["restart"], time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        now = state(home)
        if owner(home) != pid or now is None:
            raise Unavailable("the platform has stopped", hint="start it with: hzc up")
        if now["restart"] != seen:
            seen, deadline = now["restart"], time.monotonic() + patience
            progress(f"{seen['done']} of {seen['total']} processes replaced; now: {seen['step']}")
        if seen["number"] > number and seen["state"] == "done":
            return int(seen["done"])
        if seen["number"] > number and seen["state"] == "failed":
            raise Unavailable(
                f"{seen['done']} of {seen['total']} processes were replaced, then: {seen['error']}",
                hint="those that were not replaced go on; read the log that is named, then: hzc restart",
            )
    raise Unavailable(f"the rolling restart is stuck at {seen['step'] or 'its start'}", hint=f"read {home / 'log'}")


def stop(home: Path, timeout: float) -> bool:
    """End the platform of ``home`` and wait for that; by force after ``timeout`` seconds. False: none ran.

    Raises:
        Unavailable: it does not end.
    """
    pid = owner(home)
    if pid is None:
        return False
    for patience in (timeout, FORCE_S):
        with contextlib.suppress(ProcessLookupError):
            # The second signal asks for an end without grace.
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if owner(home) != pid:
                return True
            time.sleep(POLL_S)
    raise Unavailable(f"the platform of {home} (process {pid}) does not end", hint=f"kill -9 {pid}")
