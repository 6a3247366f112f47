"""A run that is done again compared with what was signed of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hanzo_compute.model import statement as statements
from hanzo_compute.model.outcome import Category, Outcome, Output
from hanzo_compute.model.statement import Settlement, Subject, Terms
from hanzo_compute.model.tariff import Rates

Body = Mapping[str, Any]

UP_TO_TIME: Final = {
    Category.TIMEOUT: "it ended by its time limit, and time is not repeatable",
    Category.DEADLINE: "it ended by its deadline, and time is not repeatable",
    Category.CANCELLED: "it was cancelled while it ran",
    Category.PLATFORM: "the platform failed it",
}
"""Ends that a program does not come to by itself."""
STACK: Final = "stack_overflow"


@dataclass(frozen=True, slots=True)
class Difference:
    """A field in which a run differs from what was signed; None: there is none."""

    name: str
    signed: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a run is compared, and in words why not all of it."""

    exit: tuple[str, ...] | None
    """Fields of ``exit``; None for all."""
    outputs: bool
    used: bool
    why: str


ALL: Final = Scope(None, outputs=True, used=True, why="all that a deterministic run has")
OUTPUTS: Final = Scope(
    None,
    outputs=True,
    used=False,
    why="its outputs and how it ended: the profile fast sees the time, and fuel and memory are not compared",
)
END: Final = Scope(
    ("category", "trap"),
    outputs=False,
    used=False,
    why="how it ended: how deep a program's calls go until its stack is full depends on the processor's level",
)


def scope(spec: Body, statement: Body) -> Scope:
    """What a replay of this spec can tell about the statement."""
    if statement["exit"].get("trap") == STACK:
        return END
    return ALL if spec.get("profile") == "deterministic" else OUTPUTS


def why_not(statement: Body, version: str) -> str | None:
    """Why a run by the runtime of ``version`` says nothing about the statement, if so."""
    reason = UP_TO_TIME.get(Category(statement["exit"]["category"]))
    if reason is not None:
        return reason
    signed = statement["runtime"]["version"]
    if signed != version:
        return f"other version: it was run by {signed or 'none'}, and here is {version or 'none'}"
    return None


def restated(statement: Body, rates: Body, outcome: Outcome, stdout: bytes) -> Body:
    """The statement about the same attempt if it had come to this outcome."""
    if stdout:
        blob = f"b1-{hashlib.sha256(stdout).hexdigest()}"
        outcome = outcome.model_copy(update={"outputs": [Output(name="stdout", size=len(stdout), blob=blob)]})
    named = {name: statement[name] for name in ("job", "attempt", "agent", "spec", "code", "input")}
    subject = Subject(
        **named,
        runtime=statement["runtime"]["name"],
        delivered=statement["tier"]["delivered"],
        evidence=statement["evidence"],
    )
    terms = Terms(
        Rates.from_json(rates),
        int(statement["price"]["most"]),
        Settlement(**statement["settlement"]),
        statement["tier"]["requested"],
    )
    return statements.body(subject, outcome, terms)


def compare(statement: Body, replayed: Body, compared: Scope) -> list[Difference]:
    """All fields in scope in which two statements about the same run differ."""
    ours, theirs = _flat(replayed, compared), _flat(statement, compared)
    names = [*theirs, *(name for name in ours if name not in theirs)]
    return [Difference(name, theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)]


def names(statement: Body, compared: Scope) -> list[str]:
    """The fields of a statement that are compared."""
    return list(_flat(statement, compared))


def _flat(statement: Body, compared: Scope) -> dict[str, Any]:
    found = {name: statement[name] for name in ("spec", "code", "input")}
    found |= {
        f"exit.{name}": value
        for name, value in statement["exit"].items()
        if compared.exit is None or name in compared.exit
    }
    if compared.outputs:
        for output in statement["outputs"]:
            found |= {f"outputs.{output['name']}.{name}": output[name] for name in ("size", "sha256")}
    if compared.used:
        found |= {f"usage.{name}": statement["usage"].get(name) for name in ("fuel", "memory_peak_bytes")}
    return found
