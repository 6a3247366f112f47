"""tpm2-tools as subprocesses: one short-lived folder of files, and a TPM that is left as it was found.

A TPM has room for about three objects and three sessions. ``/dev/tpmrm0`` shares it out and clears up after each
process; without such a resource manager (a simulator) whoever loads something must flush it, which is done here
after every command that loads. Sessions are flushed by name only: a resource manager lists those of others too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hanzo_compute.errors import EvidenceUnavailable

DEVICE_TCTI: Final = "device:/dev/tpmrm0"
TIMEOUT_S: Final = 120.0
"""Of one command: a discrete TPM may make an RSA key for half a minute."""
NEEDED: Final = ("tpm2_createek", "tpm2_createak", "tpm2_quote", "tpm2_activatecredential", "tpm2_unseal")
_LOAD_NOTHING: Final = frozenset({"tpm2_getcap", "tpm2_nvread", "tpm2_policysecret", "tpm2_policypcr"})
_OUTPUT_MAX: Final = 4 * 1024 * 1024


class ToolFailed(EvidenceUnavailable):
    """A tool could not be run, or said no: the message has its words."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools, for one TPM."""

    tcti: str = DEVICE_TCTI
    """Which: ``device:/dev/tpmrm0``, ``swtpm:host=127.0.0.1,port=2321``, … (the tools' ``TPM2TOOLS_TCTI``)."""
    timeout_s: float = TIMEOUT_S

    @contextmanager
    def session(self) -> Iterator[Workplace]:
        """A folder for the files of one piece of work, which only this user can read."""
        with tempfile.TemporaryDirectory(prefix="hzc-tpm-") as folder:
            yield Workplace(self, Path(folder))


@dataclass(frozen=True, slots=True)
class Workplace:
    """Runs commands in a folder that only this user can read. Names of files are relative to it."""

    tools: Tools
    folder: Path

    def run(self, tool: str, *args: str, stdin: bytes = b"") -> bytes:
        """Run a tool, then flush the objects that it may have left in the TPM; what it printed.

        Raises:
            ToolFailed: it is not there, did not end, or did not succeed.
        """
        try:
            return self._run(tool, *args, stdin=stdin)
        finally:
            if tool not in _LOAD_NOTHING:
                self._run("tpm2_flushcontext", "-t")

    def read(self, name: str) -> bytes:
        """A file that a tool wrote."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> str:
        """A file for a tool; its name."""
        (self.folder / name).write_bytes(data)
        return name

    @contextmanager
    def policy(self, name: str, *, trial: bool = False) -> Iterator[str]:
        """A policy session; the name of its file. A trial only computes what the policy would be."""
        kind = () if trial else ("--policy-session",)
        self._run("tpm2_startauthsession", *kind, "-S", name)
        try:
            yield name
        finally:
            self._run("tpm2_flushcontext", name)

    def _run(self, tool: str, *args: str, stdin: bytes = b"") -> bytes:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "TPM2TOOLS_TCTI": self.tools.tcti,
            "TSS2_LOG": "all+none",
            "LC_ALL": "C",
        }
        try:
            done = subprocess.run(
                [tool, *args],
                input=stdin,
                capture_output=True,
                cwd=self.folder,
                env=env,
                timeout=self.tools.timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise ToolFailed(f"{tool} is not installed", hint="install tpm2-tools (5.0 or newer)") from None
        except subprocess.TimeoutExpired:
            raise ToolFailed(
                f"{tool} did not end within {self.tools.timeout_s:.0f} s", hint=f"is the TPM at {self.tools.tcti} up?"
            ) from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            text = " ".join(line.removeprefix("ERROR: ") for line in said)[-400:]
            raise ToolFailed(f"{tool} failed with {done.returncode}: {text}", hint=_hint(text, self.tools.tcti))
        return done.stdout[:_OUTPUT_MAX]


def missing_tools() -> list[str]:
    """The tools that are not on the PATH."""
    return [name for name in NEEDED if shutil.which(name) is None]


def _hint(text: str, tcti: str) -> str:
    if "TCTI" in text or "tcti" in text:
        return f"is there a TPM at {tcti}, and may this user use it (group tss)?"
    return "tpm2_rc_decode explains response codes of the TPM"
