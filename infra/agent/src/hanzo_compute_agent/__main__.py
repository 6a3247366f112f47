"""``python -m hanzo_compute_agent``: an agent as a process, configured by its environment."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hanzo_compute import config, ready, wiring
from hanzo_compute.errors import ComputeError
from hanzo_compute_agent.agent import Agent, Settings
from hanzo_compute_agent.journal import FileJournal

log = logging.getLogger("hanzo_compute_agent")

PREPARE_AFTER_S: Final = 2.0
"""From its start until an agent compiles what no job has asked for."""


def spawn(task: Callable[[], None], name: str) -> None:
    """Run a task in a thread of its own; the process does not wait for it."""

    def guarded() -> None:
        try:
            task()
        except Exception:
            log.exception("task %s failed", name)

    threading.Thread(target=guarded, name=name, daemon=True).start()


def _key(environ: os._Environ[str]) -> str:
    path = environ.get("HZC_KEY_FILE")
    return Path(path).read_text().strip() if path else environ.get("HZC_KEY", "")


def _patience(stopping: threading.Event) -> Callable[[], bool]:
    """Wait a moment while the agent that this one follows still has the state folder; False: wait no more."""
    said: list[bytes] = []

    def wait() -> bool:
        if not said:
            ready.say(ready.STANDING_BY)
            said.append(ready.STANDING_BY)
        return not stopping.wait(0.05)

    return wait


def _prepare(prepare: Callable[[Callable[[float], bool]], list[str]], stopping: threading.Event) -> None:
    if stopping.wait(PREPARE_AFTER_S):
        return
    done = prepare(stopping.wait)
    if done:
        log.info("compiled for jobs to come: %s", ", ".join(done))


def main() -> int:
    """Run until SIGTERM or SIGINT, then drain. Exit 2 when a setting is missing or wrong."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    environ = os.environ
    url, home = environ.get("HZC_URL"), environ.get("HZC_HOME")
    if not url or not home:
        sys.stderr.write("hzc agent: set HZC_URL (the platform) and HZC_HOME (the state folder)\n")
        return 2
    given, name = environ.get("HZC_AGENT_SLOTS") or str(os.cpu_count() or 1), environ.get("HZC_AGENT_NAME", "agent")
    key = _key(environ)
    if not key or not given.isdecimal() or not int(given) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        sys.stderr.write(
            "hzc agent: set HZC_KEY_FILE or HZC_KEY, HZC_AGENT_SLOTS to a number, HZC_AGENT_NAME to a name\n"
        )
        return 2
    slots = int(given)
    try:
        egress = wiring.egress(config.way_out(environ))
    except ComputeError as error:
        sys.stderr.write(f"hzc agent: {error.message}; {error.hint}\n")
        return 2
    settings = Settings(name, environ.get("HZC_POOL", "local"), slots, egress=egress)
    state = Path(home) / "agents" / settings.name
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    patience = _patience(stopping) if ready.takes_over() else None
    keys, tcti = Path(home) / "keys", environ.get("HZC_TPM_TCTI") or None
    container = wiring.agent(url, key, state, config.default_cache(environ), slots, keys, patience, tcti)
    journal = FileJournal(state / "journal")
    agent = Agent(
        container.api,
        container.runner,
        container.clock,
        journal,
        spawn,
        settings,
        container.vault,
        container.evidence,
    )
    signs_as = agent.signer.key_id
    agent.start()
    log.info("agent %s leases from %s, pool %s, %d slots", settings.name, url, settings.pool, slots)
    log.info("it signs its statements as %s", signs_as)
    ready.say(ready.READY)
    spawn(lambda: _prepare(container.prepare, stopping), "prepare")
    stopping.wait()
    agent.stop()
    ended = threading.Event()
    for _ in range(int(settings.drain_s * 10) + 20):
        if not agent.carrying:
            break
        ended.wait(0.1)
    container.runner.close()
    log.info("agent %s has stopped, %d attempts left behind", settings.name, agent.carrying)
    return 0


if __name__ == "__main__":
    sys.exit(main())
