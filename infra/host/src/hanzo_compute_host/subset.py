"""The subset of SAM that the host understands; whatever else a template says is an error that names its line.

- ``Parameters`` with ``Default``; ``Globals: Function``; ``Outputs`` (checked, not used);
- ``AWS::Serverless::Function`` with events of type ``HttpApi``, ``SQS``, ``Schedule`` and ``ScheduleV2``
  (``rate(…)`` only), ``AWS::Serverless::HttpApi``, ``AWS::SQS::Queue``;
- ``!Ref``, ``!GetAtt`` and ``!Sub`` of parameters, declared resources and pseudo parameters;
- ``Metadata: Hzc:``, which AWS ignores: on a function ``every_s`` (the period of its schedule on the host)
  and ``while_stopping`` (served until running work has ended); on a queue ``name`` and ``visibility_s``.
"""

from __future__ import annotations

from typing import Final

from hanzo_compute_host.cfn import Node, TemplateError

FUNCTION: Final = "AWS::Serverless::Function"
API: Final = "AWS::Serverless::HttpApi"
QUEUE: Final = "AWS::SQS::Queue"

# What may be said. The host uses the names in USED; the others only mean something on AWS.
USED: Final = {
    FUNCTION: {"Handler", "Timeout", "MemorySize", "Environment", "Events"},
    API: set(),
    QUEUE: {"VisibilityTimeout", "RedrivePolicy"},
}
AWS_ONLY: Final = {
    FUNCTION: {"Architectures", "CodeUri", "Description", "Policies", "Runtime", "Tracing"},
    API: {"Description"},
    QUEUE: {"MessageRetentionPeriod", "SqsManagedSseEnabled"},
}
METADATA: Final = {FUNCTION: {"every_s", "while_stopping"}, API: set(), QUEUE: {"name", "visibility_s"}}
EVENTS: Final = {
    "HttpApi": {"ApiId", "Method", "Path"},
    "SQS": {"Queue", "BatchSize", "MaximumBatchingWindowInSeconds", "FunctionResponseTypes", "ScalingConfig"},
    "Schedule": {"Schedule", "Description"},
    "ScheduleV2": {"ScheduleExpression", "Description"},
}
TOP: Final = {
    "AWSTemplateFormatVersion",
    "Transform",
    "Description",
    "Parameters",
    "Globals",
    "Resources",
    "Outputs",
}


def only(node: Node, what: str, allowed: set[str]) -> dict[str, Node]:
    """The members of a mapping, none of them outside ``allowed``."""
    members = node.mapping(what)
    for name, member in members.items():
        if name not in allowed:
            raise TemplateError(member.line, f"{name} of {what} is not in the host's subset")
    return members


class Resource:
    """A resource of the template, checked against the subset."""

    def __init__(self, name: str, node: Node) -> None:
        members = only(node, name, {"Type", "Metadata", "Properties"})
        self.name, self.line = name, node.line
        self.kind = str(members["Type"].value) if "Type" in members else ""
        if self.kind not in USED:
            raise TemplateError(node.line, f"{name}: the host knows no type {self.kind or '(none)'}")
        properties = members.get("Properties", Node(node.line, {}))
        self.properties = only(properties, name, USED[self.kind] | AWS_ONLY[self.kind])
        metadata = only(members.get("Metadata", Node(node.line, {})), f"Metadata of {name}", {"Hzc"})
        self.hzc = only(metadata.get("Hzc", Node(node.line, {})), f"Hzc of {name}", METADATA[self.kind])

    def attributes(self) -> dict[str, str]:
        """What ``GetAtt`` gives; ``""`` is what ``Ref`` gives."""
        if self.kind == API:
            return {"": self.name, "ApiEndpoint": "local"}
        if self.kind == FUNCTION:
            return {"": self.name, "Arn": f"arn:aws:lambda:local:000000000000:function:{self.name}"}
        if "name" not in self.hzc or not isinstance(self.hzc["name"].value, str):
            raise TemplateError(self.line, f"{self.name} needs Metadata: Hzc: name: what services call it")
        name = self.hzc["name"].value
        arn = f"arn:aws:sqs:local:000000000000:{name}"
        return {"": name, "QueueName": name, "QueueUrl": name, "Arn": arn}
