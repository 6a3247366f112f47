"""Compiles template.yaml into host.json: what the host serves, polls and ticks.

See subset.py for what a template may say.

All handlers share one process on the host: so a variable must have the same value in every environment.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any, Final

from hanzo_compute_host.cfn import Node, Scope, TemplateError, parse
from hanzo_compute_host.generated import settle
from hanzo_compute_host.subset import API, AWS_ONLY, EVENTS, FUNCTION, QUEUE, TOP, USED, Resource, only

HOST_JSON: Final = "host.json"

_RATE: Final = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_SECONDS: Final = {"minute": 60, "hour": 3600, "day": 86400}
_METHODS: Final = {"ANY", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_PATH: Final = re.compile(r"(?:/(?:[\w.~-]+|\{\w+\}))*(?:/\{\w+\+\})?|/")


def compile_text(text: str) -> dict[str, Any]:
    """The contents of host.json for a template.

    Raises:
        TemplateError: the template leaves the subset, or contradicts itself.
    """
    return _Compiler(parse(text)).run()


def render(host: dict[str, Any]) -> str:
    """host.json as it is committed."""
    return json.dumps(host, indent=2, ensure_ascii=False) + "\n"


class _Compiler:
    def __init__(self, root: Node) -> None:
        top = only(root, "the template", TOP)
        if "Resources" not in top:
            raise TemplateError(root.line, "the template has no Resources")
        nothing = Node(root.line, {})
        self.defaults = only(
            only(top.get("Globals", nothing), "Globals", {"Function"}).get("Function", nothing),
            "Globals: Function",
            USED[FUNCTION] - {"Events"} | AWS_ONLY[FUNCTION],
        )
        self.resources = [Resource(*item) for item in top["Resources"].mapping("Resources").items()]
        self.scope = Scope(self._parameters(top.get("Parameters", nothing)))
        self.scope.attributes.update({each.name: each.attributes() for each in self.resources})
        self.queues = {each.attributes()["Arn"]: each for each in self.resources if each.kind == QUEUE}
        # Also what the host has no use for must refer to things that exist.
        for node in [*self.defaults.values(), top.get("Outputs", nothing)]:
            self.scope.value(node)
        for each in self.resources:
            for node in each.properties.values():
                self.scope.value(node)
        self.host: dict[str, Any] = {"functions": {}, "routes": [], "queues": [], "schedules": []}
        self.variables: dict[str, str] = {}

    @staticmethod
    def _parameters(node: Node) -> dict[str, Any]:
        found = {}
        for name, parameter in node.mapping("Parameters").items():
            members = parameter.mapping(name)
            if "Default" not in members:
                raise TemplateError(parameter.line, f"parameter {name} needs a Default: nobody is asked")
            found[name] = members["Default"].value
        return found

    def run(self) -> dict[str, Any]:
        for resource in self.resources:
            if resource.kind == FUNCTION:
                self._function(resource)
        consumed = {queue["name"] for queue in self.host["queues"]}
        letters = {queue["dlq"] for queue in self.host["queues"]}
        for resource in self.queues.values():
            if resource.attributes()[""] not in consumed | letters:
                raise TemplateError(resource.line, f"{resource.name}: nothing consumes this queue")
        return self.host

    def _property(self, resource: Resource, name: str) -> Any:
        node = resource.properties.get(name) or self.defaults.get(name)
        if node is None:
            raise TemplateError(resource.line, f"{resource.name} needs {name}, here or in Globals")
        return self.scope.value(node)

    def _number(self, node: Node | None, what: str, *, default: int | None = None) -> int:
        if node is None and default is not None:
            return default
        value = None if node is None else self.scope.value(node)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise TemplateError(node.line if node else 1, f"{what} must be a whole number from 1")
        return value

    def _function(self, resource: Resource) -> None:
        handler = str(self._property(resource, "Handler"))
        if not re.fullmatch(r"[a-z_]\w*(\.[a-z_]\w*)+", handler):
            raise TemplateError(resource.line, f"{resource.name}: {handler!r} is not package.module.function")
        stopping = resource.hzc.get("while_stopping", Node(resource.line, False))
        self.host["functions"][resource.name] = {
            "handler": handler,
            "timeout_s": int(self._property(resource, "Timeout")),
            "memory_mib": int(self._property(resource, "MemorySize")),
            "while_stopping": bool(stopping.value),
            "env": self._environment(resource),
        }
        events = resource.properties.get("Events", Node(resource.line, {}))
        for name, event in events.mapping("Events").items():
            self._event(resource, name, event)

    def _environment(self, resource: Resource) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in (self.defaults.get("Environment"), resource.properties.get("Environment")):
            if node is None:
                continue
            variables = only(node, "Environment", {"Variables"})["Variables"]
            for name, member in variables.mapping("Variables").items():
                value = str(self.scope.value(member))
                if self.variables.setdefault(name, value) != value:
                    raise TemplateError(member.line, f"{name} has another value in another function")
                found[name] = value
        return found

    def _event(self, resource: Resource, name: str, node: Node) -> None:
        members = only(node, name, {"Type", "Properties"})
        kind = str(members["Type"].value) if "Type" in members else ""
        if kind not in EVENTS:
            raise TemplateError(node.line, f"{name}: the host knows no event of type {kind or '(none)'}")
        properties = only(members.get("Properties", Node(node.line, {})), f"{kind} {name}", EVENTS[kind])
        if kind == "HttpApi":
            self._route(resource, name, node.line, properties)
        elif kind == "SQS":
            self._queue(resource, node.line, properties)
        else:
            self._schedule(resource, name, node.line, kind, properties)

    def _need(self, line: int, properties: dict[str, Node], name: str) -> Any:
        if name not in properties:
            raise TemplateError(line, f"{name} is missing")
        return self.scope.value(properties[name])

    def _route(self, resource: Resource, name: str, line: int, properties: dict[str, Node]) -> None:
        api = self._need(line, properties, "ApiId")
        if not any(each.kind == API and each.name == api for each in self.resources):
            raise TemplateError(line, "ApiId must refer to the template's HttpApi")
        method = str(self._need(line, properties, "Method")).upper()
        path = str(self._need(line, properties, "Path"))
        if method not in _METHODS:
            raise TemplateError(line, f"method {method} is not in the subset")
        if not path.startswith("/") or not _PATH.fullmatch(path):
            raise TemplateError(line, f"{path!r} is not a path of segments, {{names}} and a last {{name+}}")
        shape = (method, re.sub(r"\{\w+", "{", path))
        for route in self.host["routes"]:
            if (route["method"], re.sub(r"\{\w+", "{", route["path"])) == shape:
                raise TemplateError(line, f"{method} {path} is routed twice")
        self.host["routes"].append({"method": method, "path": path, "function": resource.name, "name": name})

    def _queue(self, resource: Resource, line: int, properties: dict[str, Node]) -> None:
        arn = self._need(line, properties, "Queue")
        queue = self.queues.get(arn)
        if queue is None:
            raise TemplateError(line, "Queue must be the Arn of a queue of this template")
        responses = self.scope.value(properties.get("FunctionResponseTypes", Node(line, [])))
        if responses != ["ReportBatchItemFailures"]:
            raise TemplateError(line, "FunctionResponseTypes must be [ReportBatchItemFailures]")
        timeout = int(self._property(resource, "Timeout"))
        visibility = self._number(queue.properties.get("VisibilityTimeout"), "VisibilityTimeout", default=30)
        if visibility < 6 * timeout:
            why = f"VisibilityTimeout must be at least 6 x {timeout} s, the function's Timeout"
            raise TemplateError(queue.line, f"{queue.name}: {why}")
        if "RedrivePolicy" not in queue.properties:
            raise TemplateError(queue.line, f"{queue.name} needs a RedrivePolicy for what always fails")
        policy = queue.properties["RedrivePolicy"]
        redrive = only(policy, "RedrivePolicy", {"deadLetterTargetArn", "maxReceiveCount"})
        letters = self.queues.get(self._need(queue.line, redrive, "deadLetterTargetArn"))
        if letters is None:
            raise TemplateError(queue.line, f"{queue.name}: deadLetterTargetArn is no queue of this template")
        batch_size = self._number(properties.get("BatchSize"), "BatchSize", default=10)
        window_s = self._number(
            properties.get("MaximumBatchingWindowInSeconds"), "MaximumBatchingWindowInSeconds", default=0
        )
        if batch_size > 10 and not window_s:
            raise TemplateError(line, "a BatchSize over 10 needs MaximumBatchingWindowInSeconds")
        local_visibility = queue.hzc.get("visibility_s")
        self.host["queues"].append(
            {
                "name": queue.attributes()[""],
                "function": resource.name,
                "batch_size": batch_size,
                "window_s": window_s,
                "visibility_s": self._number(local_visibility, "visibility_s", default=visibility),
                "max_receives": self._number(redrive.get("maxReceiveCount"), "maxReceiveCount"),
                "dlq": letters.attributes()[""],
            }
        )

    def _schedule(self, resource: Resource, name: str, line: int, kind: str, properties: dict[str, Node]) -> None:
        field = "Schedule" if kind == "Schedule" else "ScheduleExpression"
        expression = str(self._need(line, properties, field))
        match = _RATE.fullmatch(expression)
        if match is None:
            raise TemplateError(line, f"{expression!r}: the host knows rate(1 minute) and the like")
        every = int(match[1]) * _SECONDS[match[2]]
        self.host["schedules"].append(
            {
                "name": name,
                "kind": kind,
                "function": resource.name,
                "every_s": self._number(resource.hzc.get("every_s"), "every_s", default=every),
            }
        )


def main(argv: list[str] | None = None) -> int:
    """Write host.json, or with ``--check`` fail when the committed one is not what the template says."""
    parser = argparse.ArgumentParser(prog="python -m hanzo_compute_host.template", description=main.__doc__)
    parser.add_argument("--template", type=Path, default=Path("template.yaml"))
    parser.add_argument("--output", type=Path, help="default: host.json of the installed package")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(argv)
    output = options.output or Path(str(resources.files("hanzo_compute_host"))) / HOST_JSON
    try:
        wanted = render(compile_text(options.template.read_text("utf-8")))
    except OSError as error:
        sys.stderr.write(f"{options.template}: {error.strerror}\n")
        return 2
    except TemplateError as error:
        sys.stderr.write(f"{options.template}:{error.line}: {error.message}\n")
        return 1
    return settle(output, wanted, f"{options.template} says", check=options.check)


if __name__ == "__main__":
    sys.exit(main())
