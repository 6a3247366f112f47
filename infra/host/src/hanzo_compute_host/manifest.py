"""host.json, which the template was compiled to, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Function:
    """A handler and what Lambda would give it."""

    name: str
    handler: str
    timeout_s: int
    memory_mib: int
    while_stopping: bool
    """Served until the work that runs has ended, while the host stops."""
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path pattern of the HTTP API."""

    method: str
    path: str
    function: str
    name: str = ""
    """Of the template's event: what clients call the operation."""


@dataclass(frozen=True, slots=True)
class QueueSource:
    """A queue that a function consumes."""

    name: str
    function: str
    batch_size: int
    window_s: int
    """Messages are gathered for so long before they are handled; 0: handled at once."""
    visibility_s: int
    max_receives: int
    dlq: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """A function that is called every ``every_s`` seconds."""

    name: str
    kind: str
    function: str
    every_s: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that the host serves, polls and ticks."""

    functions: Mapping[str, Function]
    routes: tuple[Route, ...]
    queues: tuple[QueueSource, ...]
    schedules: tuple[Schedule, ...]

    def environment(self) -> dict[str, str]:
        """The variables of all functions; the compiler made sure that they agree."""
        return {name: value for function in self.functions.values() for name, value in function.env.items()}


def from_json(host: Mapping[str, Any]) -> Manifest:
    """The manifest that decoded host.json describes."""
    return Manifest(
        functions={name: Function(name=name, **value) for name, value in host["functions"].items()},
        routes=tuple(Route(**value) for value in host["routes"]),
        queues=tuple(QueueSource(**value) for value in host["queues"]),
        schedules=tuple(Schedule(**value) for value in host["schedules"]),
    )


def load() -> Manifest:
    """The manifest that is packaged with the host."""
    text = resources.files("hanzo_compute_host").joinpath("host.json").read_text("utf-8")
    return from_json(json.loads(text))
