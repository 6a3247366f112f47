"""A rolling restart: every process is followed by a new one, which must have come up before the old one leaves.

Nobody who uses the platform sees a failed request. The writer says goodbye to its clients, who ask the next one;
fronts share a socket, and the old one ends its connections one by one; an agent finishes or gives back what it runs.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hanzo_compute import ready
from hanzo_compute.errors import Unavailable
from hanzo_compute_host.children import Child

START_S: Final = 90.0
"""A new process must have come up within this time."""
LEAVE_S: Final = {"writer": 10.0, "front": 45.0, "pump": 60.0, "agent": 15.0}
"""How long an old process may take to leave before it is killed."""
ORDER: Final = ("writer", "front", "pump", "agent")
ALONE: Final = ("writer", "agent")
"""Of these only one at a time holds what it works on: the new one stands by until the old one is gone."""


class Interrupted(Exception):
    """The platform is to stop."""


@dataclass
class Progress:
    """How far the last rolling restart has come; ``number`` counts them, 0: there was none."""

    number: int = 0
    state: str = "none"
    """``running``, ``done`` or ``failed``."""
    step: str = ""
    done: int = 0
    total: int = 0
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For ``run/platform.json``."""
        return dict(vars(self))


@dataclass
class Rolling:
    """Replaces ``children`` in place. ``beside`` are those that come or go, and are not restarted.

    ``pause`` waits a moment, restarts what died meanwhile, and raises Interrupted when the platform is to stop.
    """

    children: list[Child]
    beside: list[Child]
    pause: Callable[[], None]
    publish: Callable[[], None]
    say: Callable[[str], None]
    progress: Progress = field(default_factory=Progress)

    def run(self) -> None:
        """Replace every process; what could not be replaced goes on as it was, and the rest with it."""
        wanted = [child for kind in ORDER for child in self.children if _kind(child) == kind]
        self.progress = Progress(self.progress.number + 1, "running", total=len(wanted))
        self.say(f"rolling restart of {len(wanted)} processes")
        try:
            for child in wanted:
                self.progress.step = child.spec.name
                self.publish()
                self._replace(child)
                self.progress.done += 1
            self.progress.step = "connections"
            self.publish()
            while self.beside:
                self.pause()
        except Unavailable as error:
            self._end("failed", error.message)
            return
        except Interrupted:
            self._end("failed", "the platform was told to stop")
            raise
        self._end("done", None)

    def _end(self, state: str, error: str | None) -> None:
        self.progress.state, self.progress.error = state, error
        self.publish()
        self.say(f"rolling restart {state}" + (f": {error}" if error else ""))

    def _replace(self, old: Child) -> None:
        kind = _kind(old)
        new = Child(old.spec, old.log.parent)
        new.restarts = old.restarts
        self.beside.append(new)
        try:
            try:
                new.start(takeover=kind in ALONE)
            except OSError as error:
                raise Unavailable(f"a new {old.spec.name} cannot start: {error.strerror}") from error
            self._came_up(new, (ready.STANDING_BY, ready.READY))
        except BaseException:
            new.signal(signal.SIGKILL)
            while new.pid is not None:
                new.ended()
                time.sleep(0.01)
            self.beside.remove(new)
            raise
        self.children[self.children.index(old)] = new
        self.beside.remove(new)
        self.beside.append(old)
        old.leave(signal.SIGUSR2 if kind == "front" else signal.SIGTERM, LEAVE_S[kind])
        self.publish()
        if kind in ALONE:
            while old in self.beside:
                self.pause()
            self._came_up(new, (ready.READY,))

    def _came_up(self, new: Child, steps: tuple[bytes, ...]) -> None:
        """Wait until the process has said one of ``steps``. Raises Unavailable."""
        deadline = time.monotonic() + START_S
        while not any(new.said(step) for step in steps):
            if new.pid is None:
                raise Unavailable(f"a new {new.spec.name} did not come up: {new.last_line()}; see {new.log}")
            if time.monotonic() > deadline:
                raise Unavailable(f"a new {new.spec.name} did not come up within {START_S:.0f} s; see {new.log}")
            self.pause()


def _kind(child: Child) -> str:
    return child.spec.name.partition("-")[0]
