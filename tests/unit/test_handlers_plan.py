"""The route of plans: real events in, real responses out."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from typing import Any

import pytest

from hanzo_compute.model import bounds
from tests.support.handlers import Client

PROBLEM: dict[str, Any] = {
    "beliefs": {"node": {"healthy": 0.6, "stressed": 0.4}},
    "options": {"node": {"keep": [[0.9, 0.1], [0.1, 0.9]], "drain": [[0.95, 0.8], [0.05, 0.2]]}},
    "outcomes": {
        "latency": {"met": [0.95, 0.3], "missed": [0.05, 0.7]},
        "bill": {"low": [0.5, 0.5], "high": [0.5, 0.5]},
    },
    "goal": {"latency": {"met": 2}},
    "horizon": 2,
}


def plan(call: Client, **changes: Any) -> Any:
    return call("POST", "/v1/plan/efe", PROBLEM | changes)


def test_the_plan_of_a_small_problem_is_the_one_that_arithmetic_gives(call: Client) -> None:
    answer = plan(call, horizon=1)
    assert answer.status == 200
    trace = answer.body["trace"]
    assert answer.body["action"] == trace["chosen"] == {"node": "drain"}
    assert answer.body["plan"] == [{"node": "drain"}]
    first, second = trace["candidates"]
    met = {"keep": 0.58 * 0.95 + 0.42 * 0.3, "drain": 0.89 * 0.95 + 0.11 * 0.3}
    for candidate in (first, second):
        p = met[candidate["action"]["node"]]
        # Log preferences: 2 and 0 of the latency, normalised, and a flat bill.
        utility = 2 * p - math.log(math.exp(2) + 1) - math.log(2)
        assert candidate["utility"] == pytest.approx(utility, abs=1e-12)
        assert candidate["efe"] == pytest.approx(-utility - candidate["curiosity"], abs=1e-12)
        assert candidate["efe"] == pytest.approx(candidate["risk"] + candidate["ambiguity"], abs=1e-12)
    margin = second["efe"] - first["efe"]
    assert first["probability"] == pytest.approx(1 / (1 + math.exp(-16 * margin)))
    assert trace["uncertainty"]["node"] == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4))
    assert trace["beliefs"] == PROBLEM["beliefs"]
    assert trace["why"].startswith("node = drain begins the plan with the lowest expected free energy")


def test_a_trace_says_what_would_have_been_otherwise(call: Client) -> None:
    """A drain costs: it is worth it only where the node is stressed."""
    options = {"node": {"keep": [[1, 0], [0, 1]], "drain": [[0.8, 0.8], [0.2, 0.2]]}}
    trace = plan(call, options=options, beliefs={"node": {"healthy": 0.5, "stressed": 0.5}}).body["trace"]
    answers = {str(each["if"]): each for each in trace["counterfactuals"]}
    assert answers["{'known': {'node': 'healthy'}}"]["action"] == {"node": "keep"}
    assert answers["{'known': {'node': 'stressed'}}"]["action"] == {"node": "drain"}
    assert [each["if"] for each in trace["counterfactuals"]][2:] == [{"curiosity": 0}, {"horizon": 1}]
    for each in trace["counterfactuals"]:
        assert each["changes"] == (each["action"] != trace["chosen"])
    assert trace["plans"] == 4


def test_beliefs_are_updated_by_what_was_observed(call: Client) -> None:
    trace = plan(call, observed={"latency": "missed"}).body["trace"]
    stressed = 0.4 * 0.7 / (0.4 * 0.7 + 0.6 * 0.05)
    assert trace["beliefs"]["node"]["stressed"] == pytest.approx(stressed, abs=1e-12)


def test_a_factor_without_options_takes_its_course(call: Client) -> None:
    beliefs = {"node": {"healthy": 0.6, "stressed": 0.4}, "price": {"cheap": 0.5, "dear": 0.5}}
    outcomes = {"ok": {"yes": [[0.9, 0.5], [0.4, 0.2]], "no": [[0.1, 0.5], [0.6, 0.8]]}}
    answer = plan(call, beliefs=beliefs, outcomes=outcomes, goal={"ok": {"yes": 1}})
    assert answer.status == 200
    assert answer.body["plan"] == [{"node": "drain"}, {"node": "drain"}]
    beliefs["price"] = {"cheap": 0.9, "dear": 0.1}
    (best, _) = plan(call, beliefs=beliefs, outcomes=outcomes, goal={"ok": {"yes": 1}}, horizon=1).body["trace"][
        "candidates"
    ]
    # By node, then by price: 0.89 of the nodes are healthy after a drain.
    yes = 0.89 * (0.9 * 0.9 + 0.1 * 0.5) + 0.11 * (0.9 * 0.4 + 0.1 * 0.2)
    assert best["utility"] == pytest.approx(yes - math.log(math.e + 1), abs=1e-12)


def test_equal_options_are_said_to_be_equal(call: Client) -> None:
    same = [[0.5, 0.5], [0.5, 0.5]]
    body = plan(call, options={"node": {"a": same, "b": same}}).body
    assert body["action"] == {"node": "a"}
    assert "node = b is as good" in body["trace"]["why"]
    only = plan(call, options={"node": {"a": same}}).body
    assert "there is no other action" in only["trace"]["why"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"beliefs": {"node": {"healthy": 0.6, "stressed": 0.6}}}, "beliefs.node", "add up to 1"),
    ({"beliefs": {"node": {"healthy": -0.5, "stressed": 1.5}}}, "beliefs.node", "no probability"),
    ({"beliefs": {"node": {"healthy": "1"}}}, "beliefs.node.healthy", "valid number"),
    ({"beliefs": {}}, "beliefs", "at least 1"),
    ({"options": {"disk": PROBLEM["options"]["node"]}}, "options", "there is no 'disk'"),
    ({"options": {"node": {"keep": [[1, 0]]}}}, "options.node.keep", "another shape"),
    ({"options": {"node": {"keep": [[1, 1], [1, 0]]}}}, "options.node.keep", "a column must add up to 1"),
    ({"options": {"node": {"keep": [["1", 0], [0, 1]]}}}, "options.node.keep", "no number"),
    ({"options": {"node": {"keep": [[True, 0], [0, 1]]}}}, "options.node.keep", "no number"),
    ({"options": {"node": {"keep": [[10**400, 0], [0, 1]]}}}, "options.node.keep", "no probability"),
    ({"outcomes": {"latency": {"met": [0.9, 0.5], "missed": [0.2, 0.5]}}}, "outcomes.latency", "of a state must add"),
    ({"outcomes": {"latency": {"met": [-(10**400), 0.5], "missed": [1, 0.5]}}}, "outcomes.latency.met", "no prob"),
    ({"outcomes": {"latency": {"met": [0.9]}}}, "outcomes.latency.met", "another shape"),
    ({"goal": {"price": {"low": 1}}}, "goal", "there is no 'price'"),
    ({"goal": {"latency": {"mett": 1}}}, "goal.latency", "there are: met, missed"),
    ({"goal": {"latency": {"met": 1e7}}}, "goal.latency.met", "less than or equal"),
    ({"observed": {"latency": "mett"}}, "observed.latency", "there is no 'mett'"),
    ({"observed": {"x": "met"}}, "observed", "there is no 'x'"),
    ({"horizon": 0}, "horizon", "greater than or equal"),
    ({"horizon": 1.5}, "horizon", "valid integer"),
    ({"horizon": 17}, "horizon", "less than or equal"),
    ({"gamma": -1}, "gamma", "greater than or equal"),
    ({"horizont": 2}, "horizont", "horizon"),
]


@pytest.mark.parametrize(("change", "field", "said"), WRONG)
def test_what_does_not_fit_is_refused_by_its_name(call: Client, change: dict[str, Any], field: str, said: str) -> None:
    refused = plan(call, **change)
    assert (refused.status, refused.body["code"]) == (400, "invalid_request")
    assert refused.body["errors"][0]["field"] == field
    assert said in str(refused.body)


def test_an_impossible_observation_is_refused(call: Client) -> None:
    sure = {"latency": {"met": [1, 1], "missed": [0, 0]}}
    refused = plan(call, outcomes=sure, observed={"latency": "missed"})
    assert refused.body["errors"][0]["field"] == "observed"
    assert "impossible" in refused.body["detail"]


def test_too_much_is_refused_before_it_is_computed(call: Client) -> None:
    many = {f"a{number}": PROBLEM["options"]["node"]["keep"] for number in range(17)}
    refused = plan(call, options={"node": many}, horizon=4)
    assert refused.body["errors"][0]["field"] == "horizon"
    assert str(bounds.PLAN_POLICIES_MAX) in refused.body["detail"]
    outcomes = {f"o{number}": [1 / 64, 1 / 64] for number in range(64)}
    assert plan(call, outcomes={"x": outcomes, "y": outcomes}, goal={}).status == 200
    refused = plan(call, outcomes={"x": outcomes, "y": outcomes, "z": outcomes, "w": outcomes}, goal={})
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, "outcomes")
    refused = plan(call, outcomes={"x": outcomes, "y": outcomes}, goal={}, horizon=15)
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, "horizon")


def test_steps_count_where_there_is_but_one_action(call: Client) -> None:
    sizes = (64, 64, 32)
    beliefs = {f"f{index}": {f"s{state}": 1 / size for state in range(size)} for index, size in enumerate(sizes)}
    stay = [[float(row == column) for column in range(32)] for row in range(32)]
    body = {
        "beliefs": beliefs,
        "options": {"f2": {"stay": stay}},
        "outcomes": {"x": {"seen": [[[1] * 32] * 64] * 64}},
        "goal": {},
    }
    assert plan(call, **body, horizon=1).status == 200
    refused = plan(call, **body, horizon=16)
    assert (refused.status, refused.body["errors"][0]["field"]) == (400, "horizon")


def test_a_plan_needs_an_owner(call: Client, agent: Client) -> None:
    assert call("POST", "/v1/plan/efe", PROBLEM, key=None).status == 401
    assert agent("POST", "/v1/plan/efe", PROBLEM).status == 403


def test_handlers_start_without_the_engine() -> None:
    modules = "attestation.app, completion.app, dispatch.app, invoke.app, job_intake.app, leases.app, market.app"
    code = f"import sys, {modules}, schedule.app; sys.exit('numpy' in sys.modules or 'hllm' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_same_problem_has_the_same_answer(call: Client) -> None:
    assert plan(call).text == call("POST", "/v1/plan/efe", copy.deepcopy(PROBLEM)).text
