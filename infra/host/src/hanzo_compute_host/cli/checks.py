"""What `hzc doctor` looks at: this machine, the state folder, and the platform."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hanzo_compute.config import default_cache
from hanzo_compute.model.evidence import Platform
from hanzo_compute_host.cli import local

if TYPE_CHECKING:
    from hanzo_compute.wiring import JobsClient

OK, MISSING, ABSENT = "ok", "missing", "absent"
"""Verdicts: as it should be; needed and not there; not there, and only some later feature needs it."""

DISK_NEEDED: Final = 512 * 1024 * 1024
CLOCK_SKEW_S: Final = 5.0
_DRIFT_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; ``means`` says what to do about it, or what it would enable."""

    name: str
    verdict: str
    found: str
    means: str = ""


def all_checks(home: Path, port: int) -> list[Check]:
    """Every check, in the order in which a reader would go through them."""
    client = local.find_running(home)
    return [
        _python(),
        _disk(home),
        _home(home),
        _port(port, client),
        _clock(client),
        _interpreter(default_cache(os.environ)),
        _platform(client, home),
        *_optional(),
    ]


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if find_spec("pip") is None:
        return Check("Python", MISSING, f"{found}, without pip", "install pip: interpreters are fetched with it")
    return Check("Python", OK, found)


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1024**3:.1f} GiB free at {place}"
    if free >= DISK_NEEDED:
        return Check("Disk", OK, found)
    return Check("Disk", MISSING, found, "free some space, or set HZC_HOME to a larger disk: 512 MiB are needed")


def _home(home: Path) -> Check:
    try:
        status = home.stat()
    except FileNotFoundError:
        return Check("State folder", OK, f"{home} is not there yet", "`hzc up` makes it")
    except PermissionError:
        return Check("State folder", MISSING, f"{home} cannot be read", "set HZC_HOME to a folder of yours")
    mode = status.st_mode & 0o777
    if status.st_uid != os.getuid():
        return Check("State folder", MISSING, f"{home} belongs to uid {status.st_uid}", "set HZC_HOME to one of yours")
    if mode & 0o077:
        return Check("State folder", MISSING, f"{home} has mode {mode:04o}", f"chmod 700 {home}")
    return Check("State folder", OK, f"{home}, mode {mode:04o}")


def _port(port: int, client: JobsClient | None) -> Check:
    if client is not None:
        return Check("Port", OK, f"the platform of the state folder listens at {client.url}")
    if local.port_is_free(port):
        return Check("Port", OK, f"{port} is free")
    return Check("Port", MISSING, f"{port} is taken by another program", f"choose another: HZC_PORT={port + 1}")


def _clock(client: JobsClient | None) -> Check:
    """The wall clock runs as the monotonic one does, is of this age, and agrees with the platform's."""
    ahead, steady = _wall_ahead(), time.monotonic()
    date = client.health().date if client is not None else None
    now = datetime.now(UTC)
    took = time.monotonic() - steady
    drift = abs(_wall_ahead() - ahead)
    if drift > _DRIFT_S:
        return Check("Clock", MISSING, f"it jumped by {drift:.1f} s just now", "look at the time service (NTP)")
    if now.year < 2025:
        return Check(
            "Clock", MISSING, f"it says {now:%Y-%m-%d}", "set the clock: deadlines and credentials depend on it"
        )
    if date is None:
        return Check("Clock", OK, f"{now:%Y-%m-%dT%H:%M:%SZ}; no platform to compare it with")
    skew = (now - parsedate_to_datetime(date)).total_seconds()
    if abs(skew) > CLOCK_SKEW_S + took:  # the platform said it at some moment of that time
        return Check("Clock", MISSING, f"{skew:+.0f} s from the platform's", "set both by the same time service")
    return Check("Clock", OK, f"{now:%Y-%m-%dT%H:%M:%SZ}, within {CLOCK_SKEW_S:.0f} s of the platform's")


def _wall_ahead() -> float:
    """What the wall clock is ahead of the monotonic one. This process may be held up between a look at the one and at
    the other, so it is what the shortest of three looks gives."""
    looks = []
    for _ in range(3):
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        looks.append((after - before, wall - after))
    return min(looks)[1]


def _interpreter(cache: Path) -> Check:
    modules = list((cache / "interpreters").glob("*.wasm"))
    artefacts = list((cache / "artefacts").glob("*.cwasm"))
    compiled = [module for module in modules if any(path.name.startswith(module.stem) for path in artefacts)]
    if compiled:
        return Check("Python interpreter (WASM)", OK, f"fetched and compiled in {cache}")
    state = "fetched, not compiled" if modules else "not fetched"
    return Check("Python interpreter (WASM)", OK, f"{state} ({cache})", "the next `hzc up` does it, in about 15 s")


def _platform(client: JobsClient | None, home: Path) -> Check:
    if client is None:
        return Check("Platform", OK, f"none runs for {home}", "`hzc up` starts it")
    return Check("Platform", OK, f"version {client.health().version} at {client.url}")


def _optional() -> Iterator[Check]:
    """Parts that no feature needs which works everywhere."""
    from hanzo_compute import wiring

    for name, is_there, enables in OPTIONAL:
        found = is_there()
        yield Check(name, OK if found else ABSENT, found or "not found", f"would enable {enables}")
    for each in wiring.attester().detect():
        remedy = f"{each.missing[0].remedy}; " if each.missing else ""
        means = f"would enable {ENABLES[each.platform]}"
        yield Check(each.name, OK if each.ready else ABSENT, each.summary, means if each.ready else f"{remedy}{means}")


def _command(name: str) -> Callable[[], str]:
    return lambda: shutil.which(name) or ""


OPTIONAL: Final = (
    ("Docker", _command("docker"), "jobs in containers"),
    ("kubectl", _command("kubectl"), "jobs in a Kubernetes cluster"),
)
ENABLES: Final = {
    None: "jobs in virtual machines",
    Platform.SNP: "privacy tier cpu_tee: confidential jobs on AMD",
    Platform.TDX: "privacy tier cpu_tee: confidential jobs on Intel",
    Platform.NITRO: "privacy tier cpu_tee: confidential jobs in enclaves of AWS",
    Platform.NVIDIA: "privacy tiers gpu_cc and gpu_tee_io: confidential jobs on GPUs",
    Platform.TPM: "privacy tier at_rest: keys sealed to this machine",
}
"""What each source of evidence is for; None: virtual machines."""


def healthy(checks: list[Check]) -> bool:
    """Whether nothing that is needed is missing."""
    return all(check.verdict != MISSING for check in checks)
