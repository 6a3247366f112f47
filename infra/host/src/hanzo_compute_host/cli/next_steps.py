"""Commands to copy after the demo: only those that work in the reader's shell as they stand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hanzo_compute_host.cli.home import find_home

SPEC: Final = '{"source": {"code": "print(6 * 7)", "language": "python"}}'


def next_steps(home: Path, url: str, job: str, environ: Mapping[str, str] = os.environ) -> str:
    """What to type next: settings that the shell lacks, `hzc` commands, and the same by curl."""
    program, orders = (shlex.quote(str(home / "demo" / name)) for name in ("orders.py", "orders.csv"))
    credentials = shlex.quote(str(home / "credentials.json"))
    commands = [
        *_settings(home, environ),
        f"hzc run {program} --input {orders}",
        "hzc ls",
        f"hzc show {job}",
        f"hzc logs -f {job}",
        f"hzc quote {program} --input {orders}",
        f"hzc receipt show {job} --save receipt.json && hzc receipt verify receipt.json",
        f"hzc cancel $(hzc submit {program} --input {orders})",
    ]
    curl = f'curl -sS -H "Authorization: Bearer $KEY" {url}/v1/jobs'
    calls = [
        f'KEY=$(sed -n \'s/.*"key": *"\\([^"]*\\)".*/\\1/p\' {credentials})',
        f"{curl} -H 'Content-Type: application/json' -d '{SPEC}'",
        curl,
        f"{curl}/{job}",
        f"{curl}/{job}/logs",
        f"{curl}/{job}/receipt",
        f"{curl}/$(hzc submit {program} --input {orders})/cancel -X POST",
    ]
    stop = "make stop" if "MAKELEVEL" in environ else "hzc down"
    return "\n".join(
        [
            "Next, by copy and paste:",
            *(f"  {line}" for line in commands),
            "\nThe same by curl:",
            *(f"  {line}" for line in calls),
            f"\nThe platform stays up at {url}. To stop it: {stop}",
        ]
    )


def _settings(home: Path, environ: Mapping[str, str]) -> list[str]:
    """Exports for what this process was given by make, but the reader's shell may not have."""
    bare = {name: value for name, value in environ.items() if name != "HZC_HOME"}
    settings = []
    if find_home(bare) != home:
        settings.append(f"export HZC_HOME={shlex.quote(str(home))}")
    script = Path(sys.prefix) / "bin"
    if shutil.which("hzc", path=environ.get("PATH")) != str(script / "hzc"):
        settings.append(f"export PATH={shlex.quote(str(script))}:$PATH")
    return settings
