"""Deploying, aliases, rollback, removal, and jobs made of functions, on the memory twins."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from hanzo_compute.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    InvalidSpec,
    NotFound,
    NotSupported,
    Unavailable,
)
from hanzo_compute.model import bounds, keys
from hanzo_compute.model.function import AliasSetting, FunctionSpec
from hanzo_compute.model.problems import parse_spec
from hanzo_compute.model.registry import Alias
from hanzo_compute.model.spec import JobSpec, digest
from hanzo_compute.ports import Delete
from hanzo_compute.services import audit, function_views, functions, invoke, submit
from hanzo_compute.services.expand import expand
from tests.support.faults import FaultyStore, scripted
from tests.support.packages import python_package, zipped
from tests.support.rows import rows_in
from tests.support.stepped import Platform, spec
from tests.support.wasm import wat

COMMAND = '(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) {} (func (export "_start")))'
REACTOR = """(module {} (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 0))
  (func (export "handle") (param i32 i32) (result i64) (i64.const 0)))"""


def of(code: str = "print(1)", **fields: Any) -> FunctionSpec:
    return FunctionSpec.model_validate({"source": {"code": code, "language": "python"}} | fields)


def deploy(platform: Platform, code: str = "print(1)", name: str = "f", *, publish: bool = True, **fields: Any) -> int:
    return functions.deploy(platform.ctx, "acme", name, of(code, **fields), publish=publish).version.number


def live(platform: Platform, ref: str | None = None, pick: float = 0.0, tenant: str = "acme") -> int:
    return functions.resolve(platform.ctx, tenant, "f", ref, pick).number


def point(platform: Platform, alias: str, **weights: int) -> None:
    setting = AliasSetting(weights={name[1:]: value for name, value in weights.items()})
    functions.set_alias(platform.ctx, "acme", "f", alias, setting)


def module(platform: Platform, text: str, **fields: Any) -> FunctionSpec:
    return FunctionSpec.model_validate({"source": {"module": platform.blobs.put("acme", wat(text))}} | fields)


def test_versions_count_from_one_and_never_change() -> None:
    platform = Platform()
    assert [deploy(platform, code) for code in ("1", "2", "1")] == [1, 2, 3]
    found = [function_views.version(platform.ctx, "acme", "f", str(number)) for number in (1, 2, 3)]
    assert [each.spec["source"]["code"] for each in found] == ["1", "2", "1"]
    assert found[0].digest == found[2].digest == digest(of("1").as_json())
    assert live(platform) == 3


def test_the_same_body_again_is_the_same_version() -> None:
    platform = Platform()
    first = functions.deploy(platform.ctx, "acme", "f", of())
    platform.clock.advance(1000)
    again = functions.deploy(platform.ctx, "acme", "f", of(resources={"timeout_s": 60}))
    assert (first.created, again.created) == (True, False)
    assert again.version == first.version
    assert again.function == first.function


def test_a_lost_reply_and_a_repeated_deployment_make_one_version() -> None:
    platform = Platform()
    store = FaultyStore(platform.store, scripted("transact:reply_lost"))
    with pytest.raises(Unavailable):
        functions.deploy(replace(platform.ctx, store=store), "acme", "f", of())
    assert deploy(platform) == 1


def test_a_version_that_is_not_published_is_called_by_its_number() -> None:
    platform = Platform()
    deploy(platform, "1", publish=False)
    with pytest.raises(NotFound, match="no alias live"):
        live(platform)
    assert live(platform, "1") == 1
    deploy(platform, "1")
    deploy(platform, "2", publish=False)
    assert (live(platform), live(platform, "2")) == (1, 2)


def test_deploying_the_newest_again_publishes_it() -> None:
    platform = Platform()
    deploy(platform, "1")
    deploy(platform, "2")
    functions.rollback(platform.ctx, "acme", "f")
    assert live(platform) == 1
    assert deploy(platform, "2") == 2
    assert live(platform) == 2


def test_rollback_restores_step_by_step_and_then_says_no() -> None:
    platform = Platform()
    for code in ("1", "2"):
        deploy(platform, code)
    point(platform, "live", v1=10, v2=90)
    assert functions.rollback(platform.ctx, "acme", "f").aliases["live"].weights == {"2": 100}
    assert functions.rollback(platform.ctx, "acme", "f").aliases["live"].weights == {"1": 100}
    with pytest.raises(Conflict, match="no earlier setting"):
        functions.rollback(platform.ctx, "acme", "f")
    with pytest.raises(NotFound, match="no alias canary"):
        functions.rollback(platform.ctx, "acme", "f", "canary")


def test_an_alias_divides_calls_by_weight() -> None:
    platform = Platform()
    for code in ("1", "2"):
        deploy(platform, code)
    point(platform, "canary", v1=90, v2=10)
    assert Counter(live(platform, "canary", n / 200) for n in range(200)) == {1: 180, 2: 20}
    picks = [functions.pick(platform.ctx) for _ in range(200)]
    assert all(0 <= each < 1 for each in picks)
    assert min(picks) < 0.1 < 0.9 < max(picks)


@pytest.mark.parametrize(
    ("alias", "setting", "field"),
    [
        ("canary", {"version": 2}, "version"),
        ("canary", {"weights": {"1": 50, "7": 50}}, "weights"),
        ("7", {"version": 1}, "alias"),
        ("A", {"version": 1}, "alias"),
        ("a" * 33, {"version": 1}, "alias"),
        ("a\n", {"version": 1}, "alias"),
    ],
)
def test_a_bad_alias_is_refused(alias: str, setting: Any, field: str) -> None:
    platform = Platform()
    deploy(platform)
    with pytest.raises(InvalidRequest) as refused:
        functions.set_alias(platform.ctx, "acme", "f", alias, AliasSetting.model_validate(setting))
    assert refused.value.fields[0].field == field


def test_aliases_are_bounded_and_can_be_removed_but_for_live() -> None:
    platform = Platform()
    deploy(platform)
    for number in range(bounds.ALIASES_MAX - 1):
        point(platform, f"a{number}", v1=100)
    with pytest.raises(InvalidRequest, match="at most 10 aliases"):
        point(platform, "more", v1=100)
    point(platform, "a0", v1=100)
    functions.remove_alias(platform.ctx, "acme", "f", "a0")
    with pytest.raises(NotFound, match="no alias a0"):
        functions.remove_alias(platform.ctx, "acme", "f", "a0")
    with pytest.raises(Conflict, match="live is not removed"):
        functions.remove_alias(platform.ctx, "acme", "f", "live")
    point(platform, "more", v1=100)


def test_old_versions_are_removed_with_their_records() -> None:
    platform = Platform()
    deploy(platform, "0")
    point(platform, "old", v1=100)
    for number in range(1, bounds.VERSIONS_MAX + 3):
        deploy(platform, str(number))
    found = function_views.function(platform.ctx, "acme", "f")
    assert found.versions == [1, *range(5, bounds.VERSIONS_MAX + 4)]
    assert len(found.versions) == bounds.VERSIONS_MAX
    kept = platform.store.query(keys.function_partition("acme", "f"), prefix=keys.VERSION, limit=200)
    assert [record.body["number"] for record in kept] == found.versions
    with pytest.raises(NotFound, match="no version 2"):
        live(platform, "2")
    functions.delete(platform.ctx, "acme", "f")
    assert platform.store.query(keys.function_partition("acme", "f"), prefix=keys.VERSION) == []


def test_a_removed_function_is_gone_and_its_numbers_are_never_used_again() -> None:
    platform = Platform()
    assert [deploy(platform, code) for code in ("1", "2")] == [1, 2]
    functions.delete(platform.ctx, "acme", "f")
    for call in (
        lambda: live(platform),
        lambda: live(platform, "2"),
        lambda: functions.delete(platform.ctx, "acme", "f"),
        lambda: functions.rollback(platform.ctx, "acme", "f"),
        lambda: point(platform, "live", v1=100),
        lambda: function_views.function(platform.ctx, "acme", "f"),
        lambda: function_views.versions(platform.ctx, "acme", "f", cursor="", limit=5),
    ):
        with pytest.raises(NotFound, match="there is no function f"):
            call()
    assert function_views.functions(platform.ctx, "acme", cursor="", limit=5).items == []
    assert deploy(platform, "2") == 3
    found = function_views.function(platform.ctx, "acme", "f")
    assert (found.versions, found.aliases) == ([3], {"live": Alias({"3": 100})})


def test_another_tenants_function_is_not_there() -> None:
    platform = Platform()
    deploy(platform)
    said = set()
    for tenant, name in (("globex", "f"), ("acme", "g"), ("acme", "F#x"), ("acme", "f\n")):
        for call in (
            lambda t=tenant, n=name: functions.resolve(platform.ctx, t, n, None, 0),
            lambda t=tenant, n=name: functions.resolve(platform.ctx, t, n, "1", 0),
            lambda t=tenant, n=name: functions.delete(platform.ctx, t, n),
            lambda t=tenant, n=name: function_views.version(platform.ctx, t, n, "1"),
        ):
            with pytest.raises(NotFound) as refused:
                call()
            said.add(refused.value.message.removesuffix(name))
    assert said == {"there is no function "}


@pytest.mark.parametrize("name", ["", "F", "-f", "f-", "a" * 64, "a/b", "a#b", "f\n", "ä"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        functions.deploy(Platform().ctx, "acme", name, of())
    assert refused.value.fields[0].field == "name"


def test_functions_are_listed_by_name_in_pages() -> None:
    platform = Platform()
    for name in ("c", "a", "b"):
        deploy(platform, name=name)
    first = function_views.functions(platform.ctx, "acme", cursor="", limit=2)
    assert [each["name"] for each in first.items] == ["a", "b"]
    rest = function_views.functions(platform.ctx, "acme", cursor=first.next_cursor or "", limit=2)
    assert ([each["name"] for each in rest.items], rest.next_cursor) == (["c"], None)
    assert function_views.functions(platform.ctx, "globex", cursor="", limit=2).items == []


def test_versions_are_listed_newest_first_in_pages() -> None:
    platform = Platform()
    for code in "123":
        deploy(platform, code)
    first = function_views.versions(platform.ctx, "acme", "f", cursor="", limit=2)
    assert [each["version"] for each in first.items] == [3, 2]
    rest = function_views.versions(platform.ctx, "acme", "f", cursor=first.next_cursor or "", limit=2)
    assert ([each["version"] for each in rest.items], rest.next_cursor) == ([1], None)
    with pytest.raises(InvalidRequest, match="cursor"):
        function_views.versions(platform.ctx, "acme", "f", cursor="eA", limit=2)


def test_functions_of_a_tenant_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "FUNCTIONS_MAX", 2)
    platform = Platform()
    for name in ("a", "b"):
        deploy(platform, name=name)
    with pytest.raises(InvalidRequest) as refused:
        deploy(platform, name="c")
    assert refused.value.fields[0].code == "too_many"
    assert deploy(platform, "2", name="b") == 2
    functions.delete(platform.ctx, "acme", "a")
    assert deploy(platform, name="c") == 1


def test_a_deployment_that_came_in_between_is_seen() -> None:
    platform = Platform()
    rival: list[int] = []

    class Late(FaultyStore):
        def get(self, key, *, fresh=False):  # type: ignore[no-untyped-def]
            found = super().get(key, fresh=fresh)
            if key.pk.startswith("FUNCTION#") and not rival:
                rival.append(deploy(platform, "rival"))
            return found

    ctx = replace(platform.ctx, store=Late(platform.store, scripted()))
    mine = functions.deploy(ctx, "acme", "f", of("mine"))
    assert (rival, mine.version.number) == ([1], 2)
    assert mine.function.aliases["live"] == Alias({"2": 100}, [{"1": 100}])


GRANTED = [
    ({"kv": True}, "kv_get"),
    ({"kv": True}, "kv_put"),
    ({"kv": True}, "kv_delete"),
    ({"secrets": ["token"]}, "secret"),
    ({"http": ["https://api.example.com"]}, "http"),
    ({"input": True}, "input_size"),
    ({"input": True}, "input_read"),
    ({"outputs": True}, "output"),
]


@pytest.mark.parametrize(("grant", "name"), GRANTED)
@pytest.mark.parametrize(("abi", "text"), [("command", COMMAND), ("reactor", REACTOR)])
def test_an_import_needs_its_capability(grant: dict[str, Any], name: str, abi: str, text: str) -> None:
    platform = Platform()
    text = text.format(f'(import "hzc" "{name}" (func))')
    with pytest.raises(InvalidRequest) as refused:
        functions.deploy(platform.ctx, "acme", "f", module(platform, text, abi=abi))
    (problem,) = refused.value.fields
    assert (problem.field, problem.code) == (f"capabilities.{next(iter(grant))}", "not_granted")
    assert f"hzc.{name}" in problem.message
    granted = module(platform, text, abi=abi, capabilities=grant)
    assert functions.deploy(platform.ctx, "acme", "f", granted).created


def test_some_imports_need_none_and_others_are_not_there() -> None:
    platform = Platform()
    names = ("log", "now", "random", "take")
    text = COMMAND.format("".join(f'(import "hzc" "{name}" (func))' for name in names))
    assert functions.deploy(platform.ctx, "acme", "f", module(platform, text)).created
    everything = {name: value for grant, _ in GRANTED for name, value in grant.items()}
    for extra in ('"env" "abort" (func)', '"hzc" "exec" (func)', '"hzc" "log" (memory 1)', '"" "" (global i32)'):
        with pytest.raises(InvalidRequest) as refused:
            functions.deploy(
                platform.ctx,
                "acme",
                "f",
                module(platform, COMMAND.format(f"(import {extra})"), capabilities=everything),
            )
        assert [(each.field, each.code) for each in refused.value.fields] == [("source.module", "unknown_import")]


def test_a_module_must_export_what_its_abi_needs() -> None:
    platform = Platform()
    for text, abi, missing in ((REACTOR, "command", ["_start"]), (COMMAND, "reactor", ["memory", "alloc", "handle"])):
        with pytest.raises(InvalidRequest) as refused:
            functions.deploy(platform.ctx, "acme", "f", module(platform, text.format(""), abi=abi))
        assert [each.code for each in refused.value.fields] == ["missing_export"] * len(missing)
        assert all(name in each.message for name, each in zip(missing, refused.value.fields, strict=True))


def test_a_module_must_be_one_and_be_here() -> None:
    platform = Platform()
    for blob, code in (
        (platform.blobs.put("acme", b"no module"), "module"),
        (platform.blobs.put("globex", wat("(module)")), "unknown_blob"),
    ):
        given = FunctionSpec.model_validate({"source": {"module": blob}})
        with pytest.raises(InvalidRequest) as refused:
            functions.deploy(platform.ctx, "acme", "f", given)
        assert [(each.field, each.code) for each in refused.value.fields] == [("source.module", code)]
    with pytest.raises(InvalidRequest, match="as JSON"):
        deploy(platform, "\x01" * 65536, args=["\x01" * 32768])


def test_a_package_is_checked_when_it_is_deployed() -> None:
    platform = Platform()

    def packed(data: bytes, tenant: str = "acme", **fields: Any) -> FunctionSpec:
        source = {"package": platform.blobs.put(tenant, data), "language": "python", **fields}
        return FunctionSpec.model_validate({"source": source})

    native = zipped({"main.py": "", "wheels/n-1-cp312-cp312-manylinux_x86_64.whl": ""})
    for given, code, match in (
        (packed(b"no archive"), "package", "no ZIP archive"),
        (packed(native), "package", "pure Python"),
        (packed(python_package(), entry="other.py"), "package", "no file 'other.py'"),
        (packed(b"of others", "globex"), "unknown_blob", "no blob"),
    ):
        with pytest.raises(InvalidRequest, match=match) as refused:
            functions.deploy(platform.ctx, "acme", "f", given)
        assert [(each.field, each.code) for each in refused.value.fields] == [("source.package", code)]
    made = functions.deploy(platform.ctx, "acme", "f", packed(python_package())).version
    assert made.spec["source"]["entry"] == "main.py"
    job = submit.submit(platform.ctx, "acme", parse_spec({"source": {"function": "f"}})).job
    stored = submit.stored_spec(platform.ctx, job.id)
    assert stored["source"] == {**made.spec["source"], "function": "f@1"}
    foreign = JobSpec(source=packed(b"of others", "globex").source)
    with pytest.raises(InvalidSpec, match="you have no blob"):
        submit.submit(platform.ctx, "acme", foreign)


def test_a_call_of_a_package_reads_it_only_when_it_is_prepared() -> None:
    platform = Platform()
    blob = platform.blobs.put("acme", python_package())
    spec = {"source": {"package": blob, "language": "python"}, "env": {"A": "1"}}
    made = functions.deploy(platform.ctx, "acme", "f", FunctionSpec.model_validate(spec)).version
    read: list[str] = []
    get = platform.ctx.blobs.get
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform.ctx.blobs, "get", lambda tenant, name: read.append(name) or get(tenant, name))
        program = invoke.program(platform.ctx, "acme", made)
        assert (program.script, program.env) == ("main.py", {"A": "1", "PYTHONPATH": "/in:/in/site"})
        assert read == []
        assert "site/greet/__init__.py" in program.files()
    assert read == [blob]


def job(platform: Platform, function: str = "f", **fields: Any) -> dict[str, Any]:
    made = submit.submit(platform.ctx, "acme", spec(source={"function": function}, **fields)).job
    return submit.stored_spec(platform.ctx, made.id)


def test_a_job_of_a_function_is_stored_as_what_it_runs() -> None:
    platform = Platform()
    deploy(platform, "1")
    deploy(platform, "2", args=["a"], env={"A": "1", "B": "2"}, resources={"memory_mib": 64, "timeout_s": 9})
    stored = job(platform)
    assert stored["source"] == {"code": "2", "language": "python", "function": "f@2"}
    assert (stored["args"], stored["env"]) == (["a"], {"A": "1", "B": "2"})
    assert stored["resources"] == {"memory_mib": 64, "timeout_s": 9}
    stored = job(platform, args=[], env={"B": "3"}, resources={"timeout_s": 5, "fuel": 7})
    assert (stored["args"], stored["env"]) == ([], {"A": "1", "B": "3"})
    assert stored["resources"] == {"memory_mib": 64, "timeout_s": 5, "fuel": 7}
    assert job(platform, "f@1")["source"]["code"] == "1"


def test_an_agent_gets_a_job_like_any_other_and_its_statement_holds() -> None:
    platform = Platform()
    deploy(platform, "2")
    claim = platform.running(source={"function": "f"})
    assert platform.job(claim.job).code == digest_of("2")
    assert platform.end(claim).state.value == "succeeded"


def digest_of(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def test_a_rerun_repeats_the_version_even_when_the_function_is_gone() -> None:
    platform = Platform()
    deploy(platform, "1")
    made = submit.submit(platform.ctx, "acme", spec(source={"function": "f"})).job
    deploy(platform, "2")
    again = submit.resubmit(platform.ctx, "acme", made.id, kind="rerun").job
    functions.delete(platform.ctx, "acme", "f")
    last = submit.resubmit(platform.ctx, "acme", again.id, kind="rerun").job
    for each in (again, last):
        assert submit.stored_spec(platform.ctx, each.id) == submit.stored_spec(platform.ctx, made.id)
        assert each.spec_digest == made.spec_digest


def test_a_repeated_submission_is_the_same_job_whatever_is_live_by_then() -> None:
    platform = Platform()
    deploy(platform, "1")
    wanted = spec(source={"function": "f"})
    first = submit.submit(platform.ctx, "acme", wanted, idempotency_key="k")
    deploy(platform, "2")
    again = submit.submit(platform.ctx, "acme", wanted, idempotency_key="k")
    assert (again.replayed, again.job.id) == (True, first.job.id)
    with pytest.raises(IdempotencyMismatch):
        submit.submit(platform.ctx, "acme", spec(source={"function": "f@1"}), idempotency_key="k")


@pytest.mark.parametrize("function", ["g", "f@9", "f@canary"])
def test_a_job_of_what_is_not_there_names_its_field(function: str) -> None:
    platform = Platform()
    deploy(platform)
    wanted = spec(source={"function": function})
    for call in (submit.check, submit.submit, expand):
        with pytest.raises(InvalidSpec) as refused:
            call(platform.ctx, "acme", wanted)
        assert [(each.field, each.code) for each in refused.value.fields] == [("source.function", "unknown_function")]


def test_a_function_that_does_not_run_as_a_job_says_so() -> None:
    platform = Platform()
    reactor = module(platform, REACTOR.format(""), abi="reactor")
    functions.deploy(platform.ctx, "acme", "f", reactor)
    with pytest.raises(NotSupported, match="f@1 is a reactor"):
        job(platform)
    deploy(platform, capabilities={"kv": True, "http": ["https://api.example.com"]})
    with pytest.raises(NotSupported, match="capabilities kv, http, and such functions run in no sealed job") as refused:
        job(platform, data_key="0" * 64)
    assert refused.value.fields[0].field == "source.function"


def test_what_a_version_was_granted_goes_with_its_job_and_its_reruns() -> None:
    platform = Platform()
    deploy(platform, capabilities={"kv": True, "secrets": ["B", "A"]})
    first = submit.submit(platform.ctx, "acme", spec(source={"function": "f"})).job
    deploy(platform, code="pass 2")
    functions.delete(platform.ctx, "acme", "f")
    again = submit.resubmit(platform.ctx, "acme", first.id, kind="rerun").job
    for each in (first, again):
        source = submit.stored_spec(platform.ctx, each.id)["source"]
        assert source["function"] == "f@1"
        granted = {name: value for name, value in source["capabilities"].items() if value}
        assert granted == {"kv": True, "secrets": ["A", "B"]}
        assert each.entries_of == "f"


@pytest.mark.parametrize(
    "source",
    [
        {"code": "pass", "language": "python", "capabilities": {"kv": True}},
        {"function": "f", "capabilities": {"kv": True}},
        {"function": "f@1", "code": "pass", "language": "python", "capabilities": {"kv": True}},
    ],
)
def test_nobody_grants_a_job_anything(source: dict[str, Any]) -> None:
    platform = Platform()
    deploy(platform)
    for given in (source, source | {"capabilities": {}}):
        with pytest.raises(InvalidSpec) as refused:
            parse_spec({"source": given})
        assert refused.value.fields[0].field.startswith("source")
    with pytest.raises(ValidationError):
        FunctionSpec.model_validate({"source": source})


def test_what_only_the_platform_writes_is_neither_shown_nor_proposed() -> None:
    assert "capabilities" not in json.dumps(JobSpec.model_json_schema())
    for wrong in ("capabilites", "x"):
        with pytest.raises(InvalidSpec) as refused:
            parse_spec({"source": {"code": "pass", "language": "python", wrong: {}}})
        assert "capabilities" not in (refused.value.fields[0].hint or "")


def test_what_a_job_adds_must_fit_with_what_its_function_has() -> None:
    platform = Platform()
    deploy(platform, env={"A": "x" * 20_000})
    with pytest.raises(InvalidSpec) as refused:
        job(platform, env={"B": "x" * 20_000})
    assert refused.value.fields[0].field == "env"


def rows(platform: Platform) -> list[Any]:
    return rows_in(platform.commits.database)


def findings(found: list[Any]) -> list[audit.Finding]:
    return list(audit.findings(found, lambda _: True, 0, Platform().ctx.policy))


def test_what_services_write_has_no_findings() -> None:
    platform = Platform()
    for code in "123":
        deploy(platform, code)
    point(platform, "canary", v1=50, v2=50)
    deploy(platform, name="gone")
    functions.delete(platform.ctx, "acme", "gone")
    assert findings(rows(platform)) == []
    for row in rows(platform):
        expected = audit.expected_entries(row)
        assert expected is not None
        assert json.loads(row.entries or "") == {name: list(entry) for name, entry in expected.items()}


def test_defects_of_functions_are_found_and_cured() -> None:
    platform = Platform()
    for code in "123":
        deploy(platform, code)
    point(platform, "canary", v1=50, v2=50)
    whole = rows(platform)
    meta, versions = keys.function("acme", "f"), [keys.version("acme", "f", number) for number in (1, 2, 3)]

    (found,) = findings([row for row in whole if row.key != versions[1]])
    (put,) = found.operations
    assert put.body["versions"] == [1, 3]  # type: ignore[union-attr]
    assert put.body["aliases"] == {"live": {"weights": {"3": 100}, "previous": [{"1": 100}]}}  # type: ignore[union-attr]

    (found,) = findings([row for row in whole if row.key != versions[2]])
    platform.store.transact([*found.operations, *deleted(versions[2])])
    assert findings(rows(platform)) == []
    assert deploy(platform, "3") == 4

    lost = findings([row for row in whole if row.key != meta])
    assert [each.operations for each in lost] == [deleted(key) for key in versions]
    broken = [replace(row, body="{}") if row.key == meta else row for row in whole]
    (found,) = findings(broken)
    assert (found.operations, "restore" in found.remedy) == ((), True)
    stray = replace(whole[-1], key=keys.version("acme", "f", 9))
    assert [each.operations for each in findings([*whole, stray])] == [deleted(stray.key)]


def deleted(key: keys.Key) -> tuple[Any, ...]:
    return (Delete(key),)
