"""A job whose source is a function becomes one of what the function is: agents, digests and reruns see no other."""

from __future__ import annotations

from typing import Any

from hanzo_compute.errors import FieldProblem, InvalidSpec, NotFound, NotSupported
from hanzo_compute.model.function import granted
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.registry import Version
from hanzo_compute.model.spec import JobSpec
from hanzo_compute.services import functions
from hanzo_compute.services.context import Context


def expand(ctx: Context, tenant: str, spec: JobSpec) -> JobSpec:
    """The spec with the program of its function, and that version's reference beside it; any other spec as it is.

    What the job does not give, the version does: args, profile, and each variable and bound by its name.

    Raises:
        InvalidSpec: there is no such function, alias or version; or the two together are out of bounds.
        NotSupported: it is a function that does not run as a job.
    """
    named = spec.source.function
    if named is None or spec.source.concrete:
        return spec
    name, ref = functions.reference(named)
    try:
        version = functions.resolve(ctx, tenant, name, ref, functions.pick(ctx))
    except NotFound as error:
        problem = FieldProblem("source.function", error.message, "unknown_function", error.hint)
        raise InvalidSpec(f"source.function: {error.message}", fields=[problem], hint=error.hint) from None
    _check(version)
    return parse_spec(_together(spec, version), stored=True)


def _check(version: Version) -> None:
    wrong = hint = ""
    if version.spec["abi"] != "command":
        wrong, hint = f"is a {version.spec['abi']}", "invoke it, or deploy a command"
    else:
        found = granted(version.spec)
        if found:
            wrong, hint = f"has the capabilities {', '.join(found)}", "invoke it, or deploy it without"
    if wrong:
        message = f"{version.reference} {wrong}, and such functions do not run as jobs"
        problem = FieldProblem("source.function", message, "not_supported", hint)
        raise NotSupported(f"source.function: {message}", fields=[problem], hint=hint)


def _together(spec: JobSpec, version: Version) -> dict[str, Any]:
    given, found = spec.model_fields_set, version.spec
    own = spec.resources.model_dump(include=spec.resources.model_fields_set, exclude_none=True)
    body = spec.as_json()
    body["source"] = {**found["source"], "function": version.reference}
    body["env"] = {**found["env"], **spec.env}
    body["resources"] = {**found["resources"], **own}
    for field in ("args", "profile"):
        if field not in given:
            body[field] = found[field]
    return body
