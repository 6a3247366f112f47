"""CloudFormation YAML as values that know their line, with the intrinsic functions that the host knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

PSEUDO_PARAMETERS: Final = {
    "AWS::AccountId": "000000000000",
    "AWS::Partition": "aws",
    "AWS::Region": "local",
    "AWS::StackName": "hanzo-compute",
    "AWS::URLSuffix": "amazonaws.com",
}
_LONG_FORMS: Final = {"Ref": "Ref", "Fn::GetAtt": "GetAtt", "Fn::Sub": "Sub"}
_STANDARD: Final = "tag:yaml.org,2002:"
_VARIABLE: Final = re.compile(r"\$\{(!?)([^}]*)\}")


class TemplateError(Exception):
    """The template says something that the host does not understand; ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the document: a scalar, a list of nodes, nodes by name, or an intrinsic function."""

    line: int
    value: Any
    function: str = ""
    """``Ref``, ``GetAtt`` or ``Sub``; ``value`` is its argument as text."""

    def mapping(self, what: str) -> dict[str, Node]:
        """The members of a mapping."""
        if self.function or not isinstance(self.value, dict):
            raise TemplateError(self.line, f"{what} must be a mapping")
        return self.value

    def sequence(self, what: str) -> list[Node]:
        """The items of a list."""
        if self.function or not isinstance(self.value, list):
            raise TemplateError(self.line, f"{what} must be a list")
        return self.value


def parse(text: str) -> Node:
    """Read a template.

    Raises:
        TemplateError: it is not YAML, or uses a tag that is not in the subset.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise TemplateError(1, "the template is empty")
        return _convert(loader, root)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise TemplateError(line, f"not YAML: {error.problem}") from error
    finally:
        loader.dispose()


def _convert(loader: yaml.SafeLoader, node: yaml.Node) -> Node:
    line = node.start_mark.line + 1
    if not node.tag.startswith(_STANDARD):
        return _intrinsic(line, node)
    if isinstance(node, yaml.MappingNode):
        members = dict(_members(loader, node))
        name = next(iter(members), "")
        if len(members) == 1 and (name == "Ref" or name.startswith("Fn::")):
            return _long_form(line, name, members[name])
        return Node(line, members)
    if isinstance(node, yaml.SequenceNode):
        return Node(line, [_convert(loader, item) for item in node.value])
    return Node(line, loader.construct_object(node))


def _members(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Iterator[tuple[str, Node]]:
    seen = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise TemplateError(line, "a name must be text")
        if key.value in seen:
            raise TemplateError(line, f"{key.value} appears twice")
        seen.add(key.value)
        # A block begins on the line after its name: the name's line is the one to look at.
        yield key.value, replace(_convert(loader, value), line=line)


def _intrinsic(line: int, node: yaml.Node) -> Node:
    name = node.tag.removeprefix("!")
    if name not in _LONG_FORMS.values():
        raise TemplateError(line, f"{node.tag} is not in the subset: the host knows !Ref, !GetAtt and !Sub")
    if not isinstance(node, yaml.ScalarNode):
        raise TemplateError(line, f"{node.tag} takes text here")
    return Node(line, node.value, name)


def _long_form(line: int, name: str, argument: Node) -> Node:
    if name not in _LONG_FORMS:
        raise TemplateError(line, f"{name} is not in the subset: the host knows {', '.join(_LONG_FORMS)}")
    value = argument.value
    if name == "Fn::GetAtt" and isinstance(value, list) and len(value) == 2:
        value = ".".join(str(part.value) for part in value)
    if argument.function or not isinstance(value, str):
        raise TemplateError(line, f"{name} takes text here")
    return Node(line, value, _LONG_FORMS[name])


@dataclass
class Scope:
    """What names stand for: parameters by their defaults, resources by their attributes (``""``: ``Ref``)."""

    parameters: Mapping[str, Any]
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)

    def value(self, node: Node) -> Any:
        """The plain value of a node, every function in it resolved."""
        if node.function == "Ref":
            return self._ref(node.line, node.value)
        if node.function == "GetAtt":
            return self._attribute(node.line, node.value)
        if node.function == "Sub":
            return _VARIABLE.sub(lambda match: self._variable(node.line, match), node.value)
        if isinstance(node.value, dict):
            return {name: self.value(member) for name, member in node.value.items()}
        if isinstance(node.value, list):
            return [self.value(item) for item in node.value]
        return node.value

    def _ref(self, line: int, name: str) -> Any:
        if name in self.parameters:
            return self.parameters[name]
        if name in PSEUDO_PARAMETERS:
            return PSEUDO_PARAMETERS[name]
        if name in self.attributes:
            return self.attributes[name][""]
        raise TemplateError(line, f"{name} is neither a parameter nor a resource of this template")

    def _attribute(self, line: int, path: str) -> str:
        resource, _, attribute = path.partition(".")
        if resource not in self.attributes:
            raise TemplateError(line, f"{resource} is not a resource of this template")
        known = self.attributes[resource]
        if not attribute or attribute not in known:
            names = ", ".join(sorted(name for name in known if name)) or "none"
            raise TemplateError(line, f"{resource} has no attribute {attribute!r} here (it has: {names})")
        return known[attribute]

    def _variable(self, line: int, match: re.Match[str]) -> str:
        literal, name = match[1], match[2].strip()
        if literal:
            return "${" + match[2] + "}"
        return str(self._attribute(line, name) if "." in name else self._ref(line, name))
