"""Who waits for a worker: tenants take turns."""

from __future__ import annotations

from hanzo_compute.adapters.sandbox.turns import Turns


def test_tenants_take_turns_and_each_is_served_in_order() -> None:
    turns: Turns[int] = Turns()
    for number in range(4):
        turns.put("a", number)
    turns.put("b", 10)
    assert (len(turns), turns.waiting("a"), turns.waiting("c"), turns.tenants()) == (5, 4, 0, ["a", "b"])
    taken = []
    while turns:
        tenant = turns.tenants()[0]
        taken.append(turns.pop(tenant))
        turns.served(tenant)
    assert taken == [0, 10, 1, 2, 3]
    assert turns.tenants() == []


def test_what_is_put_back_comes_first() -> None:
    turns: Turns[int] = Turns()
    turns.put("a", 1)
    turns.put("b", 2)
    turns.put_back("b", 3)
    assert (turns.tenants(), turns.head("b"), turns.head("c")) == (["b", "a"], 3, None)
    assert turns.clear() == [3, 2, 1]
    assert (len(turns), turns.head("a")) == (0, None)
