"""What a test needs of the machine: it is skipped where that is missing, and fails instead where all is required."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

BUILD_GUESTS = Path(__file__).resolve().parents[2] / "scripts" / "build_guests"
# How build_guests says that a tool is missing; its words say which, and how to get it.
TOOL_IS_MISSING = 3


def need_root() -> None:
    """Mounting a file system of its own is for root."""
    if os.geteuid():
        _missing("this test mounts a small file system: run it as root (sudo make test), or in a container")


def need_strace() -> None:
    """Failing single system calls of a process is done with strace."""
    if shutil.which("strace") is None:
        _missing("this test makes system calls fail: install strace (apt-get install strace)")


def need_swtpm() -> None:
    """A software TPM with an authority of its own, and the tools that talk to it."""
    missing = [tool for tool in ("swtpm", "swtpm_setup", "swtpm_localca", "tpm2_quote") if shutil.which(tool) is None]
    if missing:
        names = ", ".join(missing)
        _missing(f"this test runs a software TPM and lacks {names}: apt-get install swtpm swtpm-tools tpm2-tools")


def need_seccomp() -> None:
    """Filters of system calls are Linux's, and may be left out of a kernel."""
    if not Path("/proc/sys/kernel/seccomp/actions_avail").exists():
        _missing("this test wants a kernel with CONFIG_SECCOMP_FILTER: run it on such a Linux")


def has_landlock() -> bool:
    """Whether the kernel has Landlock for networks, which is of Linux 6.7 and may be left out: version 4 of it."""
    version: int = ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1)  # landlock_create_ruleset
    return version >= 4


def need_guests() -> None:
    """Guests are built, if they are not, with clang for wasm32 and with node."""
    built = subprocess.run([BUILD_GUESTS], capture_output=True, text=True, check=False)
    if built.returncode == TOOL_IS_MISSING:
        _missing(built.stderr.strip())
    assert built.returncode == 0, f"{built.stdout}{built.stderr}"


def need_vectors(platform: str) -> Path:
    """The folder of a platform's hardware-made evidence, which is no part of this repository."""
    root = os.environ.get("HZC_VECTORS")
    folder = Path(root or ".") / "attestation" / platform
    if root is None or not (folder / "manifest.json").is_file():
        _missing(
            "this test reads recorded evidence: set HZC_VECTORS to the folder that has attestation/*/manifest.json"
        )
    return folder


def _missing(what: str) -> None:
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(what)
    pytest.skip(what)
