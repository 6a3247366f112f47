"""A client that knows of a platform only what ``GET /openapi.json`` says, and holds it to that."""

from __future__ import annotations

import functools
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

import job_intake

URN = "urn:api"


DOCUMENT: dict[str, Any] = json.loads(Path(job_intake.__file__).with_name("openapi.json").read_text("utf-8"))
"""As it is committed."""


def validator(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Draft202012Validator:
    """For a schema of the document, whose references are into the document."""
    registry: Registry[Any] = Registry().with_resource(URN, Resource(document, DRAFT202012))
    inside = json.loads(json.dumps(schema).replace('"#/', f'"{URN}#/'))
    return Draft202012Validator(inside, registry=registry)


def content_of(document: Mapping[str, Any], operation: Mapping[str, Any], status: int) -> Mapping[str, Any]:
    """The media types that an operation may answer with, each with its schema."""
    responses = operation["responses"]
    known = responses.get(str(status)) or responses.get(f"{status // 100}XX") or responses["default"]
    if "$ref" in known:
        known = document["components"]["responses"][known["$ref"].rpartition("/")[2]]
    found: Mapping[str, Any] = known["content"]
    return found


@functools.cache
def _of_answer(method: str, path: str, status: int, media: str) -> Draft202012Validator:
    content = content_of(DOCUMENT, DOCUMENT["paths"][path][method.lower()], status)
    return validator(DOCUMENT, content[media]["schema"])


def holds(method: str, path: str, status: int, media: str, body: Any) -> None:
    """That an answer in JSON is as the committed description says of this route."""
    _of_answer(method, path, status, media).validate(body)


@dataclass(frozen=True)
class Reply:
    """An answer that was described."""

    status: int
    media: str
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        """What it says."""
        return json.loads(self.data)


class Described:
    """Calls operations by their names; ``keys`` are the credentials that it has, by the names of their schemes."""

    def __init__(self, url: str, keys: Mapping[str, str]) -> None:
        self._url, self._keys = url, keys
        found = self._send("GET", "/openapi.json", {"Authorization": f"Bearer {keys['owner']}"}, None)
        self.document: dict[str, Any] = found.json
        self._operations = {
            operation["operationId"]: (method.upper(), path, operation)
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
        }

    def area(self, name: str) -> str:
        """Of an operation."""
        (tag,) = self._operations[name][2]["tags"]
        return str(tag)

    def __call__(self, operation: str, body: Any = None, /, *, accept: str | None = None, **given: Any) -> Reply:
        """Parameters are named as in the description, with ``_`` for ``-``, in small letters."""
        method, path, described = self._operations[operation]
        headers: dict[str, str] = {}
        query: dict[str, Any] = {}
        for each in described.get("parameters", []):
            name = each["name"].replace("-", "_").lower()
            assert name in given or not each["required"], f"{operation} needs {name}"
            if name not in given:
                continue
            value = given.pop(name)
            if each["in"] == "path":
                path = path.replace(f"{{{each['name']}}}", urllib.parse.quote(str(value)))
            elif each["in"] == "header":
                headers[each["name"]] = value
            else:
                query |= value if each.get("explode") else {each["name"]: value}
        assert not given, f"{operation} has no {', '.join(given)}"
        scheme = next(iter(described["security"][0]), None)
        if scheme is not None:
            headers["Authorization"] = f"Bearer {self._keys[scheme]}"
        if accept is not None:
            headers["Accept"] = accept
        data = None
        if body is not None:
            ((media, content),) = described["requestBody"]["content"].items()
            headers["Content-Type"] = media
            data = body
            if media == "application/json":
                validator(self.document, content["schema"]).validate(body)
                data = json.dumps(body).encode()
        found = self._send(method, path + (f"?{urllib.parse.urlencode(query)}" if query else ""), headers, data)
        self._check(operation, found)
        return found

    def _send(self, method: str, path: str, headers: Mapping[str, str], data: bytes | None) -> Reply:
        request = urllib.request.Request(self._url + path, data, dict(headers), method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Reply(answer.status, answer.headers.get_content_type(), answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers.get_content_type(), error.headers, error.read())

    def _check(self, operation: str, found: Reply) -> None:
        """That the answer is one that its description has."""
        content = content_of(self.document, self._operations[operation][2], found.status)
        assert found.media in content or "*/*" in content, f"{operation}: {found.status} {found.media}"
        if found.media.endswith("json") and found.media in content:
            validator(self.document, content[found.media]["schema"]).validate(found.json)
