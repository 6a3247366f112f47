"""Appraisal policies: what evidence must show, beside being genuine. YAML with a schema, versioned.

A section of a platform is written beside the platform's checks (``attestation/snp/policy.py`` and so on); this
module puts them together. A platform whose section is null is refused whatever its evidence says.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, Final

import yaml
from pydantic import Field, ValidationError

from hanzo_compute.attestation.nitro.policy import NitroPolicy
from hanzo_compute.attestation.nvidia.policy import NvidiaPolicy
from hanzo_compute.attestation.sections import Strict
from hanzo_compute.attestation.snp.policy import SnpPolicy
from hanzo_compute.attestation.tdx.policy import SgxPolicy, TdxPolicy
from hanzo_compute.attestation.tpm.policy import TpmPolicy
from hanzo_compute.errors import FieldProblem, InvalidRequest
from hanzo_compute.model import canonical

POLICY_MAX: Final = 256 * 1024
"""Characters of a policy's text."""
NAME: Final = r"^[a-z][a-z0-9-]{0,62}$"
BUILTIN: Final = ("baseline", "local-demo", "production")


class Require(Strict):
    """What must be shown, and not only not contradicted."""

    freshness: bool = Field(default=True, description="The evidence answers a nonce of the verifier.")
    binding: bool = Field(default=True, description="It commits to the attester's keys.")
    measurement: bool = Field(default=True, description="What was measured is among the policy's reference values.")


class Policy(Strict):
    """One version of a policy."""

    name: str = Field(pattern=NAME)
    version: int = Field(ge=1, le=2**31)
    release_keys: bool = Field(
        default=False, description="Whether keys may be released on a result under this policy; needs all of `require`."
    )
    require: Require = Require()
    snp: SnpPolicy | None = None
    tdx: TdxPolicy | None = None
    sgx: SgxPolicy | None = None
    nitro: NitroPolicy | None = None
    nvidia: NvidiaPolicy | None = None
    tpm: TpmPolicy | None = None

    def digest(self) -> str:
        """64 hex digits that name what this policy says."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return canonical.digest(self.model_dump(mode="json"))


def parse(text: str) -> Policy:
    """A policy from its YAML.

    Raises:
        InvalidRequest: it is none; each field that is wrong is named.
    """
    return from_document(read(text))


def read(text: str) -> dict[str, Any]:
    """What a policy's YAML says, unchecked.

    Raises:
        InvalidRequest: it is no YAML, or not of names and values.
    """
    if len(text) > POLICY_MAX:
        raise _unreadable(f"a policy has at most {POLICY_MAX} characters", "string_too_long")
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 a safe loader, with duplicate names refused
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _unreadable(f"the policy is no YAML: {str(error)[:300]}", "yaml_invalid") from None
    if not isinstance(document, dict):
        hint = "docs/attestation.md has examples"
        raise _unreadable("a policy is a mapping of names to values", "dict_type", hint)
    return document


def _unreadable(message: str, code: str, hint: str | None = None) -> InvalidRequest:
    return InvalidRequest(message, fields=[FieldProblem("policy", message, code, hint)], hint=hint)


def from_document(document: Any) -> Policy:
    """A policy from parsed YAML or JSON.

    Raises:
        InvalidRequest: it is none; each field that is wrong is named.
    """
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        problems = [
            FieldProblem(".".join(map(str, each["loc"])) or "policy", each["msg"], each["type"])
            for each in error.errors()[:20]
        ]
        raise InvalidRequest(
            "the policy is not valid", fields=problems, hint="docs/attestation.md lists the fields of a policy"
        ) from None
    require = policy.require
    if policy.release_keys and not (require.freshness and require.binding and require.measurement):
        problem = FieldProblem(
            "release_keys", "keys are released only if freshness, binding and measurement are required"
        )
        raise InvalidRequest("the policy would release keys without proof", fields=[problem])
    return policy


@lru_cache(maxsize=len(BUILTIN))
def builtin(name: str) -> Policy:
    """A policy that comes with the product: ``baseline``, ``production`` or ``local-demo``.

    Raises:
        InvalidRequest: there is no such policy.
    """
    if name not in BUILTIN:
        raise InvalidRequest(f"there is no built-in policy {name!r}", hint=f"built in are {', '.join(BUILTIN)}")
    text = resources.files("hanzo_compute.attestation").joinpath("policies", f"{name}.yaml").read_text("utf-8")
    return parse(text)


class _Loader(yaml.SafeLoader):
    """Safe, and without aliases (which can make a small text large) and names that are given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("a policy has no aliases")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(set(map(repr, names))) != len(names):
            raise yaml.YAMLError(f"a name is given twice near line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)
