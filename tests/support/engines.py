"""What a test needs of the machine: it is skipped where that is missing, and fails instead where all is required."""

from __future__ import annotations

import os
import shutil

import pytest


def need_root() -> None:
    """Mounting a file system of its own is for root."""
    if os.geteuid():
        _missing("this test mounts a small file system: run it as root (sudo make test), or in a container")


def need_strace() -> None:
    """Failing single system calls of a process is done with strace."""
    if shutil.which("strace") is None:
        _missing("this test makes system calls fail: install strace (apt-get install strace)")


def _missing(what: str) -> None:
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(what)
    pytest.skip(what)
