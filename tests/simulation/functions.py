"""Tenants deploy, point, roll back and remove functions at the same time, and make jobs of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryDatabase
from hanzo_compute.adapters.memory.database import StoredRecord
from hanzo_compute.errors import Conflict, InvalidRequest, NotFound
from hanzo_compute.model import keys
from hanzo_compute.model.function import AliasSetting, FunctionSpec
from hanzo_compute.model.keys import Key
from hanzo_compute.model.registry import Function, Version
from hanzo_compute.ports import Body, Operation, Put
from hanzo_compute.services import function_views, functions
from hanzo_compute.services.context import Context
from tests.simulation.host import Answer
from tests.simulation.violation import require

NAMES: Final = ("f", "f", "g")
CODES: Final = ("pass", "pass 1", "pass 2")
ALIASES: Final = ("live", "live", "canary")

Call = Callable[[str, Callable[[Context], Answer[Any]]], Any]


@dataclass
class FunctionWatch:
    """What was told of versions, and what must hold at every write to a function."""

    told: dict[tuple[str, str, int], str] = field(default_factory=dict)
    """Source by tenant, name and number: for good."""

    def saw(self, tenant: str, version: Version) -> None:
        """A client was told of a version."""
        code = version.spec["source"]["code"]
        before = self.told.setdefault((tenant, version.name, version.number), code)
        require(before == code, f"{version.reference} of {tenant} was {before!r}, and is {code!r}")

    def applied(
        self, operations: Mapping[Key, Operation], before: Mapping[Key, StoredRecord | None], database: MemoryDatabase
    ) -> None:
        """A transaction that wrote to functions has just been applied."""
        for key, operation in operations.items():
            if key.pk.startswith("PUBLIC#"):
                self._claim(key, operation, before[key], operations)
            if not key.pk.startswith("FUNCTION#"):
                continue
            meta = Key(key.pk, "META")
            require(meta in operations, f"{key} was written without its function's record")
            earlier = before[meta]
            newest = 0 if earlier is None else decode_body(earlier.body)["newest"]
            if key == meta:
                self._meta(operation, newest, operations, database)
            elif isinstance(operation, Put):
                if operation.body["spec"]["public"]:
                    self._owned(key.pk, operation.body["name"], database)
                require(before[key] is None, f"{key} was written twice")
                require(operation.body["number"] > newest, f"{key} takes a number that there was: {newest}")

    def _claim(
        self, key: Key, operation: Operation, before: StoredRecord | None, operations: Mapping[Key, Operation]
    ) -> None:
        """A name for everybody is taken from nobody, and freed by its owner's removal alone."""
        name = key.pk.removeprefix("PUBLIC#")
        if isinstance(operation, Put):
            require(before is None, f"{key} was taken from another")
            tenant = operation.body["tenant"]
        else:
            require(before is not None, f"{key} was freed, and nobody had it")
            assert before is not None
            tenant = decode_body(before.body)["tenant"]
        meta = operations.get(keys.function(tenant, name))
        require(isinstance(meta, Put), f"{key} of {tenant} changed without its function")
        assert isinstance(meta, Put)
        removed = Function.from_record(meta.body).removed
        require(removed is not isinstance(operation, Put), f"{key} of {tenant}: its function is removed: {removed}")

    def _owned(self, pk: str, name: str, database: MemoryDatabase) -> None:
        record = database.record(keys.public_function(name))
        owner = record and decode_body(record.body)["tenant"]
        require(owner is not None and keys.function(owner, name).pk == pk, f"{pk} is public, the name is {owner}'s")

    def _meta(
        self, operation: Operation, newest: int, operations: Mapping[Key, Operation], database: MemoryDatabase
    ) -> None:
        require(isinstance(operation, Put), f"{operation.key} was removed, and its count with it")
        assert isinstance(operation, Put)
        function = Function.from_record(operation.body)
        versions = [key for key in operations if key.pk == operation.key.pk and key.sk != "META"]
        puts = sum(isinstance(operations[key], Put) for key in versions)
        require(function.newest == newest + puts, f"{operation.key} counts {function.newest} after {newest}, +{puts}")
        there = {
            int(sk.removeprefix(keys.VERSION))
            for sk in database.partitions.get(operation.key.pk, {})
            if sk.startswith(keys.VERSION)
        }
        require(set(function.versions) == there, f"{operation.key} lists {function.versions}, and has {there}")
        for name, alias in function.aliases.items():
            for weights in (alias.weights, *alias.previous):
                require(set(map(int, weights)) <= there, f"alias {name} of {operation.key} points to {weights}")

    def check(self, database: MemoryDatabase, jobs: Mapping[str, Mapping[str, Body]]) -> None:
        """At rest: versions are what was told of them, and jobs have what their version was."""
        for (tenant, name, number), code in self.told.items():
            stored = database.record(keys.version(tenant, name, number))
            kept = stored and decode_body(stored.body)["spec"]["source"]["code"]
            require(kept in (None, code), f"{name}@{number} of {tenant} was told as {code!r}, and is {kept!r}")
        for job_id, records in jobs.items():
            source = records["SPEC"]["source"]
            if "function" in source:
                name, _, number = source["function"].partition("@")
                code = self.told.get((records["META"]["tenant"], name, int(number)), source["code"])
                require(source["code"] == code, f"{job_id} of {source['function']} runs {source['code']!r}")


def work(random: Random, tenant: str, call: Call, watch: FunctionWatch) -> None:
    """A few operations on functions that others work on, too."""
    for _ in range(random.randint(2, 6)):
        name, alias = random.choice(NAMES), random.choice(ALIASES)
        numbers = [number for owner, named, number in watch.told if (owner, named) == (tenant, name)]
        step = random.choices(_STEPS, (5, 3, 2, 1, 3))[0]
        try:
            step(random, tenant, name, alias, numbers, call, watch)
        except (NotFound, Conflict, InvalidRequest):
            continue  # somebody removed it, or there is nothing to go back to


def _deploy(
    random: Random, tenant: str, name: str, _alias: str, _numbers: list[int], call: Call, watch: FunctionWatch
) -> None:
    source = {"code": random.choice(CODES), "language": "python"}
    spec = FunctionSpec.model_validate({"source": source, "public": random.random() < 0.3})
    publish = random.random() < 0.7
    made = call("deploy", lambda ctx: (functions.deploy(ctx, tenant, name, spec, publish=publish), ()))
    watch.saw(tenant, made.version)
    require(made.version.spec == spec.as_json(), f"{made.version.reference} is not what was deployed")
    if publish:
        weights = made.function.aliases["live"].weights
        require(
            weights == {str(made.version.number): 100}, f"{made.version.reference} was published, live is {weights}"
        )


def _point(
    random: Random, tenant: str, name: str, alias: str, numbers: list[int], call: Call, _watch: FunctionWatch
) -> None:
    chosen = random.sample(numbers, min(len(numbers), random.randint(1, 2))) or [1]
    weights = {str(number): 100 // len(chosen) for number in chosen}
    setting = AliasSetting(weights=weights)
    found = call("alias", lambda ctx: (functions.set_alias(ctx, tenant, name, alias, setting), ()))
    require(found.aliases[alias].weights == weights, f"{name}: {alias} was set to {weights}, and is {found.aliases}")


def _rollback(
    _random: Random, tenant: str, name: str, alias: str, _numbers: list[int], call: Call, _watch: FunctionWatch
) -> None:
    found = call("rollback", lambda ctx: (functions.rollback(ctx, tenant, name, alias), ()))
    require(found.history[-1]["by"] == "rollback", f"{name}: a rollback left {found.history[-1:]}")


def _delete(
    _random: Random, tenant: str, name: str, _alias: str, _numbers: list[int], call: Call, _watch: FunctionWatch
) -> None:
    call("delete", lambda ctx: (functions.delete(ctx, tenant, name), ()))


def _look(
    random: Random, tenant: str, name: str, alias: str, numbers: list[int], call: Call, watch: FunctionWatch
) -> None:
    ref = str(random.choice(numbers)) if numbers and random.random() < 0.5 else alias
    pick = random.random()
    watch.saw(tenant, call("resolve", lambda ctx: (functions.resolve(ctx, tenant, name, ref, pick), ())))
    page = call("versions", lambda ctx: (function_views.versions(ctx, tenant, name, cursor="", limit=100), ()))
    for each in page.items:
        watch.saw(tenant, Version(name, each["version"], each["digest"], 0, each["spec"]))


_STEPS: Final = (_deploy, _point, _rollback, _delete, _look)
