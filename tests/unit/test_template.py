"""The template is compiled to what the host runs, and what the host does not understand is an error with its line."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hanzo_compute.ports import DEAD_LETTERS
from hanzo_compute.services import outbox
from hanzo_compute_host import template
from hanzo_compute_host.cfn import Scope, TemplateError, parse
from hanzo_compute_host.manifest import from_json, load
from hanzo_compute_host.template import compile_text, main

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = (ROOT / "template.yaml").read_text()

SMALL = """\
Parameters:
  Level: {Type: String, Default: INFO}
Globals:
  Function:
    Timeout: 10
    MemorySize: 256
    Environment: {Variables: {LEVEL: !Ref Level, WHERE: !Sub "${AWS::Region}-${Level}"}}
Resources:
  Api: {Type: "AWS::Serverless::HttpApi"}
  Jobs:
    Type: AWS::Serverless::Function
    Properties:
      Handler: jobs.app.handler
      Events:
        Get: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: get, Path: "/jobs/{id}"}}
  Worker:
    Type: AWS::Serverless::Function
    Metadata: {Hzc: {every_s: 2}}
    Properties:
      Handler: worker.app.handler
      Timeout: 5
      Events:
        Work:
          Type: SQS
          Properties:
            Queue: !GetAtt Line.Arn
            FunctionResponseTypes: [ReportBatchItemFailures]
        Tick: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(2 hours)}}
  Line:
    Type: AWS::SQS::Queue
    Metadata: {Hzc: {name: line}}
    Properties:
      VisibilityTimeout: 30
      RedrivePolicy: {deadLetterTargetArn: !GetAtt Letters.Arn, maxReceiveCount: 3}
  Letters:
    Type: AWS::SQS::Queue
    Metadata: {Hzc: {name: letters}}
"""


def test_a_small_template() -> None:
    host = compile_text(SMALL)
    env = {"LEVEL": "INFO", "WHERE": "local-INFO"}
    assert host["functions"]["Jobs"] == {
        "handler": "jobs.app.handler",
        "timeout_s": 10,
        "memory_mib": 256,
        "while_stopping": False,
        "env": env,
    }
    assert host["functions"]["Worker"]["timeout_s"] == 5
    assert host["routes"] == [{"method": "GET", "path": "/jobs/{id}", "function": "Jobs", "name": "Get"}]
    assert host["queues"] == [
        {
            "name": "line",
            "function": "Worker",
            "batch_size": 10,
            "window_s": 0,
            "visibility_s": 30,
            "max_receives": 3,
            "dlq": "letters",
        }
    ]
    assert host["schedules"] == [{"name": "Tick", "kind": "ScheduleV2", "function": "Worker", "every_s": 2}]
    assert from_json(host).environment() == env


def test_without_metadata_a_schedule_keeps_its_rate() -> None:
    text = SMALL.replace("    Metadata: {Hzc: {every_s: 2}}\n", "")
    assert compile_text(text)["schedules"][0]["every_s"] == 7200


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("Default: INFO", "Description: x", 2, "needs a Default"),
        ("  Function:\n    Timeout", "  Api: {}\n  Function:\n    Timeout", 4, "Api of Globals"),
        ("    MemorySize: 256", "    MemorySize: 256\n    VpcConfig: {}", 7, "VpcConfig"),
        ("!Ref Level, W", "!Ref Lvel, W", 7, "Lvel is neither"),
        ("${Level}", "${Lvel}", 7, "Lvel is neither"),
        ("!Ref Level, W", "!If [a, b, c], W", 7, "!If is not in the subset"),
        ("!Ref Level, W", "{Fn::Join: [a, b]}, W", 7, "Fn::Join is not in the subset"),
        ('"AWS::Serverless::HttpApi"', '"AWS::Serverless::Api"', 9, "no type AWS::Serverless::Api"),
        ("Handler: jobs.app.handler", "Handler: jobs", 10, "package.module.function"),
        ("Type: HttpApi, P", "Type: S3, P", 15, "no event of type S3"),
        ("ApiId: !Ref Api", "ApiId: !Ref Line", 15, "ApiId"),
        ("ApiId: !Ref Api, ", "", 15, "ApiId is missing"),
        ("Method: get", "Method: trace", 15, "method TRACE"),
        ("/jobs/{id}", "/jobs/{id}x", 15, "not a path"),
        ("Line.Arn", "Line.Name", 26, "no attribute 'Name'"),
        ("Line.Arn", "Lines.Arn", 26, "Lines is not a resource"),
        ("[ReportBatchItemFailures]", "[]", 23, "ReportBatchItemFailures"),
        ("rate(2 hours)", '"cron(0 0 * * ? *)"', 28, "rate(1 minute)"),
        ("{name: line}", "{}", 29, "Hzc: name"),
        ("{name: line}", "{name: line, fifo: true}", 31, "fifo"),
        ("VisibilityTimeout: 30", "VisibilityTimeout: 29", 29, "at least 6 x 5 s"),
        ("VisibilityTimeout: 30", "VisibilityTimeout: soon", 33, "whole number"),
        ("maxReceiveCount: 3", "maxReceiveCount: 0", 34, "whole number"),
        (
            "      RedrivePolicy: {deadLetterTargetArn: !GetAtt Letters.Arn, maxReceiveCount: 3}\n",
            "",
            29,
            "RedrivePolicy",
        ),
        ("Timeout: 10", "Timeout: 10\n    Timeout: 11", 6, "appears twice"),
        ("Timeout: 10", "Timeout: [10", 6, "not YAML"),
    ],
)
def test_what_is_outside_the_subset_is_an_error_with_its_line(old: str, new: str, line: int, says: str) -> None:
    assert old in SMALL
    with pytest.raises(TemplateError) as caught:
        compile_text(SMALL.replace(old, new, 1))
    assert says in caught.value.message
    assert caught.value.line == line


def test_a_path_may_be_routed_once() -> None:
    again = '        Two: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: "/jobs/{name}"}}\n'
    with pytest.raises(TemplateError, match="routed twice"):
        compile_text(SMALL.replace("  Worker:\n", again + "  Worker:\n", 1))


def test_functions_that_share_a_process_agree_on_its_environment() -> None:
    other = "      Environment: {Variables: {LEVEL: DEBUG}}\n      Timeout: 5\n"
    with pytest.raises(TemplateError, match="LEVEL has another value"):
        compile_text(SMALL.replace("      Timeout: 5\n", other, 1))


def test_both_forms_of_the_functions_mean_the_same() -> None:
    scope = Scope({"P": 1}, {"Q": {"": "q", "Arn": "arn:q"}})
    text = (
        "[!Ref P, {Ref: P}, !GetAtt Q.Arn, {'Fn::GetAtt': [Q, Arn]}, !Sub '${Q} ${Q.Arn} ${!P}', {'Fn::Sub': '${P}'}]"
    )
    assert scope.value(parse(text)) == [1, 1, "arn:q", "arn:q", "q arn:q ${P}", "1"]


def test_the_command_writes_checks_and_points_at_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = tmp_path / "t.yaml", tmp_path / "host.json"
    source.write_text(SMALL)
    arguments = ["--template", str(source), "--output", str(output)]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    source.write_text(SMALL.replace("Timeout: 10", "Timeout: 11"))
    assert main([*arguments, "--check"]) == 1
    source.write_text("Resources: {}\nOther: 1\n")
    assert main(arguments) == 1
    assert f"{source}:2: Other" in capsys.readouterr().err
    assert main(["--template", str(tmp_path / "none"), "--output", str(output)]) == 2


# The platform's own template


def test_the_committed_host_json_is_what_the_template_says() -> None:
    packaged = Path(template.__file__).with_name("host.json").read_text()
    assert packaged == template.render(compile_text(TEMPLATE))


def test_every_handler_exists() -> None:
    for function in load().functions.values():
        module, _, name = function.handler.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))


def test_the_queues_are_those_that_services_use() -> None:
    queues = load().queues
    assert {queue.name for queue in queues} == {outbox.DISPATCH, outbox.COMPLETION}
    assert all(queue.dlq == queue.name + DEAD_LETTERS for queue in queues)


class _Plain(yaml.SafeLoader):
    """Reads every CloudFormation tag as its text."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: f"{suffix} {node.value}")


def policies() -> list[tuple[str, Any]]:
    resources = yaml.load(TEMPLATE, _Plain)["Resources"]
    return [
        (name, policy) for name, each in resources.items() for policy in each.get("Properties", {}).get("Policies", [])
    ]


def test_policies_name_one_queue_each_and_never_everything() -> None:
    found = policies()
    assert found
    for _, policy in found:
        [(kind, arguments)] = policy.items()
        assert kind in ("SQSSendMessagePolicy", "SQSPollerPolicy")
        assert arguments["QueueName"].startswith("GetAtt ")
    assert "*" not in str(found)
