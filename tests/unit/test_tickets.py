"""Which tickets are durable and which are lost, whatever the order of events."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hanzo_compute.adapters.local.tickets import Tickets


def taken_after(tickets: Tickets, applied: int) -> int | None:
    tickets.applied = applied
    return tickets.take()


def test_a_ticket_is_durable_with_its_last_request() -> None:
    tickets = Tickets()
    assert taken_after(tickets, 3) == 3
    tickets.durable(2)
    assert tickets.outcome(3) is None
    settled = [tickets.settled]
    tickets.durable(3)
    settled.append(tickets.settled)
    assert settled == [False, True]
    assert tickets.outcome(3) is True
    assert list(tickets.news().durable) == [3]
    assert not tickets.has_news


def test_nothing_is_to_be_awaited_when_all_is_durable() -> None:
    tickets = Tickets()
    tickets.applied = 2
    tickets.durable(2)
    assert tickets.take() is None


def test_a_lost_batch_fails_every_ticket_with_a_part_in_it() -> None:
    tickets = Tickets()
    assert taken_after(tickets, 1) == 1
    assert taken_after(tickets, 3) == 3
    assert taken_after(tickets, 6) == 6
    assert taken_after(tickets, 8) == 8
    tickets.durable(2)
    tickets.lose(4)
    tickets.durable(8)
    assert [tickets.outcome(ticket) for ticket in (1, 3, 6, 8)] == [True, False, False, True]
    news = tickets.news()
    assert (list(news.durable), list(news.failed)) == ([1, 8], [3, 6])


def test_what_was_lost_before_the_ticket_was_taken_fails_it() -> None:
    tickets = Tickets()
    tickets.applied = 2
    tickets.lose(1)
    tickets.durable(2)
    assert tickets.take() == 2
    assert tickets.outcome(2) is False
    assert list(tickets.news().failed) == [2]
    tickets.applied = 3
    assert tickets.take() == 3
    assert tickets.outcome(3) is None


def test_losing_what_is_durable_changes_nothing() -> None:
    tickets = Tickets()
    assert taken_after(tickets, 2) == 2
    tickets.durable(2)
    tickets.lose(2)
    assert tickets.take() is None
    assert tickets.outcome(2) is True


def test_a_forgotten_ticket_is_not_news() -> None:
    tickets = Tickets()
    assert taken_after(tickets, 1) == 1
    tickets.durable(1)
    tickets.forget(1)
    assert not tickets.has_news


def test_wakes_are_said_once() -> None:
    tickets = Tickets()
    tickets.wake(["a", "b"])
    tickets.wake(["a"])
    assert list(tickets.news().woken) == ["a", "b"]
    assert list(tickets.news().woken) == []


@given(st.lists(st.sampled_from(["apply", "take", "durable", "lose"]), max_size=40))
def test_every_ticket_has_the_outcome_of_its_requests(events: list[str]) -> None:
    """Against the definition: requests are settled in order; a ticket fails if one of its own was lost."""
    tickets = Tickets()
    lost: set[int] = set()
    settled = taken = 0
    cover: dict[int, range] = {}
    for event in events:
        if event == "apply":
            tickets.applied += 1
        elif event == "take":
            ticket = tickets.take()
            if ticket is not None:
                cover[ticket] = range(taken + 1, ticket + 1)
            taken = tickets.applied
        else:
            if event == "lose":
                lost |= set(range(settled + 1, tickets.applied + 1))
            settled = tickets.applied
            (tickets.lose if event == "lose" else tickets.durable)(tickets.applied)
    for ticket, requests in cover.items():
        expected = False if lost & set(requests) else (True if ticket <= settled else None)
        assert tickets.outcome(ticket) is expected
