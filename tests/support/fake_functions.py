"""Functions of the small platform of :mod:`tests.support.fake_api`: what it answers is made by the services."""

from __future__ import annotations

import base64
from typing import Any

from pydantic import ValidationError

from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.function import AliasSetting, FunctionSpec
from hanzo_compute.model.problems import field_problems
from hanzo_compute.services import entries, function_views, functions, secrets
from tests.support.stepped import Platform

TENANT = "acme"
Body = dict[str, Any]


def answer_functions(
    platform: Platform, blobs: dict[str, bytes], method: str, path: list[str], query: dict[str, str], body: Any
) -> tuple[int, Any, Body]:
    """The answer to a call under ``/v1/functions``."""
    ctx = platform.ctx
    for data in blobs.values():
        platform.blobs.put(TENANT, data)
    match (method, path):
        case ("GET", []):
            cursor, limit = query.get("cursor", ""), int(query["limit"])
            return 200, function_views.functions(ctx, TENANT, cursor=cursor, limit=limit).as_json(), {}
        case ("PUT", [name]):
            spec = _parsed(FunctionSpec, body)
            made = functions.deploy(ctx, TENANT, name, spec, publish="publish" not in query)
            shown = made.version.view() | {"aliases": made.function.view()["aliases"]}
            return 201 if made.created else 200, shown, {}
        case ("GET", [name]):
            return 200, function_views.function(ctx, TENANT, name).view(), {}
        case ("DELETE", [name]):
            functions.delete(ctx, TENANT, name)
            return 200, {"name": name, "removed": True}, {}
        case ("GET", [name, "versions", number]):
            return 200, function_views.version(ctx, TENANT, name, number).view(), {}
        case ("PUT", [name, "aliases", alias]):
            found = functions.set_alias(ctx, TENANT, name, alias, _parsed(AliasSetting, body))
            return 200, function_views.alias_view(found, alias), {}
        case ("DELETE", [name, "aliases", alias]):
            return 200, functions.remove_alias(ctx, TENANT, name, alias).view(), {}
        case ("POST", [name, "rollback"]):
            found = functions.rollback(ctx, TENANT, name, body["alias"])
            return 200, function_views.alias_view(found, body["alias"]), {}
        case ("GET", [name, "kv"]):
            prefix = entries.decode_key(query.get("prefix", ""), "base64url", "prefix")
            found = entries.entries(
                ctx, TENANT, name, prefix=prefix, cursor=query.get("cursor", ""), limit=_limit(query)
            )
            return 200, found.as_json(), {}
        case ("GET", [name, "kv", key]):
            return 200, entries.get(ctx, TENANT, name, entries.decode_key(key, query["encoding"])), {}
        case ("PUT", [name, "kv", key]):
            raw, value = entries.decode_key(key, query["encoding"]), base64.b64decode(body["value_base64"])
            return 200, entries.put(ctx, TENANT, name, raw, value, body["expect"]), {}
        case ("DELETE", [name, "kv", key]):
            entries.remove(ctx, TENANT, name, entries.decode_key(key, query["encoding"]), int(query["expect"]))
            return 200, {"name": name, "removed": True}, {}
    raise AssertionError(f"no such call: {method} {path}")


def answer_secrets(
    platform: Platform, method: str, path: list[str], query: dict[str, str], body: Any
) -> tuple[int, Any, Body]:
    """The answer to a call under ``/v1/secrets``, or to ``/v1/audit``."""
    ctx, cursor, limit = platform.ctx, query.get("cursor", ""), _limit(query)
    match (method, path):
        case ("GET", ["secrets"]):
            return 200, secrets.secrets(ctx, TENANT, cursor=cursor, limit=limit).as_json(), {}
        case ("PUT", ["secrets", name]):
            return 200, secrets.put(ctx, TENANT, name, base64.b64decode(body["value_base64"])), {}
        case ("DELETE", ["secrets", name]):
            secrets.remove(ctx, TENANT, name)
            return 200, {"name": name, "removed": True}, {}
        case ("GET", ["audit"]):
            return 200, secrets.reads(ctx, TENANT, secret=query.get("secret"), cursor=cursor, limit=limit).as_json(), {}
    raise AssertionError(f"no such call: {method} {path}")


def _limit(query: dict[str, str]) -> int:
    """Pages may be short and not be the last."""
    return min(2, int(query.get("limit", 2)))


def _parsed(model: Any, body: Any) -> Any:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        problems = field_problems(error.errors(include_url=False, include_input=False), model)
        raise InvalidRequest(f"{problems[0].field}: {problems[0].message}", fields=problems) from None
