"""Fixtures of the integration tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def wasm_cache() -> Path:
    """The folder that keeps interpreters and compiled modules between runs of the suite, interpreters made ready."""
    from hanzo_compute.adapters.sandbox import interpreters
    from hanzo_compute.adapters.sandbox.artefacts import INTERPRETER_S, artefacts_of
    from hanzo_compute.adapters.sandbox.settings import Profile

    folder = os.environ.get("HZC_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "hanzo-compute"
    )
    for language in interpreters.PINS:
        interpreters.precompile(language, Profile.FAST, Path(folder), print)
        # Without a snapshot, too: some programs ask for a start of their own.
        found = interpreters.ensure(language, Path(folder))
        started = artefacts_of(Path(folder), Profile.FAST)
        os.close(started.get(found.digest, found.path.read_bytes, timeout_s=INTERPRETER_S))
        started.close()
    return Path(folder)
