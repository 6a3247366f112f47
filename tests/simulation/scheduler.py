"""One seeded scheduler: tasks are greenlets, time is simulated, and what happens at equal times is in seeded order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

from greenlet import getcurrent, greenlet

START_MS: Final = 1_700_000_000_000
SECOND: Final = 1_000_000
"""Microseconds, the unit of the scheduler's time."""


class ProcessKilled(BaseException):
    """Raised in the tasks of a process that crashes: no handler of the product catches it."""


class Stuck(Exception):
    """Nothing is left that could ever happen, or the schedule has used up its steps."""


class Task:
    """A greenlet, and the process that it dies with."""

    __slots__ = ("done", "greenlet", "name", "process", "timer")

    def __init__(self, name: str, process: Process | None) -> None:
        self.name = name
        self.process = process
        self.done = False
        self.timer: list[Any] | None = None
        self.greenlet: greenlet | None = None


class Process:
    """One life of a simulated process: its tasks, and what is to be told when it crashes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.tasks: list[Task] = []
        self.at_crash: list[Callable[[], None]] = []


class Scheduler:
    """Runs tasks one at a time; :meth:`run` is the only place where simulated time passes."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_us = 0
        self.set_by_ms = 0
        """By how much the wall clock was set forward (back: less than 0)."""
        self.current: Task | None = None
        self.failure: tuple[str, BaseException] | None = None
        self.over = False
        self._tasks: list[Task] = []
        self._hub = getcurrent()
        self._heap: list[tuple[int, float, int, list[Any]]] = []
        self._count = 0
        self._waiting: dict[str, dict[Task, None]] = {}
        self._woken: dict[str, int] = {}

    @property
    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return START_MS + self.set_by_ms + self.now_us // 1000

    # What happens later

    def after(self, delay_us: int, action: Callable[[], None]) -> list[Any]:
        """Call ``action`` from the scheduler itself; the returned timer can be cancelled."""
        timer = [action]
        self._count += 1
        heapq.heappush(self._heap, (self.now_us + delay_us, self.random.random(), self._count, timer))
        return timer

    @staticmethod
    def cancel(timer: list[Any] | None) -> None:
        """Make a timer do nothing."""
        if timer is not None:
            timer[0] = None

    def spawn(self, name: str, body: Callable[[], Any], process: Process | None = None) -> Task:
        """Start a task; it runs when its turn comes."""
        task = Task(name, process)
        if process is not None:
            process.tasks.append(task)
        self._tasks.append(task)
        task.greenlet = greenlet(lambda: self._life(task, body), parent=self._hub)
        task.timer = self.after(0, lambda: self._resume(task))
        return task

    def _life(self, task: Task, body: Callable[[], Any]) -> None:
        try:
            body()
        except ProcessKilled:
            pass
        except BaseException as error:
            if self.failure is None:
                self.failure = (task.name, error)
        finally:
            task.done = True

    def _resume(self, task: Task) -> None:
        if task.done:
            return
        assert task.greenlet is not None
        task.timer = None
        self.current = task
        if task.process is not None and not task.process.alive:
            self._kill(task)
        else:
            task.greenlet.switch()
        self.current = None

    @staticmethod
    def _kill(task: Task) -> None:
        assert task.greenlet is not None
        with suppress(ProcessKilled):  # one that had not begun has nobody to catch it
            task.greenlet.throw(ProcessKilled)
        task.done = True

    # What tasks call

    def pause(self, delay_us: int) -> None:
        """Let others run; go on after ``delay_us``."""
        task = self.current
        assert task is not None
        task.timer = self.after(delay_us, lambda: self._resume(task))
        self._hub.switch()
        self.current = task

    def mark(self, keys: Sequence[str]) -> list[int]:
        """How often each key was woken so far: taken before a look, so that no wake is lost until :meth:`wait`."""
        return [self._woken.get(key, 0) for key in keys]

    def marks(self) -> dict[str, int]:
        """The marks of all keys, for who does not know yet what to wait for."""
        return dict(self._woken)

    def wait(self, keys: Sequence[str], marks: Sequence[int], delay_us: int) -> None:
        """Wait until one of the keys is woken after its mark was taken, at most ``delay_us``."""
        if list(marks) != self.mark(keys):
            self.pause(0)
            return
        task = self.current
        assert task is not None
        for key in keys:
            self._waiting.setdefault(key, {})[task] = None
        try:
            self.pause(max(delay_us, 0))
        finally:
            for key in keys:
                self._waiting.get(key, {}).pop(task, None)

    def wake(self, key: str) -> None:
        """Resume who waits for the key."""
        self._woken[key] = self._woken.get(key, 0) + 1
        for task in list(self._waiting.pop(key, {})):
            if task.timer is not None:
                self.cancel(task.timer)
                task.timer = self.after(0, lambda task=task: self._resume(task))  # type: ignore[misc]

    def wake_all(self) -> None:
        """Resume everybody who waits for something: news may have been missed."""
        for key in list(self._waiting):
            self.wake(key)

    # Processes

    def crash(self, process: Process) -> None:
        """End a process: all its tasks, at once, and without any of their clean-up taking effect."""
        if not process.alive:
            return
        process.alive = False
        for task in process.tasks:
            if not task.done and task is not self.current:
                self.cancel(task.timer)
                self.after(0, lambda task=task: self._resume(task))  # type: ignore[misc]
        for tell in process.at_crash:
            tell()

    def run(self, finished: Callable[[], bool], limit_us: int, steps: int = 400_000) -> None:
        """Let things happen until ``finished``. Raises Stuck when that is not in sight."""
        while not finished():
            if self.failure is not None:
                name, error = self.failure
                raise AssertionError(f"task {name!r} died: {type(error).__name__}: {error}") from error
            if not self._heap:
                raise Stuck("nothing is left that could happen")
            at, _, _, timer = heapq.heappop(self._heap)
            if timer[0] is None:
                continue
            if at > limit_us:
                raise Stuck(f"not finished after {limit_us // SECOND} simulated seconds")
            steps -= 1
            if steps < 0:
                raise Stuck("not finished after the steps of a schedule")
            self.now_us = max(self.now_us, at)
            timer[0]()

    def end(self) -> None:
        """Kill whatever still lives, so that no task outlives its schedule."""
        self.over = True
        for task in self._tasks:
            if not task.done and task.greenlet is not None:
                self.current = task
                self._kill(task)
        self.current = None
        self._heap.clear()
