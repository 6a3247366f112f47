"""What answers look like, by the names that routes give them. An answer may have more members in a later release.

Answers are made of dicts, so there is no type to take this from: the tests hold every answer that they get to it.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
NUMBER: Final[Schema] = {"type": "integer"}
FLAG: Final[Schema] = {"type": "boolean"}
TIME: Final[Schema] = {"type": "string", "format": "date-time"}
OBJECT: Final[Schema] = {"type": "object"}
UNITS: Final[Schema] = {"type": "string", "pattern": "^[0-9]+$", "description": "Base units of the token."}
WEIGHTS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": "integer"},
    "description": "The percentage of calls that each version gets.",
}


def _to(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _object(text: str, always: dict[str, Schema], sometimes: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "description": text,
        "required": list(always),
        "properties": always | (sometimes or {}),
    }


def _more(base: str, text: str, always: dict[str, Schema], sometimes: dict[str, Schema] | None = None) -> Schema:
    return {"allOf": [_to(base), _object(text, always, sometimes)]}


SHAPES: Final[dict[str, Schema]] = {
    "Problem": _object(
        "RFC 9457 problem details.",
        {
            "type": TEXT,
            "title": TEXT,
            "status": NUMBER,
            "detail": TEXT | {"description": "What went wrong, and why."},
            "code": TEXT | {"description": "Stable; see docs/api.md."},
            "retryable": FLAG | {"description": "Whether the same call can succeed later."},
        },
        {
            "hint": TEXT | {"description": "What to do next."},
            "request_id": TEXT | {"description": "There, unless there was no request to answer."},
            "errors": _many(
                _object("What is wrong with a field.", {"field": TEXT, "code": TEXT, "message": TEXT}, {"hint": TEXT})
            ),
        },
    ),
    "JobSummary": _object(
        "A job, as lists show it.",
        {
            "id": TEXT,
            "state": _to("State"),
            "runtime": TEXT,
            "attempt": NUMBER,
            "created_at": TIME,
            "updated_at": TIME,
            "labels": {"type": "object", "additionalProperties": TEXT},
        },
        {
            "category": TEXT,
            "exit_code": NUMBER,
            "reason": TEXT,
            "origin": OBJECT,
            "started_at": TIME,
            "finished_at": TIME,
        },
    ),
    "Job": _more(
        "JobSummary",
        "All that its tenant may see. `spec` and `outcome` where one job is looked at.",
        {"failures": NUMBER, "lapses": NUMBER, "spec_digest": TEXT},
        {
            "cost": _object("What it has cost.", {"token": TEXT, "billed": UNITS, "attempt_most": UNITS}),
            "pool": TEXT,
            "agent": TEXT,
            "deadline": TIME,
            "placed_at": TIME,
            "next_attempt_at": TIME,
            "cancel_requested": TEXT,
            "privacy_tier": OBJECT,
            "spec": OBJECT,
            "outcome": OBJECT,
        },
    ),
    "JobResult": _object(
        "How a job has ended.", {"id": TEXT, "state": _to("State"), "outcome": _maybe(OBJECT)}, {"reason": TEXT}
    ),
    "JobEvent": _object("Something that happened to a job.", {"seq": NUMBER, "at": TIME, "type": TEXT}),
    "JobOutput": _object(
        "An output: in base64, or behind a URL.",
        {"name": TEXT, "size": NUMBER},
        {"inline_base64": TEXT, "blob": TEXT, "url": TEXT, "url_expires_at": TIME},
    ),
    "LogPage": _object(
        "Entries of a log. `done`: the job has ended, and there is no more.",
        {
            "items": _many(_object("What was written.", {"at": TIME, "stream": TEXT, "text": TEXT})),
            "cursor": TEXT,
            "done": FLAG,
        },
    ),
    "CheckedSpec": _object("A spec that would be taken.", {"valid": FLAG, "spec": OBJECT, "digest": TEXT}),
    "Quote": _object(
        "The most that a job can cost. `firm`: on every machine the same.",
        {
            "token": TEXT,
            "symbol": TEXT,
            "decimals": NUMBER,
            "units": UNITS,
            "attempts": NUMBER,
            "attempt_units": UNITS,
            "firm": FLAG,
            "basis": TEXT,
            "items": _many(OBJECT),
            "tariff": OBJECT,
            "rates": TEXT,
        },
    ),
    "Blob": _object("Bytes that are there.", {"id": TEXT, "size": NUMBER, "url": TEXT, "url_expires_at": TIME}),
    "Upload": _object(
        "Where bytes go; nowhere, if they are there already.",
        {
            "id": TEXT,
            "size": NUMBER,
            "exists": FLAG,
            "upload": _maybe(_object("A request for these bytes.", {"url": TEXT, "method": TEXT, "expires_at": TIME})),
        },
    ),
    "FunctionSummary": _object(
        "A function, as lists show it.",
        {
            "name": TEXT,
            "newest": NUMBER,
            "aliases": {"type": "object", "additionalProperties": WEIGHTS},
            "created_at": TIME,
            "updated_at": TIME,
        },
    ),
    "Function": _more("FunctionSummary", "A function.", {"versions": _many(NUMBER), "history": _many(OBJECT)}),
    "Version": _object(
        "A version of a function; it never changes.",
        {"name": TEXT, "version": NUMBER, "reference": TEXT, "digest": TEXT, "created_at": TIME, "spec": OBJECT},
    ),
    "DeployedVersion": _more(
        "Version", "With where aliases point now.", {"aliases": {"type": "object", "additionalProperties": WEIGHTS}}
    ),
    "Alias": _object(
        "Where an alias points, and where it would go back to, the newest last.",
        {"name": TEXT, "alias": TEXT, "weights": WEIGHTS, "previous": _many(WEIGHTS)},
    ),
    "FunctionLogs": _object("Calls that wrote something.", {"items": _many(_object("A call.", {"at": TIME}))}),
    "KeyValue": _object(
        "A key-value entry; `key` is null if it is no text.",
        {"key": _maybe(TEXT), "key_base64url": TEXT, "version": NUMBER, "size": NUMBER},
        {"updated_at": TIME, "value": TEXT, "value_base64": TEXT},
    ),
    "Secret": _object(
        "A secret without its value.", {"name": TEXT, "version": NUMBER, "created_at": TIME, "updated_at": TIME}
    ),
    "SecretRead": _object("A call has read a secret.", {"at": TIME, "function": TEXT, "secret": TEXT, "call": TEXT}),
    "Removed": _object("It is gone.", {"name": TEXT, "removed": FLAG}),
    "Schedule": _object(
        "A schedule; `spec` where one is looked at.",
        {
            "name": TEXT,
            "revision": NUMBER,
            "cron": TEXT,
            "timezone": TEXT,
            "paused": FLAG,
            "jobs": NUMBER,
            "runs": NUMBER,
            "next_at": _maybe(TIME),
            "last_at": _maybe(TIME),
            "created_at": TIME,
            "updated_at": TIME,
        },
        {"last_error": {}, "spec": OBJECT},
    ),
    "ScheduleRun": _object(
        "What became of a time, or of several that were missed.",
        {"at": TIME, "status": TEXT, "jobs": _many(TEXT), "recorded_at": TIME},
        {"until": TIME, "errors": _many(OBJECT)},
    ),
    "PolicyVersion": _object(
        "A version of an appraisal policy; `policy` where one is looked at.",
        {"name": TEXT, "version": NUMBER, "digest": TEXT},
        {"updated_at": TIME, "policy": OBJECT},
    ),
}
