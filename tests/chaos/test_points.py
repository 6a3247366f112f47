"""A process dies at each named point of the product's code: around every commit, send and ack, and every file's rename.

Each point has a round of jobs of its own, in which the process must die there; whatever the round left is looked at.
The rounds wait far more than they compute, so several platforms go through their share of the points side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.live import until
from tests.support.points.fault_points import POINTS, START_POINTS, Point
from tests.support.rounds import Armed

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(1800)]

SIDE_BY_SIDE = 5

Outcomes = dict[str, BaseException | None]


def strike(platform: Armed, point: Point) -> None:
    """One round with one point armed."""
    platform.arm(point.name)
    platform.round()
    until(lambda: platform.died, 120, f"a process comes to {point.name}")
    platform.check_at_rest()


def start_over(home: Path, point: Point) -> None:
    """A first start with one point armed: the supervisor starts again what died, or ends for want of it."""
    home.mkdir(mode=0o700)
    platform = Armed(home)
    platform.arm(point.name)
    platform.begin()
    with platform:
        until(lambda: platform.died, 300, f"a process comes to {point.name}")
        if not platform.answers_or_ends():
            platform.start()
        platform.upload()
        platform.short()()
        platform.check_at_rest()


def go_through(points: Sequence[Point], home: Path, outcomes: Outcomes) -> None:
    """All rounds of one platform; what went wrong is kept for the test of that point."""
    try:
        with Armed(home) as platform:
            platform.upload()
            for point in points:
                outcomes[point.name] = _outcome(lambda point=point: strike(platform, point))
            assert platform.stop() == 0
            until(lambda: not platform.processes(), 120, "no process is left")
    except BaseException as error:
        outcomes[points[-1].name] = error


def start_all_over(points: Sequence[Point], folder: Path, outcomes: Outcomes) -> None:
    """All first starts, each in a folder of its own."""
    for point in points:
        home = folder / point.name / "home"
        home.parent.mkdir()
        outcomes[point.name] = _outcome(lambda home=home, point=point: start_over(home, point))


def _outcome(task: Callable[[], None]) -> BaseException | None:
    try:
        task()
    except BaseException as error:
        return error
    return None


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What came of every point that was asked for."""
    asked = {item.callspec.params["point"] for item in request.session.items if item.module is request.module}
    running = [point for point in POINTS if point in asked]
    starting = [point for point in START_POINTS if point in asked]
    found: Outcomes = {}
    threads = []
    for number in range(min(SIDE_BY_SIDE, len(running))):
        home = tmp_path_factory.mktemp(f"points{number}") / "home"
        threads.append(threading.Thread(target=go_through, args=(running[number::SIDE_BY_SIDE], home, found)))
    for number in range(2):
        folder = tmp_path_factory.mktemp(f"starts{number}")
        threads.append(threading.Thread(target=start_all_over, args=(starting[number::2], folder, found)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("point", [*POINTS, *START_POINTS], ids=lambda point: point.name)
def test_a_process_that_dies_there_costs_nothing(outcomes: Outcomes, point: Point) -> None:
    error = outcomes[point.name]
    if error is not None:
        raise error
