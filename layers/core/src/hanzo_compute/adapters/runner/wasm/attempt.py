"""An attempt's directory: what goes in, what comes out, and what an agent finds after a restart.

    <job>.<attempt>/  lease.json  in/  tmp/  stdin  module.wasm  stdout  stderr  result.json

It appears whole, by a rename, before the attempt starts; result.json, by a rename too, once it has ended.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from hanzo_compute.adapters.sandbox import guest, layout
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import bounds
from hanzo_compute.model.capabilities import of_source
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.model.package import MAIN, InvalidPackage, unpack
from hanzo_compute.ports import Handle, Lease

_NAME: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,18})")
_NEW: Final = ".new-"


class AttemptDir:
    """The directory of one attempt below ``root``."""

    def __init__(self, root: Path, handle: Handle) -> None:
        name = f"{handle.job}.{handle.attempt}"
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"{name!r} cannot name an attempt", hint="job ids are letters, digits and dashes")
        self.handle = handle
        self.path = root / name

    @property
    def module(self) -> Path:
        """The module that came with the lease, if one did."""
        return self.path / "module.wasm"

    @property
    def inputs(self) -> Path:
        """The folder that the program sees as ``/in``."""
        return self.path / "in"

    @property
    def scratch(self) -> Path:
        """The folder that the program may write to, as ``/tmp``."""
        return self.path / "tmp"

    @property
    def stdin(self) -> Path:
        """Standard input."""
        return self.path / "stdin"

    @property
    def stdout(self) -> Path:
        """Standard output so far."""
        return self.path / "stdout"

    @property
    def stderr(self) -> Path:
        """Standard error so far."""
        return self.path / "stderr"

    def exists(self) -> bool:
        """True once the attempt was created."""
        return self.path.is_dir()

    def create(self, lease: Lease, module: bytes | None, stdin: bytes) -> None:
        """Make the directory with all that the program gets; ``module``: its module or package.

        Raises:
            InvalidPackage: the package cannot be unpacked. Besides, OSError.
        """
        new = self.path.with_name(f"{_NEW}{secrets.token_hex(8)}")
        try:
            new.mkdir(mode=0o700)
            (new / "in").mkdir(mode=0o700)
            (new / "tmp").mkdir(mode=0o700)
            # URLs that need no credential are nothing to keep.
            kept = asdict(replace(lease, module_url=None, input_url=None))
            (new / "lease.json").write_text(json.dumps(kept), encoding="utf-8")
            (new / "stdin").write_bytes(stdin)
            (new / "stdout").touch()
            (new / "stderr").touch()
            source = lease.spec["source"]
            if source.get("code") is not None:
                name = MAIN[source["language"]]
                (new / "in" / name).write_text(source["code"], encoding="utf-8", newline="")
            if source.get("package") is not None:
                if module is not None:
                    layout.write(new / "in", unpack(module, source["language"], source["entry"]))
            elif module is not None:
                (new / "module.wasm").write_bytes(module)
            language = source.get("language")
            if language is not None and of_source(source).granted:
                name, text = guest.module(language)
                if not (new / "in" / name).exists():  # a package may bring its own
                    (new / "in" / name).write_bytes(text)
            new.rename(self.path)
        except (OSError, InvalidPackage):
            shutil.rmtree(new, ignore_errors=True)
            raise

    def lease(self) -> Lease:
        """The lease as it came, without its URLs. Raises OSError or ValueError."""
        return Lease(**json.loads((self.path / "lease.json").read_text(encoding="utf-8")))

    def result(self) -> Outcome | None:
        """The outcome that was written, or None when there is none that can be read."""
        try:
            return Outcome.model_validate_json((self.path / "result.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def write_result(self, outcome: Outcome) -> None:
        """Write the outcome in one step. Raises OSError."""
        new = self.path / "result.json.new"
        new.write_text(outcome.model_dump_json(), encoding="utf-8")
        new.rename(self.path / "result.json")

    def read_stdout(self) -> bytes:
        """Standard output, at most ``OUTPUT_MAX`` bytes."""
        try:
            with self.stdout.open("rb") as file:
                return file.read(bounds.OUTPUT_MAX)
        except OSError:
            return b""

    def stdout_cut(self) -> bool:
        """True when the program has written as much as is kept: any more was cut."""
        try:
            return self.stdout.stat().st_size >= bounds.OUTPUT_MAX
        except OSError:
            return False

    def last_line(self) -> str:
        """The last line of standard error, at most 300 characters, control characters escaped."""
        try:
            with self.stderr.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(size - 2048, 0))
                lines = file.read().decode("utf-8", "backslashreplace").strip().splitlines()
        except OSError:
            return ""
        return printable(lines[-1])[-300:] if lines else ""

    def remove(self) -> None:
        """Delete the directory; absent is fine."""
        with suppress(OSError):
            # Renamed first, so that a removal which is cut short leaves no half attempt behind.
            gone = self.path.with_name(f"{_NEW}{secrets.token_hex(8)}")
            self.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def attempts_in(root: Path) -> list[AttemptDir]:
    """All attempts below ``root``, after removing what an interrupted creation or removal left."""
    found = []
    for path in sorted(root.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append(AttemptDir(root, Handle(match[1], int(match[2]))))
        elif path.name.startswith(_NEW):
            shutil.rmtree(path, ignore_errors=True)
    return found


def printable(text: str) -> str:
    """``text`` with everything that a terminal might obey escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
