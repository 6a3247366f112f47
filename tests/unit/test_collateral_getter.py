"""Getting one file: cache, expiry, back-off, rate limits, outages, and one request for all who want the same."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.collateral.cache import FileCache
from hanzo_compute.adapters.collateral.getter import ATTEMPTS, Getter
from hanzo_compute.adapters.collateral.limits import RATES, Buckets, Rate, backoff_s, retry_after_s
from hanzo_compute.adapters.collateral.wanted import DAY_MS, Answer, Kept, Request, Unfit, Unobtainable, Wanted
from hanzo_compute.adapters.local.system import SystemClock
from tests.support.collateral_clock import StillClock
from tests.support.live import until
from tests.support.pki import NOW_MS

URL = "https://kds.example/a"
OK = Answer(200, {}, b"content")
DOWN = Unobtainable("cannot be reached", passing=True)


@dataclass
class Script:
    """An opener that answers from a list; its last item again and again."""

    answers: list[Answer | Unobtainable]
    asked: list[float] = field(default_factory=list)

    def __call__(self, request: Request, timeout_s: float) -> Answer:
        self.asked.append(timeout_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Unobtainable):
            raise answer
        return answer


class Bench:
    """A getter with everything around it in hand."""

    def __init__(self, folder: Path, *answers: Answer | Unobtainable, rate: Rate | None = None) -> None:
        self.clock = StillClock()
        self.opener = Script(list(answers))
        self.cache = FileCache(folder)
        self.rates = {"amd": rate or Rate(1000.0, 1000)}
        self.not_after_ms: int | None = None
        self.getter = self.made()

    def made(self, *, offline: bool = False) -> Getter:
        buckets = Buckets(self.rates, self.clock)
        return Getter(self.opener, self.cache, buckets, self.clock, uniform=lambda _, high: high, offline=offline)

    def admit(self, answer: Answer) -> Kept:
        if answer.body == b"lie":
            raise Unfit("it is of another chip")
        return Kept(answer.body, self.not_after_ms)

    def get(self, *, patience_s: float = 30.0, url: str = URL, getter: Getter | None = None) -> bytes:
        wanted = Wanted("the VCEK", "amd", Request(url, 100), self.admit)
        return (getter or self.getter).get(wanted, self.clock.now_ms(), self.clock.monotonic() + patience_s)

    def fails(self, *, patience_s: float = 30.0) -> Unobtainable:
        with pytest.raises(Unobtainable) as caught:
            self.get(patience_s=patience_s)
        return caught.value

    @property
    def count(self) -> int:
        return len(self.opener.asked)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def test_what_is_in_the_cache_needs_no_network(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK)
    assert [bench.get(), bench.get(), bench.get(getter=bench.made())] == [b"content"] * 3
    assert bench.count == 1


def test_certificates_are_kept_for_ever(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK)
    bench.get()
    bench.clock.go(30 * 365 * 86_400)
    assert bench.get() == b"content"
    assert bench.count == 1


def test_lists_are_renewed_before_they_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK, Answer(200, {}, b"renewed"))
    bench.not_after_ms = NOW_MS + 10 * DAY_MS
    assert bench.get() == b"content"
    bench.clock.go(86_000)
    assert bench.get() == b"content"
    bench.clock.go(500)
    assert bench.get() == b"renewed"
    assert bench.count == 2


def test_while_a_service_is_out_a_good_list_is_used_and_a_stale_one_never(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK, DOWN)
    bench.not_after_ms = NOW_MS + 10 * DAY_MS
    bench.get()
    bench.clock.go(9 * 86_400)
    assert bench.get() == b"content"
    assert bench.count == 2, "one attempt to renew it"
    assert bench.clock.slept == []
    assert bench.get() == b"content"
    assert bench.count == 2, "and not again at once"
    bench.clock.go(86_400)
    error = bench.fails()
    assert error.passing
    assert bench.count == 2 + ATTEMPTS


def test_a_list_that_is_out_of_date_already_is_not_taken(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK)
    bench.not_after_ms = NOW_MS
    assert "out of date" in bench.fails().reason
    assert not any(tmp_path.iterdir())


def test_a_look_into_the_future_takes_nothing_from_the_present(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK)
    bench.not_after_ms = NOW_MS + DAY_MS
    wanted = Wanted("the list", "amd", Request(URL, 100), bench.admit)
    with pytest.raises(Unobtainable, match="out of date"):
        bench.getter.get(wanted, NOW_MS + DAY_MS, 30.0)
    assert bench.get() == b"content"
    assert bench.count == 1


def test_a_damaged_entry_is_asked_for_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK)
    bench.get()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert bench.get() == b"content"
    assert bench.count == 2


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    bench = Bench(tmp_path / "file" / "folder", OK)
    assert bench.get() == b"content"


def test_failures_that_may_pass_are_tried_again_with_longer_waits(tmp_path: Path) -> None:
    bench = Bench(tmp_path, DOWN, Answer(503, {}, b""), Answer(500, {}, b""), OK)
    assert bench.get() == b"content"
    assert bench.clock.slept == [0.5, 1.0, 2.0]


def test_it_gives_up_and_says_why(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Answer(503, {}, b""))
    error = bench.fails()
    assert bench.count == ATTEMPTS
    assert error.reason == "the VCEK: https://kds.example answered 503"
    assert error.passing


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Answer(429, {"retry-after": "7"}, b""), OK)
    assert bench.get() == b"content"
    assert bench.clock.slept == [7.5]


def test_a_caller_is_told_instead_of_kept_waiting(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Answer(429, {"retry-after": "120"}, b""), OK)
    error = bench.fails()
    assert (error.passing, error.retry_after_s, bench.clock.slept) == (True, 120.0, [])
    bench.clock.go(60)
    again = bench.fails()
    assert (bench.count, again.retry_after_s) == (1, 60.0)
    bench.clock.go(60)
    assert bench.get() == b"content"


@pytest.mark.parametrize(
    ("answer", "text", "seconds"),
    [
        (Answer(404, {}, b""), "does not have it (404)", 300),
        (Answer(403, {}, b""), "answered 403", 60),
        (Answer(302, {"location": "https://elsewhere.example"}, b""), "redirect (302), which is not followed", 60),
        (Answer(200, {}, b"lie"), "something else: it is of another chip", 60),
        (Answer(206, {}, b"content"), "answered 206", 60),
    ],
)
def test_what_does_not_pass_is_not_tried_again_for_a_while(
    tmp_path: Path, answer: Answer, text: str, seconds: int
) -> None:
    bench = Bench(tmp_path, answer, OK)
    error = bench.fails()
    assert text in error.reason
    assert not error.passing
    assert not any(tmp_path.iterdir()), "nothing of it is kept"
    bench.clock.go(seconds - 1)
    bench.fails()
    assert bench.count == 1
    bench.clock.go(2)
    assert bench.get() == b"content"


def test_a_request_has_what_is_left_of_the_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, DOWN, DOWN, OK)
    bench.get(patience_s=4.0)
    assert bench.opener.asked == [4.0, 3.5, 2.5]
    assert bench.get(patience_s=-1.0) == b"content", "the cache needs no time"


def test_offline_the_cache_is_all_there_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK)
    offline = bench.made(offline=True)
    with pytest.raises(Unobtainable, match="is not in the cache, and collateral is offline"):
        bench.get(getter=offline)
    bench.not_after_ms = NOW_MS + 10 * DAY_MS
    bench.get()
    bench.clock.go(9 * 86_400)
    assert bench.get(getter=offline) == b"content", "also when it would be renewed"
    bench.clock.go(86_400)
    with pytest.raises(Unobtainable, match="is out of date in the cache"):
        bench.get(getter=offline)
    assert bench.count == 1


def test_a_service_is_not_asked_more_often_than_it_allows(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OK, rate=Rate(0.1, 2))
    times = []
    for number in range(5):
        bench.get(url=f"{URL}/{number}", patience_s=100)
        times.append(bench.clock.monotonic())
    assert times == pytest.approx([0.0, 0.0, 10.0, 20.0, 30.0])
    with pytest.raises(Unobtainable, match=r"no more than 0\.1 times a second; the next turn is in 10\.0 s") as caught:
        bench.get(url=f"{URL}/6", patience_s=5)
    assert caught.value.passing
    assert caught.value.retry_after_s == pytest.approx(10.0)
    assert bench.count == 5


def test_lines_wait_each_for_itself_and_are_bounded() -> None:
    clock = StillClock()
    buckets = Buckets({"amd": Rate(0.1, 1)}, clock)
    for number in range(3000):
        buckets.pass_("amd", f"chip {number}", 0.0)
    assert clock.slept == []
    assert len(buckets._lines) <= 1024
    with pytest.raises(Unobtainable):
        buckets.pass_("amd", "chip 2999", 5.0)


def test_threads_that_wait_for_a_turn_wait_one_after_the_other() -> None:
    clock = StillClock()
    buckets = Buckets({"amd": Rate(1.0, 1)}, clock)
    waits = [buckets._reserve("amd", "", 10.0) for _ in range(4)]
    assert waits == [0.0, 1.0, 2.0, 3.0]


def test_every_service_has_a_rate() -> None:
    assert set(RATES) == {"amd", "intel", "nvidia-rim", "nvidia-ocsp"}
    assert RATES["amd"].per_s == 0.1


def test_backoff_doubles_up_to_a_bound() -> None:
    assert [backoff_s(count, None, lambda _, high: high) for count in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]
    assert backoff_s(1, 3.0, lambda low, _: low) == 3.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("5", 5.0),
        (" 0 ", 0.0),
        ("999999999999", 3600.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 2025 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW_MS) == seconds


class Slow:
    """An opener that takes its time."""

    def __init__(self, answer: Answer | BaseException) -> None:
        self.answer = answer
        self.count = 0
        self.go = threading.Event()

    def __call__(self, request: Request, timeout_s: float) -> Answer:
        self.count += 1
        self.go.wait(60)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def is_asked(opener: Slow) -> None:
    """Until somebody's request is on its way."""
    until(lambda: opener.count, 60, "the service is asked")


def is_waited_for(getter: Getter) -> None:
    """Until somebody waits for another's request."""
    flights = getter._flights
    until(lambda: any(each._condition._waiters for each in list(flights.values())), 60, "somebody else waits")


def slow_getter(folder: Path, opener: Slow) -> Getter:
    clock = SystemClock()
    return Getter(opener, FileCache(folder), Buckets({"amd": Rate(1000, 1000)}, clock), clock, uniform=lambda *_: 0)


def ask(getter: Getter, patience_s: float = 100.0) -> bytes:
    wanted = Wanted("the VCEK", "amd", Request(URL, 100), lambda answer: Kept(answer.body, None))
    return getter.get(wanted, NOW_MS, time.monotonic() + patience_s)


def test_all_who_want_the_same_share_one_request(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    opener = Slow(OK)
    getter = slow_getter(tmp_path, opener)
    asked = [pool.submit(ask, getter) for _ in range(16)]
    time.sleep(0.1)
    opener.go.set()
    assert [each.result() for each in asked] == [b"content"] * 16
    assert opener.count == 1


def test_they_share_its_failure_too(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    opener = Slow(Unobtainable("answered with more than 100 bytes"))
    getter = slow_getter(tmp_path, opener)
    asked = [pool.submit(ask, getter) for _ in range(16)]
    time.sleep(0.1)
    opener.go.set()
    for each in asked:
        with pytest.raises(Unobtainable, match="more than 100 bytes"):
            each.result()
    assert opener.count == 1


def test_who_comes_when_it_has_failed_does_not_ask_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it looked for failures when there was none yet."""
    opener = Slow(Unobtainable("answered with more than 100 bytes"))
    opener.go.set()
    getter = slow_getter(tmp_path, opener)
    alone = getter._alone

    def late(*given: Any) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(getter, "_alone", alone)
            with pytest.raises(Unobtainable):
                ask(getter)
        return alone(*given)

    monkeypatch.setattr(getter, "_alone", late)
    with pytest.raises(Unobtainable, match="more than 100 bytes"):
        ask(getter)
    assert opener.count == 1


def test_who_is_interrupted_is_so_alone(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    opener = Slow(KeyboardInterrupt())
    getter = slow_getter(tmp_path, opener)
    leader = pool.submit(ask, getter)
    is_asked(opener)
    follower = pool.submit(ask, getter)
    is_waited_for(getter)
    opener.go.set()
    with pytest.raises(KeyboardInterrupt):
        leader.result()
    with pytest.raises(Unobtainable, match="given up"):
        follower.result()
    opener.answer = OK
    assert ask(getter) == b"content", "the next one asks anew"


def test_who_waits_for_another_waits_no_longer_than_it_would(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    opener = Slow(OK)
    getter = slow_getter(tmp_path, opener)
    leader = pool.submit(ask, getter)
    is_asked(opener)
    with pytest.raises(Unobtainable, match="did not come in time"):
        ask(getter, patience_s=0.1)
    opener.go.set()
    assert leader.result() == b"content"
