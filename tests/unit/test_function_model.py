"""What a function may be, which origins it may call, and how aliases divide, go back and forget."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from hanzo_compute.model import bounds
from hanzo_compute.model.function import AliasSetting, FunctionSpec
from hanzo_compute.model.problems import field_problems, parse_spec
from hanzo_compute.model.registry import Alias, Function, Version
from hanzo_compute.model.spec import code_digest

PACKAGE = {"package": "b1-" + "0" * 64, "language": "python"}
CODE = {"source": {"code": "print(1)", "language": "python"}}
MODULE = {"source": {"module": "b1-" + "0" * 64}}


def origins(*given: str) -> list[str]:
    return FunctionSpec.model_validate(CODE | {"capabilities": {"http": list(given)}}).capabilities.http


def refused(body: Any, model: Any = FunctionSpec) -> tuple[str, str]:
    with pytest.raises(ValidationError) as error:
        model.model_validate(body)
    first = field_problems(error.value.errors(include_url=False, include_input=False), model)[0]
    return first.field, first.message


def test_nothing_is_granted_by_default() -> None:
    spec = FunctionSpec.model_validate(CODE)
    assert spec.capabilities.granted == []
    assert (spec.abi, spec.concurrency, spec.public) == ("command", 10, False)
    assert spec.as_json()["capabilities"] == {"kv": False, "secrets": [], "http": [], "input": False, "outputs": False}


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://API.Example.com", "https://api.example.com"),
        ("HTTPS://api.example.com:443", "https://api.example.com"),
        ("http://api.example.com:80", "http://api.example.com"),
        ("https://api.example.com:80", "https://api.example.com:80"),
        ("https://api.example.com:8443", "https://api.example.com:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://\uff21\uff30\uff29\u3002example.com", "https://api.example.com"),
        ("https://1.1.1.1", "https://1.1.1.1"),
        ("https://[2606:4700:0::1111]:8443", "https://[2606:4700::1111]:8443"),
        ("https://localhost.example", "https://localhost.example"),
    ],
)
def test_origins_have_one_form(given: str, normal: str) -> None:
    assert origins(given) == [normal]
    assert origins(normal) == [normal]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("api.example.com", "must be an origin"),
        ("ftp://api.example.com", "must be an origin"),
        ("https:///x", "no path"),
        ("https://", "no name"),
        ("https://api.example.com/", "no path"),
        ("https://api.example.com/v1", "no path"),
        ("https://api.example.com?x", "no path"),
        ("https://api.example.com#x", "no path"),
        ("https://api.example.com\\x", "no path"),
        ("https://u:p@api.example.com", "no user name"),
        ("https://*.example.com", "no wildcards"),
        ("https://api.example.com:", "port"),
        ("https://api.example.com:0", "port"),
        ("https://api.example.com:65536", "port"),
        ("https://api.example.com:٤", "port"),
        ("https://api.example.com:0443", "port"),
        ("https://api..example.com", "no name"),
        ("https://api.example.com.", "no name"),
        ("https://-a.example", "no name"),
        ("https://a b.example", "no name"),
        ("https://a%2eb.example", "no name"),
        ("https://a\n.example", "no name"),
        ("https://" + "a" * 64 + ".example", "no name"),
        ("https://" + "a." * 200 + "example", "must be an origin"),
        ("https://straße.example", "two ways"),
        ("https://10.0.0.1", "not of the internet"),
        ("https://127.0.0.1:8080", "not of the internet"),
        ("https://169.254.169.254", "not of the internet"),
        ("https://192.168.1.1", "not of the internet"),
        ("https://100.64.0.1", "not of the internet"),
        ("https://224.0.0.1", "not of the internet"),
        ("https://0.0.0.0", "not of the internet"),
        ("https://\uff11\uff12\uff17.0.0.1", "not of the internet"),
        ("https://2130706433", "is none"),
        ("https://0x7f.1", "is none"),
        ("https://0x7f000001", "is none"),
        ("https://0177.0.0.1", "is none"),
        ("https://127.1", "is none"),
        ("https://example.1", "is none"),
        ("https://[::1]", "not of the internet"),
        ("https://[::ffff:10.0.0.1]", "not of the internet"),
        ("https://[64:ff9b::a00:1]", "not of the internet"),
        ("https://[2002:a00:1::]", "not of the internet"),
        ("https://[fe80::1%eth0]", "not of the internet"),
        ("https://[fd00::1]", "not of the internet"),
        ("https://[fec0::1]", "not of the internet"),
        ("https://[::1", "bracket"),
        ("https://[::1]x", "bracket"),
        ("https://[x]", "is none"),
    ],
)
def test_what_is_no_origin_names_its_field(given: str, why: str) -> None:
    field, message = refused(CODE | {"capabilities": {"http": ["https://ok.example", given]}})
    assert field == "capabilities.http.1"
    assert why in message


def test_grants_are_sets() -> None:
    names = {"secrets": ["b", "a", "b"], "http": ["https://b.example", "https://B.example:443", "https://a.example"]}
    found = FunctionSpec.model_validate(CODE | {"capabilities": names}).capabilities
    assert found.secrets == ["a", "b"]
    assert found.http == ["https://a.example", "https://b.example"]
    assert found.granted == ["secrets", "http"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "source"),
        (CODE | {"sauce": 1}, "sauce"),
        ({"source": {"function": "other"}}, "source.function"),
        ({"source": {"package": "b1-" + "0" * 64}}, "source"),
        ({"source": PACKAGE | {"code": "1"}}, "source"),
        ({"source": PACKAGE | {"package": "b1-0"}}, "source.package"),
        ({"source": PACKAGE | {"entry": "../main.py"}}, "source.entry"),
        ({"source": PACKAGE | {"entry": "/in/main.py"}}, "source.entry"),
        ({"source": {"code": "1", "language": "python", "entry": "main.py"}}, "source.entry"),
        ({"source": PACKAGE, "abi": "reactor"}, "abi"),
        ({"source": {"code": "1"}}, "source"),
        (CODE | {"abi": "reactor"}, "abi"),
        (CODE | {"abi": "component"}, "abi"),
        (CODE | {"concurrency": 0}, "concurrency"),
        (CODE | {"concurrency": 1001}, "concurrency"),
        (CODE | {"concurrency": "3"}, "concurrency"),
        (CODE | {"public": "yes"}, "public"),
        (CODE | {"resources": {"gpu": 1}}, "resources.gpu"),
        (CODE | {"resources": {"memory_mib": 0}}, "resources.memory_mib"),
        (CODE | {"capabilities": {"kv": 1}}, "capabilities.kv"),
        (CODE | {"capabilities": {"files": True}}, "capabilities.files"),
        (CODE | {"capabilities": {"secrets": ["a b"]}}, "capabilities.secrets.0"),
        (CODE | {"capabilities": {"secrets": [f"s{n}" for n in range(33)]}}, "capabilities.secrets"),
        (CODE | {"env": {"A": "x" * 32769}}, "env"),
        (CODE | {"args": ["x" * 32769]}, "args"),
        (CODE | {"description": "x" * 501}, "description"),
    ],
)
def test_a_bad_function_names_its_field(body: Any, field: str) -> None:
    assert refused(body)[0] == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "(body)"),
        ({"version": 1, "weights": {"1": 100}}, "(body)"),
        ({"version": 0}, "version"),
        ({"weights": {}}, "weights"),
        ({"weights": {"1": 50, "2": 49}}, "weights"),
        ({"weights": {"1": 100, "2": 0}}, "weights.2"),
        ({"weights": {"1": 50.0, "2": 50}}, "weights.1"),
        ({"weights": {"live": 100}}, "weights.live.[key]"),
        ({"weights": {"01": 100}}, "weights.01.[key]"),
        ({"weights": {str(n): 20 for n in range(1, 6)}}, "weights"),
    ],
)
def test_a_bad_alias_names_its_field(body: Any, field: str) -> None:
    assert refused(body, AliasSetting)[0] == field


def test_a_setting_is_weights_by_version() -> None:
    assert AliasSetting.model_validate({"version": 3}).by_version() == {"3": 100}
    assert AliasSetting.model_validate({"weights": {"3": 90, "4": 10}}).by_version() == {"3": 90, "4": 10}


def test_calls_are_divided_exactly_by_weight() -> None:
    alias = Alias({"10": 5, "9": 20, "11": 75})
    assert Counter(alias.pick(n / 10_000) for n in range(10_000)) == {9: 2000, 10: 500, 11: 7500}
    assert (alias.pick(0.0), alias.pick(0.2), alias.pick(1 - 2**-53)) == (9, 10, 11)


def function(**fields: Any) -> Function:
    return Function(
        **{"tenant": "acme", "name": "f", "newest": 3, "digest": "d", "versions": [1, 2, 3]} | fields,
        created_ms=1,
        updated_ms=1,
    )


def test_an_alias_goes_back_step_by_step() -> None:
    found = function()
    for number in (1, 2, 3):
        found = found.pointed("live", {str(number): 100}, "set", number)
    assert found.pointed("live", {"3": 100}, "set", 9) is found
    back = found.rolled_back("live", 4)
    assert back.aliases["live"] == Alias({"2": 100}, [{"1": 100}])
    assert back.rolled_back("live", 5).aliases["live"] == Alias({"1": 100}, [])
    told = [(each["at_ms"], each["weights"], each["by"]) for each in back.history]
    assert told == [(1, {"1": 100}, "set"), (2, {"2": 100}, "set"), (3, {"3": 100}, "set"), (4, {"2": 100}, "rollback")]
    assert back.without("live", 6).history[-1]["weights"] == {}


def test_history_is_bounded() -> None:
    found = function(versions=list(range(1, 60)))
    for number in range(1, 60):
        found = found.pointed("live", {str(number): 100}, "set", number)
    assert len(found.history) == len(found.aliases["live"].previous) == bounds.HISTORY_MAX
    assert found.aliases["live"].previous[-1] == {"58": 100}


def test_old_versions_go_unless_an_alias_or_its_next_rollback_needs_them() -> None:
    most = bounds.VERSIONS_MAX
    aliases = {"old": Alias({"1": 50, "3": 50}, [{"2": 100}, {"4": 100}])}
    found = function(newest=most + 3, versions=list(range(1, most + 4)), aliases=aliases)
    after, gone = found.pruned()
    assert gone == [2, 5, 6]
    assert len(after.versions) == most
    assert after.aliases["old"] == Alias({"1": 50, "3": 50}, [{"4": 100}])
    assert after.pruned() == (after, [])


def test_records_are_read_as_written() -> None:
    found = function().pointed("live", {"3": 100}, "deploy", 5)
    assert Function.from_record(found.record()) == found
    version = Version("f", 3, "d", 7, {"a": 1})
    assert Version.from_record(version.record()) == version
    assert version.reference == "f@3"


def test_a_stored_spec_may_name_its_function_and_a_clients_may_not() -> None:
    both = {"source": {"code": "print(1)", "language": "python", "function": "f@3"}}
    stored = parse_spec(both, stored=True)
    assert stored.as_json()["source"] == both["source"]
    assert code_digest(stored.as_json()) == code_digest({"source": {"code": "print(1)"}})
    for body in (both, MODULE["source"] | {"function": "f"}, {"source": {"function": "f@3", "code": "1"}}):
        with pytest.raises(Exception, match="source"):
            parse_spec(body if "source" in body else {"source": body})
    with pytest.raises(Exception, match="source"):
        parse_spec({"source": {"function": "f@3"}}, stored=True)


@pytest.mark.parametrize("text", ["f", "f@3", "f@canary", "a-b", "0"])
def test_references(text: str) -> None:
    assert parse_spec({"source": {"function": text}}).source.function == text


@pytest.mark.parametrize(
    "text", ["", "F", "f@", "f@0", "f@03", "f@A", "f@a@b", "-f", "f-", "f@3x", "f\n", "a" * 64, "f/g"]
)
def test_no_references(text: str) -> None:
    with pytest.raises(Exception, match=r"source\.function"):
        parse_spec({"source": {"function": text}})
