"""Functions: immutable versions, and aliases that say which of them a call gets."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pydantic_core import to_json

from hanzo_compute.errors import ComputeError, Conflict, FieldProblem, InvalidRequest, NotFound, Unavailable
from hanzo_compute.model import bounds, keys, package
from hanzo_compute.model.capabilities import HOST_FUNCTIONS
from hanzo_compute.model.function import ALWAYS, EXPORTS, HOST, WASI, AliasSetting, FunctionSpec
from hanzo_compute.model.registry import LIVE, Function, Version
from hanzo_compute.model.spec import ALIAS_NAME, FUNCTION_NAME, VERSION_NUMBER, digest
from hanzo_compute.model.wasm import InvalidModule, inspect
from hanzo_compute.ports import ABSENT, RECORD_MAX, Delete, Entries, Operation, Put, Record, WriteConflict
from hanzo_compute.services.context import Context
from hanzo_compute.services.records import TRIES

SPEC_MAX: Final = RECORD_MAX - 1000
"""A version's spec as JSON, bytes: it is stored as one record."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """The version that a deployment made, or the newest one, if it is just that already."""

    version: Version
    function: Function
    created: bool


@dataclass(frozen=True, slots=True)
class _Step:
    """A change of a function: its record after it, and what else belongs to the same transaction."""

    function: Function
    operations: Sequence[Operation] = ()


_Decide = Callable[[Function | None], _Step | None]
"""Says what becomes of a function (None: there never was one); None changes nothing, an error refuses.

It may be called several times, always with a newer record, and must not act on anything itself.
"""


def index(function: Function) -> Entries:
    """The index entries of a function's record."""
    return {} if function.removed else {keys.BY_TENANT: keys.function_entry(function.tenant, function.name)}


def deploy(ctx: Context, tenant: str, name: str, spec: FunctionSpec, *, publish: bool = True) -> Deployed:
    """Make a version, unless the newest one is just that; with ``publish`` the alias ``live`` then points to it.

    Raises:
        InvalidRequest: the name is none, the module is not there or does not fit, or there are too many functions.
    """
    if not re.fullmatch(FUNCTION_NAME, name):
        raise _invalid("name", "must be 1 to 63 characters of a-z, 0-9 and -, and neither begin nor end with -")
    _check(ctx, tenant, spec)
    body = spec.as_json()
    now = ctx.clock.now_ms()
    made = Version(name, 0, digest(body), now, body)

    def decide(found: Function | None) -> _Step | None:
        before = found or Function(tenant, name, 0, "", [], now, now)
        operations: list[Operation] = []
        after = before
        if before.digest != made.digest:
            if not before.versions:
                _admit(ctx, tenant)
            number = before.newest + 1
            version = replace(made, number=number)
            operations.append(Put(keys.version(tenant, name, number), version.record(), expect=ABSENT))
            after = replace(before, newest=number, digest=made.digest, versions=[*before.versions, number])
            if before.removed:
                after = replace(after, created_ms=now, removed=False)
        if publish:
            after = after.pointed(LIVE, {str(after.newest): 100}, "deploy", now)
        if spec.public:
            operations += _claim(ctx, tenant, name)
        after, gone = after.pruned()
        operations += [Delete(keys.version(tenant, name, number)) for number in gone]
        return None if after is before and not operations else _Step(after, operations)

    function, created = _change(ctx, tenant, name, decide)
    found = replace(made, number=function.newest) if created else resolve(ctx, tenant, name, str(function.newest), 0)
    return Deployed(found, function, created)


def resolve(ctx: Context, tenant: str, name: str, ref: str | None, pick: float) -> Version:
    """The version that a call gets: ``ref`` is a number, an alias, or None for ``live``.

    ``pick``, in [0, 1), chooses among the versions of an alias that has several.

    Raises:
        NotFound: no such function, alias or version.
    """
    function: Function | None = None
    for fresh in (False, True):
        number = int(ref) if ref is not None and re.fullmatch(VERSION_NUMBER, ref) else None
        if number is None:
            function = read(ctx, tenant, name, fresh=fresh)
            alias = function.aliases.get(ref or LIVE) if function else None
            number = alias.pick(pick) if alias else None
        record = _version(ctx, tenant, name, number, fresh=fresh) if number is not None else None
        if record is not None:
            return Version.from_record(record.body)
    function = _there(function or read(ctx, tenant, name, fresh=True), name)
    raise NotFound(
        f"function {name} has no {'version' if (ref or '').isdigit() else 'alias'} {ref or LIVE}",
        hint=f"it has the versions {_told(function.versions)} and the aliases {_told(sorted(function.aliases))}",
    )


def set_alias(ctx: Context, tenant: str, name: str, alias: str, setting: AliasSetting) -> Function:
    """Point an alias at one version, or at several with weights; it is made if there is none.

    Raises:
        NotFound: no such function.
        InvalidRequest: the alias has no good name, points to a version that is not there, or is one too many.
    """
    if not re.fullmatch(ALIAS_NAME, alias):
        raise _invalid("alias", "must be 1 to 32 characters of a-z, 0-9 and -, begin with a letter, not end with -")
    weights, now = setting.by_version(), ctx.clock.now_ms()
    field = "version" if setting.weights is None else "weights"

    def decide(found: Function | None) -> _Step | None:
        function = _there(found, name)
        missing = [number for number in weights if int(number) not in function.versions]
        if missing:
            raise _invalid(
                field, f"there is no version {missing[0]}", hint=f"there are the versions {_told(function.versions)}"
            )
        if alias not in function.aliases and len(function.aliases) >= bounds.ALIASES_MAX:
            raise _invalid("alias", f"a function has at most {bounds.ALIASES_MAX} aliases", hint="remove one first")
        after = function.pointed(alias, weights, "set", now)
        return None if after is function else _Step(after)

    return _change(ctx, tenant, name, decide)[0]


def rollback(ctx: Context, tenant: str, name: str, alias: str = LIVE) -> Function:
    """Point an alias where it pointed before its last change; again, where it did before that.

    Raises:
        NotFound: no such function or alias.
        Conflict: it has pointed nowhere else, or what it pointed to is not kept any more.
    """
    now = ctx.clock.now_ms()

    def decide(found: Function | None) -> _Step | None:
        function = _there(found, name)
        if not aliased(function, alias).aliases[alias].previous:
            raise Conflict(
                f"alias {alias} of function {name} has no earlier setting to go back to",
                hint=f"point it at a version: hzc fn alias {name} {alias} VERSION=100",
            )
        return _Step(function.rolled_back(alias, now))

    return _change(ctx, tenant, name, decide)[0]


def remove_alias(ctx: Context, tenant: str, name: str, alias: str) -> Function:
    """Remove an alias.

    Raises:
        NotFound: no such function or alias.
        Conflict: it is ``live``, which calls without a version go to.
    """
    now = ctx.clock.now_ms()

    def decide(found: Function | None) -> _Step | None:
        function = aliased(_there(found, name), alias)
        if alias == LIVE:
            raise Conflict(f"alias {LIVE} is not removed", hint=f"remove the function: hzc fn rm {name}")
        return _Step(function.without(alias, now))

    return _change(ctx, tenant, name, decide)[0]


def delete(ctx: Context, tenant: str, name: str) -> None:
    """Remove a function with its versions; jobs that were made of it keep what they run.

    Its count of versions stays: what is deployed under the name later has numbers of its own.

    Raises:
        NotFound: no such function.
    """

    def decide(found: Function | None) -> _Step | None:
        function = _there(found, name)
        gone: list[Operation] = [Delete(keys.version(tenant, name, number)) for number in function.versions]
        if public_tenant(ctx, name, fresh=True) == tenant:
            gone.append(Delete(keys.public_function(name)))
        left = replace(function, digest="", versions=[], aliases={}, history=[], removed=True)
        return _Step(left, gone)

    _change(ctx, tenant, name, decide)


def reference(text: str) -> tuple[str, str | None]:
    """``name``, ``name@3`` or ``name@alias`` as the name, and the number or alias."""
    name, _, ref = text.partition("@")
    return name, ref or None


def pick(ctx: Context) -> float:
    """A number in [0, 1) to choose a version by."""
    drawn = hashlib.sha256(ctx.ids.token().encode()).digest()
    return int.from_bytes(drawn[:6], "big") / 2**48


def read(ctx: Context, tenant: str, name: str, *, fresh: bool = False) -> Function | None:
    """The function, or None where there is none."""
    record = ctx.store.get(keys.function(tenant, name), fresh=fresh) if re.fullmatch(FUNCTION_NAME, name) else None
    function = None if record is None else Function.from_record(record.body)
    return None if function is None or function.removed else function


def _version(ctx: Context, tenant: str, name: str, number: int, *, fresh: bool) -> Record | None:
    if not re.fullmatch(FUNCTION_NAME, name):
        return None
    return ctx.store.get(keys.version(tenant, name, number), fresh=fresh)


def not_found(name: str) -> NotFound:
    """The error for a function that the caller cannot see."""
    return NotFound(f"there is no function {name}", hint="`hzc fn ls` lists your functions")


def _there(found: Function | None, name: str) -> Function:
    if found is None or found.removed:
        raise not_found(name)
    return found


def aliased(function: Function, alias: str) -> Function:
    """The function, if it has the alias. Raises NotFound."""
    if alias not in function.aliases:
        raise NotFound(
            f"function {function.name} has no alias {alias}", hint=f"it has {_told(sorted(function.aliases))}"
        )
    return function


def _told(values: Sequence[object]) -> str:
    return ", ".join(map(str, values[-bounds.HISTORY_MAX :])) or "none"


def _invalid(field: str, message: str, *, code: str = "invalid", hint: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", fields=[FieldProblem(field, message, code, hint)], hint=hint)


def public_tenant(ctx: Context, name: str, *, fresh: bool = False) -> str | None:
    """Whose function has this name for everybody; None if nobody has deployed one as public."""
    if not re.fullmatch(FUNCTION_NAME, name):
        return None
    record = ctx.store.get(keys.public_function(name), fresh=fresh)
    return None if record is None else str(record.body["tenant"])


def _claim(ctx: Context, tenant: str, name: str) -> list[Operation]:
    """Take a name for everybody: there is one of it in the whole platform. Raises Conflict."""
    at = keys.public_function(name)
    record = ctx.store.get(at, fresh=True)
    if record is None:
        return [Put(at, {"tenant": tenant}, expect=ABSENT)]
    if record.body["tenant"] != tenant:
        raise Conflict(
            f"the name {name} is taken: another tenant has a public function of that name",
            hint="deploy it under another name, or without public",
        )
    return []


def _admit(ctx: Context, tenant: str) -> None:
    """Refuse one function too many; what others deploy at the same moment may exceed the bound by as much."""
    partition = keys.function_entry(tenant, "")[0]
    if ctx.store.count_index(keys.BY_TENANT, partition, bounds.FUNCTIONS_MAX) >= bounds.FUNCTIONS_MAX:
        message = f"you have {bounds.FUNCTIONS_MAX} functions, which is the most"
        raise _invalid("name", message, code="too_many", hint="remove one: hzc fn rm NAME")


def _check(ctx: Context, tenant: str, spec: FunctionSpec) -> None:
    """Refuse a version whose module or package is not there or does not fit."""
    if len(to_json(spec.as_json())) > SPEC_MAX:
        raise _invalid("(body)", f"is over {SPEC_MAX} bytes as JSON: use fewer control characters", code="too_large")
    source = spec.source
    blob = source.module or source.package
    if blob is None:
        return
    if ctx.blobs.size(tenant, blob) is None:
        field, hint = "source.module" if source.module else "source.package", "upload it: POST /v1/blobs"
        raise _invalid(field, "you have no blob of this id", code="unknown_blob", hint=hint)
    data = ctx.blobs.get(tenant, blob)
    if source.module is not None:
        _check_module(data, spec)
        return
    assert source.language is not None, "a package is in a language"
    assert source.entry is not None, "it got a default"
    try:
        package.check(data, source.language, source.entry)
    except package.InvalidPackage as error:
        raise _invalid("source.package", f"is no package that runs here: {error}", code="package") from None


def _check_module(data: bytes, spec: FunctionSpec) -> None:
    """Refuse a module that imports what it was not granted, or lacks what its ABI needs."""
    try:
        facts = inspect(data)
    except InvalidModule as error:
        raise _invalid("source.module", f"is no module that runs here: {error}", code="module") from None
    problems = [
        problem for problem in (_import_problem(*each, spec.capabilities.granted) for each in facts.imports) if problem
    ]
    for name, kind in EXPORTS[spec.abi].items():
        if facts.exports.get(name) != kind:
            message = f"does not export the {kind} {name}, which the abi {spec.abi} needs"
            problems.append(
                FieldProblem("source.module", message, "missing_export", "choose another abi, or export it")
            )
    if problems:
        first = problems[0]
        shown = problems[: bounds.PROBLEMS_MAX]
        raise InvalidRequest(f"{first.field}: {first.message}", fields=shown, hint=first.hint)


def _import_problem(module: str, name: str, kind: str, granted: Sequence[str]) -> FieldProblem | None:
    shown = f"imports {module[:80]}.{name[:80]}"
    if kind == "func" and (module == WASI or (module == HOST and name in ALWAYS)):
        return None
    for capability, names in HOST_FUNCTIONS.items():
        if kind == "func" and module == HOST and name in names:
            if capability in granted:
                return None
            hint = f"ask for it in capabilities.{capability} (hzc fn deploy --help)"
            message = f"the module {shown}, which needs the capability {capability}"
            return FieldProblem(f"capabilities.{capability}", message, "not_granted", hint)
    known = sorted(ALWAYS.union(*HOST_FUNCTIONS.values()))
    hint = f"functions of {WASI}, and of {HOST}: {', '.join(known)}"
    return FieldProblem("source.module", f"{shown} ({kind}), which is not there", "unknown_import", hint)


def _change(ctx: Context, tenant: str, name: str, decide: _Decide) -> tuple[Function, bool]:
    """Read a function, let ``decide`` say what becomes of it, and write that if nothing came in between; else again.

    Returns the function, and whether a version was made.
    """
    if not re.fullmatch(FUNCTION_NAME, name):
        raise not_found(name)
    at = keys.function(tenant, name)
    for attempt in range(TRIES):
        fresh = attempt > 0
        record = ctx.store.get(at, fresh=fresh)
        before = None if record is None else Function.from_record(record.body)
        try:
            step = decide(before)
        except ComputeError:
            if fresh:
                raise
            continue  # what it refused may be an old record: ask again with the newest
        if step is None:
            if fresh and before is not None:
                return before, False
            continue
        updated = ctx.clock.now_ms() if before is None else max(ctx.clock.now_ms(), before.updated_ms)
        after = replace(step.function, updated_ms=updated)
        expect = ABSENT if record is None else record.rev
        try:
            ctx.store.transact([Put(at, after.record(), expect=expect, index=index(after)), *step.operations])
        except WriteConflict:
            continue
        return after, before is None or after.newest > before.newest
    raise Unavailable(f"function {name} is changing too fast", hint="try again", retry_after_s=1)
