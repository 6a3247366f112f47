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
    _check(version, spec)
    return parse_spec(_together(spec, version), stored=True)


def _check(version: Version, spec: JobSpec) -> None:
    wrong = hint = ""
    if version.spec["abi"] != "command":
        wrong, hint = f"is a {version.spec['abi']}", "invoke it, or deploy a command"
    elif spec.data_key is not None and granted(version.spec):
        # What it does by them would be outside of what is sealed: entries and requests are seen by the platform.
        wrong = f"has the capabilities {', '.join(granted(version.spec))}"
        hint = "deploy it without, or submit the job without data_key and privacy_tier"
    if wrong:
        kind = "such functions do not run as jobs" if spec.data_key is None else "such functions run in no sealed job"
        message = f"{version.reference} {wrong}, and {kind}"
        problem = FieldProblem("source.function", message, "not_supported", hint)
        raise NotSupported(f"source.function: {message}", fields=[problem], hint=hint)


def _together(spec: JobSpec, version: Version) -> dict[str, Any]:
    given, found = spec.model_fields_set, version.spec
    own = spec.resources.model_dump(include=spec.resources.model_fields_set, exclude_none=True)
    body = spec.as_json()
    body["source"] = {**found["source"], "function": version.reference}
    if granted(found):  # so that a job, and its reruns, may do what this version was granted, whatever is live by then
        body["source"]["capabilities"] = found["capabilities"]
    body["env"] = {**found["env"], **spec.env}
    body["resources"] = {**found["resources"], **own}
    for field in ("args", "profile"):
        if field not in given:
            body[field] = found[field]
    return body
