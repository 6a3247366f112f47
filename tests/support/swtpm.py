"""A software TPM: a real TPM 2.0 by swtpm, whose endorsement key is certified by an authority made for the test."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.engines import need_swtpm

EK_RSA_CERTIFICATE = "0x1c00002"
"""NV index of the certificate of the RSA endorsement key (TCG EK credential profile)."""
_LOCALCA = """\
statedir = {ca}
signingkey = {ca}/signkey.pem
issuercert = {ca}/issuercert.pem
certserial = {ca}/certserial
"""
_OPTIONS = """\
--platform-manufacturer Test
--platform-version 1
--platform-model Test
"""
_SETUP = """\
create_certs_tool = {tool}
create_certs_tool_config = {folder}/localca.conf
create_certs_tool_options = {folder}/localca.options
active_pcr_banks = sha256
"""
_STARTS = 5


@dataclass(frozen=True)
class SoftwareTpm:
    """A running TPM. What the tools write is in ``folder``, the authority's certificates are in ``ca``."""

    folder: Path
    port: int

    @property
    def tcti(self) -> str:
        """What names it to the TCG software stack (``TPM2TOOLS_TCTI``, ``-T``)."""
        return f"swtpm:host=127.0.0.1,port={self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TPM2TOOLS_TCTI": self.tcti}

    @property
    def root(self) -> bytes:
        """The root of the authority, PEM."""
        return (self.folder / "ca" / "swtpm-localca-rootca-cert.pem").read_bytes()

    @property
    def issuer(self) -> bytes:
        """The authority that signed the endorsement certificates, PEM."""
        return (self.folder / "ca" / "issuercert.pem").read_bytes()

    def tool(self, name: str, *arguments: str) -> bytes:
        """Run ``tpm2_<name>`` in the folder, and free the three slots that a TPM without resource manager has."""
        out = self._run(f"tpm2_{name}", *arguments)
        if name not in {"startauthsession", "policysecret"}:
            for kind in ("-t", "-s", "-l"):
                self._run("tpm2_flushcontext", kind)
        return out

    def read(self, name: str) -> bytes:
        """What a tool wrote."""
        return (self.folder / name).read_bytes()

    def _run(self, *command: str) -> bytes:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, check=False, timeout=30
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode(errors='replace')}"
        return done.stdout


@contextlib.contextmanager
def software_tpm(folder: Path) -> Iterator[SoftwareTpm]:
    """Make a TPM below ``folder`` with its own authority, run it, and end it."""
    need_swtpm()
    _manufacture(folder)
    process, port = _start(folder)
    try:
        yield SoftwareTpm(folder, port)
    finally:
        _end(process)


def _manufacture(folder: Path) -> None:
    for name in ("state", "ca"):
        (folder / name).mkdir(parents=True)
    tool = subprocess.run(["which", "swtpm_localca"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "localca.conf").write_text(_LOCALCA.format(ca=folder / "ca"))
    (folder / "localca.options").write_text(_OPTIONS)
    (folder / "setup.conf").write_text(_SETUP.format(tool=tool, folder=folder))
    state = ["--tpmstate", str(folder / "state"), "--config", str(folder / "setup.conf")]
    command = ["swtpm_setup", "--tpm2", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", *state]
    # As root it would change to a user of its own, who could not write here.
    command += ["--runas", str(os.getuid())] if os.getuid() == 0 else []
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 0, f"{made.stdout}{made.stderr}"


def _start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    pid = folder / "pid"
    for _ in range(_STARTS):
        port = _two_free_ports()
        process = subprocess.Popen(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder / 'state'}", "--pid", f"file={pid}"),
                *("--server", f"type=tcp,port={port},bindaddr=127.0.0.1"),
                *("--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"),
                *("--flags", "not-need-init,startup-clear"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if _listens(process, pid):
            return process, port
        _end(process)
    raise AssertionError("swtpm did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _two_free_ports() -> int:
    """The stack expects the control channel one above the TPM's own port."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def _listens(process: subprocess.Popen[bytes], pid: Path) -> bool:
    """Whether it has both ports, which is when it writes its number: another process's may answer on them."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        if pid.exists() and pid.read_text().strip() == str(process.pid):
            return True
        time.sleep(0.01)
    return False
