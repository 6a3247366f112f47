"""Data keys of sealed jobs: made here, kept in the state folder, and never shown."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute import errors
from hanzo_compute.security import sealed

if TYPE_CHECKING:
    from hanzo_compute_host.cli.session import Session

Body = dict[str, Any]

BROKER_TIER: Final = 1
"""Up to this tier the platform keeps keys: see :mod:`hanzo_compute.services.release_key`."""


def new(home: Path) -> tuple[bytes, str]:
    """A key, kept in ``home``, and its SHA-256 (hex), which is the job's ``data_key``."""
    key = sealed.new_key()
    digest = hashlib.sha256(key).hexdigest()
    path = _path(home, digest)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key, digest


def find(home: Path, digest: str) -> bytes:
    """The key of this digest.

    Raises:
        NotFound: it is not in ``home``.
    """
    try:
        key = _path(home, digest).read_bytes()
    except FileNotFoundError:
        raise errors.NotFound(
            f"the key with SHA-256 {digest} is not here",
            hint=f"use the HZC_HOME that the job was submitted from: it is {_path(home, digest)} there",
        ) from None
    if hashlib.sha256(key).hexdigest() != digest:
        raise errors.Rejected(f"{_path(home, digest)} holds another key than its name says", name="data_key")
    return key


def give_key(session: Session, job: str, spec: dict[str, Any]) -> None:
    """The platform keeps the key of a sealed job up to tier 1; above, it goes to the runner alone."""
    digest = spec.get("data_key")
    if digest is None:
        return
    if spec.get("privacy_tier", 0) <= BROKER_TIER:
        session.keys.deposit(job, find(session.home, digest))
    else:
        session.say(f"{job} waits for its key: hzc key release {job} --policy FILE judges its runner and seals it")


def give_key_again(session: Session, job: Body) -> None:
    """The same for a job that was made of another one."""
    if "privacy_tier" in job:
        give_key(session, job["id"], session.jobs.get(job["id"])["spec"])


def opened(session: Session, job: str, name: str, data: bytes) -> bytes:
    """An output of a job, opened if the job is sealed."""
    if not data.startswith(b"hzc1"):
        return data
    digest = session.jobs.get(job)["spec"].get("data_key")
    return data if digest is None else sealed.unseal(find(session.home, digest), name, data)


def _path(home: Path, digest: str) -> Path:
    return home / "data-keys" / f"{digest}.key"
