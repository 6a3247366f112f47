"""Commands to copy after the demo: only those that work in the reader's shell as they stand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from hanzo_compute_host.cli.home import find_home


def next_steps(home: Path, url: str, job: str, environ: Mapping[str, str] = os.environ) -> str:
    """What to type next: settings that the shell lacks, `hzc` commands, and the same by curl."""
    lines = ["Next, by copy and paste:", *(f"  {line}" for line in _settings(home, environ))]
    lines += [
        "  hzc ls",
        f"  hzc show {job}",
        f"  hzc logs -f {job}",
        "  hzc run FILE.py            # your own program; --input FILE gives it data",
        "  hzc cancel JOB             # while it runs",
        "",
        "The same by curl:",
        f'  KEY=$(sed -n \'s/.*"key": *"\\([^"]*\\)".*/\\1/p\' {shlex.quote(str(home / "credentials.json"))})',
        f'  curl -H "Authorization: Bearer $KEY" {url}/v1/jobs',
        f'  curl -H "Authorization: Bearer $KEY" {url}/v1/jobs/{job}',
        f'  curl -H "Authorization: Bearer $KEY" {url}/v1/jobs/{job}/logs',
        f'  curl -H "Authorization: Bearer $KEY" -X POST {url}/v1/jobs/{job}/cancel',
        "",
        f"The platform stays up at {url}. To stop it: {'make stop' if _from_make(environ) else 'hzc down'}",
    ]
    return "\n".join(lines)


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


def _from_make(environ: Mapping[str, str]) -> bool:
    return "MAKELEVEL" in environ
