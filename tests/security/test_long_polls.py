"""A thousand clients that wait: what each costs, what the others notice, and that all get their answer."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest

from tests.support.live import Platform, until
from tests.support.raw import Raw, allow_files, head, open_files, rss_kib

POLLS = 1_000
SLEEPER = {"code": "import time\nwhile True: time.sleep(0.05)", "language": "python"}


def p(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] * 1000


def probe(raw: Raw, request: bytes, times: int) -> list[float]:
    """Seconds of each of so many requests, one after the other."""
    found = []
    for _ in range(times):
        begin = time.monotonic()
        assert raw.send(request).read().status == 200
        found.append(time.monotonic() - begin)
    return found


async def changed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: bytes) -> str:
    """The state that a job comes to, by long polls: where there are many, one may end before the last has begun."""
    while True:
        writer.write(wait)
        found = await reader.readuntil(b"\r\n\r\n")
        assert found.startswith(b"HTTP/1.1 200"), found
        length = re.search(rb"(?i)content-length: (\d+)", found)
        assert length is not None
        state: str = json.loads(await reader.readexactly(int(length[1])))["state"]
        if state != "running":
            return state


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_that_wait_cost_little_and_all_get_their_answer(platform: Platform) -> None:
    allow_files(POLLS + 500)
    client = platform.client()
    job = client.submit({"source": SLEEPER}).job["id"]
    until(lambda: client.get(job)["state"] == "running", 120, "it runs")
    pid = platform.pid("front-1")
    assert pid is not None
    other = Raw(platform.port, timeout_s=60)
    look = head("GET", f"/v1/jobs/{job}", key=platform.key)
    alone = probe(other, look, 200)
    memory, files = rss_kib(pid), open_files(pid)
    wait = head("GET", f"/v1/jobs/{job}?wait_s=20&seen_state=running", key=platform.key)

    async def polls() -> list[float]:
        opened = [await asyncio.open_connection("127.0.0.1", platform.port) for _ in range(POLLS)]
        answers = [asyncio.create_task(changed(*each, wait)) for each in opened]
        loop = asyncio.get_running_loop()
        while open_files(pid) - files < POLLS:  # it accepts them one after the other
            await asyncio.sleep(0.05)
        beside = await loop.run_in_executor(None, probe, other, look, 50)
        assert not any(each.done() for each in answers)
        each_kib = (rss_kib(pid) - memory) / POLLS
        during = loop.run_in_executor(None, probe, other, look, 20)
        begin = time.monotonic()
        await loop.run_in_executor(None, client.cancel, job)
        await asyncio.gather(*answers)
        woken_s = time.monotonic() - begin
        await during
        print(
            f"\n{POLLS} parked: {each_kib:.1f} KiB each; another client's GET p50/p99 ms:"
            f" alone {p(alone, 0.5):.1f}/{p(alone, 0.99):.1f}, beside them {p(beside, 0.5):.1f}/{p(beside, 0.99):.1f},"
            f" while all are woken {p(await during, 0.5):.1f}/{p(await during, 0.99):.1f};"
            f" all answered in {woken_s:.1f} s"
        )
        assert each_kib < 100
        for _, writer in opened:
            writer.close()
        return beside

    asyncio.run(polls())
    until(lambda: open_files(pid) < files + 50, 120, "the descriptors are closed")
    assert probe(other, look, 5)
    other.close()
