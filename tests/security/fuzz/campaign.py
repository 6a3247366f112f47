"""Runs many cases through inspection, compilation and a worker, and looks for what must not be.

Each case ends in a report or in a refusal with its reason. The compiler and the worker end by our hand alone, the
worker has no error of its own, and nothing takes longer than the case's time and the worker's grace.
"""

from __future__ import annotations

import collections
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hanzo_compute.adapters.sandbox.call import Bounds, Folder
from hanzo_compute.adapters.sandbox.process import GRACE_S, Answered, Overdue, Template, WorkerDied, WorkerProcess
from hanzo_compute.model import wasm
from tests.security.fuzz.compiler import BROKEN, DONE, Compiler, Died
from tests.security.fuzz.generate import generate
from tests.security.fuzz.mutate import mutate, seeds

CASE_S = 1.0
SLACK_S = 30.0
"""What a loaded machine may add."""
KINDS = ("exit", "trap", "oom", "invalid")
GRANTED = frozenset({"kv", "secrets", "http", "input", "outputs"})
_OWN = re.compile(r"\d+|(?<=func ).*")
"""What of a refusal is the case's own."""
SCRATCH_CASES = 50
"""Cases that share a scratch folder."""


class Answers:
    """A service that gives anything of the right form."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """An answer."""
        size = self._dice.choice((0, 8, 9, 1000))
        return self._dice.choice((-1, -4, 0, 1, size)), self._dice.randbytes(max(size, 8) if name == "kv_get" else size)


class Campaign:
    """Many cases, by one seed: case N of a seed is always the same."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.ends: collections.Counter[str] = collections.Counter()
        self.violations: list[str] = []
        self.slowest_s = 0.0
        self._seeds = seeds()
        self._compiler = Compiler()
        self._worker: WorkerProcess | None = None
        self._pid = 0
        self._place = Path(tempfile.mkdtemp(prefix="fuzz-"))
        (self._place / "in").mkdir()
        (self._place / "in" / "file").write_text("input")

    def close(self) -> None:
        """End what runs."""
        self._compiler.close()
        if self._worker is not None:
            self._worker.kill()
        shutil.rmtree(self._place)

    def module(self, number: int) -> bytes:
        """The module of a case."""
        dice = random.Random(f"{self.seed}/{number}")
        way = dice.random()
        if way < 0.4:
            return generate(dice)
        base = generate(dice) if way < 0.7 else dice.choice(self._seeds)
        return mutate(dice, base, dice.choice(self._seeds))

    def case(self, number: int) -> None:
        """Run one case."""
        dice = random.Random(f"{self.seed}/{number}/run")
        module = self.module(number)
        if number % SCRATCH_CASES == 0:
            shutil.rmtree(self._place / "scratch", ignore_errors=True)
            (self._place / "scratch").mkdir()
        began = time.monotonic()
        try:
            end = self._run(number, module, dice)
        except Exception as error:
            end = "violation"
            self._violation(number, module, f"{type(error).__name__}: {error}")
        self.ends[end] += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _violation(self, number: int, module: bytes, what: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{self.seed}-{number}.wasm").write_bytes(module)
        self.violations.append(f"case {number}: {what}")

    def _run(self, number: int, module: bytes, dice: random.Random) -> str:
        metered = dice.randrange(2)
        try:
            status, said = self._compiler.compile(metered, module)
        except Died as death:
            self._violation(number, module, str(death))
            return "violation"
        if status == BROKEN:
            self._violation(number, module, said.decode())
            return "violation"
        if status != DONE:
            assert said.strip(), "a refusal without a reason"
            return "refused: " + _OWN.sub("…", said.decode().split(":")[0])[:40]
        template = self._template(number, module, dice, metered=bool(metered))
        data = dice.randbytes(dice.choice((0, 1, 100, 70_000)))
        worker = self._alive(dice)
        try:
            index = worker.prepare(template, lambda: _sealed(said))
            began = time.monotonic()
            answered = worker.call(index, data, CASE_S)
        except Overdue:
            took = time.monotonic() - began
            assert took < CASE_S + GRACE_S + SLACK_S, f"it took {took:.1f} s to kill it"
            return "overdue"
        except WorkerDied as death:
            self._violation(number, module, f"{death}: {death.words[-500:]}")
            return "violation"
        assert answered is not None
        assert time.monotonic() - began < CASE_S + GRACE_S + SLACK_S, "it went on beyond its time"
        return self._ended(number, module, answered)

    def _ended(self, number: int, module: bytes, answered: Answered) -> str:
        report = answered.report
        if report is None:
            self._violation(number, module, f"the worker's own error: {answered.error}")
            return "violation"
        assert report.kind in KINDS
        assert report.kind == "exit" or report.detail, "an end without a reason"
        assert report.memory_bytes <= 64 << 20
        return report.kind if report.trap is None else f"trap: {report.trap}"

    def _template(self, number: int, module: bytes, dice: random.Random, *, metered: bool) -> Template:
        exports = wasm.inspect(module).exports
        call: dict[str, object] = {"entry": "command" if exports.get("_start") == "func" else "reactor"}
        call["argv"] = ["module", "argument"]
        if metered:
            call |= {"deterministic": True, "seed": "00" * 32}
        return Template(
            artefact=f"{self.seed}-{number}",
            profile="metered" if metered else "fast",
            call=call,
            bounds=Bounds(
                memory_mib=dice.choice((1, 4, 64)),
                fuel=dice.choice((1000, 10_000_000)) if metered else None,
                output=dice.choice((0, 100, 1 << 20)),
                scratch=100_000,
                host_calls=100,
            ),
            granted=GRANTED if dice.random() < 0.7 else frozenset(),
            folders=(
                Folder(str(self._place / "in"), "/in"),
                Folder(str(self._place / "scratch"), "/tmp", writable=True),
            ),
            report=True,
        )

    def _alive(self, dice: random.Random) -> WorkerProcess:
        if self._worker is not None and self._worker.dead:
            self._worker.kill()
            self._worker = None
        if self._worker is None:
            self._worker = WorkerProcess(Answers(dice), lambda *_: None)
        return self._worker


def _sealed(data: bytes) -> int:
    """A descriptor of these bytes in memory."""
    fd = os.memfd_create("artefact")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd
