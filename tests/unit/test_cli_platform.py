"""demo, doctor, version, completion: what a newcomer runs first."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hanzo_compute import __version__
from hanzo_compute.model.problems import parse_spec
from hanzo_compute_host import demo
from hanzo_compute_host.cli import checks
from hanzo_compute_host.cli.main import COMMANDS, cli
from hanzo_compute_host.cli.next_steps import next_steps
from hanzo_compute_host.demo.generate import ROWS, orders_csv
from tests.support.cli import Hzc
from tests.support.fake_api import KEY, FakeApi, Run


@pytest.fixture
def home(tmp_path: Path, api: FakeApi) -> Path:
    """The state folder of the platform that ``api`` is."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    path = home / "credentials.json"
    path.write_text(json.dumps({"url": api.url, "key": KEY}))
    path.chmod(0o600)
    return home


@pytest.fixture
def hzc(home: Path, tmp_path: Path) -> Hzc:
    return Hzc({"HZC_HOME": str(home), "HZC_CACHE": str(tmp_path / "cache")})


def run_natively(spec: Any, stdin: bytes) -> Run:
    """What a sandbox would do, without the sandbox."""
    argv = [sys.executable, "-c", spec["source"]["code"], *spec["args"]]
    done = subprocess.run(argv, input=stdin, capture_output=True, check=True)
    return Run(log=[("stderr", done.stderr.decode())], stdout=done.stdout)


def test_the_orders_are_real_data_and_always_the_same() -> None:
    csv = orders_csv()
    assert csv == orders_csv()
    assert 300_000 < len(csv) < 500_000
    assert len(csv.splitlines()) == ROWS + 1
    report = demo.expected(csv)
    assert report["orders"] + sum(report["rejected"].values()) == ROWS
    assert report["rejected"]
    assert report["revenue_cents"] == sum(report["by_region"].values()) == sum(report["by_month"].values())


def test_the_report_by_hand() -> None:
    rows = ["o1,2025-01-01,A,x,2,100", "o2,2025-02-01,B,y,1,300", "o3,2025-02-30,A,x,1,1", "o4,2025-02-02,A,x,1,9000"]
    rows += ["o5,2025-02-03,A,,1,5", "o6,2025-02-03,A,x,none,5", "o7,2025-02-03"]
    report = demo.expected("\n".join(["order,date,region,product,quantity,unit_cents", *rows]).encode())
    del report["checksum"]
    assert report == {
        "orders": 3,
        "rejected": {"TypeError": 1, "ValueError": 3},
        "revenue_cents": 9500,
        "by_region": {"A": 9200, "B": 300},
        "by_month": {"2025-01": 200, "2025-02": 9300},
        "top_products": {"x": 9200, "y": 300},
        "median_basket_cents": 300,
        "outliers": {"above_cents": 22200, "count": 0, "largest": []},
    }
    assert demo.expected(b"")["orders"] == 0


def test_demo_shows_job_result_way_and_next_steps(api: FakeApi, hzc: Hzc, home: Path) -> None:
    api.program = run_natively
    shown = hzc("demo").stdout
    (job,) = api.jobs
    report = demo.expected(orders_csv())
    assert (home / "demo" / "orders.csv").read_bytes() == orders_csv()
    for words in ("row 8000:", "Europe", "espresso machine", "2025-12", f"{report['revenue_cents'] / 100:,.2f}"):
        assert words in shown
    for words in ("submitted", "123,456,789 instructions", "32.0 MiB", "1.50 s", report["checksum"][:16]):
        assert words in shown
    assert f"hzc show {job}" in shown
    assert "It can cost 0.000850205 cr at most" in shown
    assert "was verified without the platform" in shown
    assert "everything in it holds" in shown
    document = hzc.json("demo")
    assert document["agrees"] is True
    assert document["report"] == report
    assert document["receipt"]["leaf"]["body"]["job"] == document["result"]["id"]


@pytest.mark.parametrize("stdout", [b"", b"not json", b"[]", b'{"checksum": "1"}'])
def test_demo_fails_when_the_report_is_another(api: FakeApi, hzc: Hzc, stdout: bytes) -> None:
    api.program = lambda _spec, _stdin: Run(stdout=stdout)
    assert hzc.json("demo", code=1)["agrees"] is False


def test_demo_fails_when_one_figure_is_off(api: FakeApi, hzc: Hzc) -> None:
    report = demo.expected(orders_csv())
    report["by_region"]["Europe"] += 1
    api.program = lambda _spec, _stdin: Run(stdout=json.dumps(report).encode())
    assert "NOT what" in hzc("demo", code=1).stdout


def test_demo_names_the_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = Hzc({"HZC_HOME": str(tmp_path / "new"), "HZC_PORT": str(port)})("demo", code=2)
    assert f"port {port}" in result.stderr
    assert "HZC_PORT" in result.stderr


def test_down_without_a_platform(tmp_path: Path) -> None:
    hzc = Hzc({"HZC_HOME": str(tmp_path)})
    assert "was not running" in hzc("down").stderr
    assert hzc.json("down")["stopped"] is False


def test_the_next_steps_work_in_a_shell(home: Path, api: FakeApi, tmp_path: Path) -> None:
    """Every line, run by bash as it is printed; of curl only that it is asked for the right things."""
    (home / "demo").mkdir()
    (home / "demo" / "orders.py").write_text(demo.program())
    (home / "demo" / "orders.csv").write_bytes(orders_csv(rows=20))
    api.program = lambda _spec, _stdin: Run(stdout=b"made", ends=len(api.jobs) != 2)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    job = api.submit({"source": {"code": "pass", "language": "python"}})[1]["id"]
    lines = [line.strip() for line in next_steps(home, api.url, job, env).splitlines()]
    commands = [line for line in lines if line.startswith(("export", "hzc", "KEY=", "curl"))]
    assert len(commands) == 16
    hzc = f'hzc() {{ {shlex.quote(sys.executable)} -m hanzo_compute_host.cli "$@"; }}'
    curl = 'curl() { printf "%s\\n" "$@" >&2; }'
    script = "\n".join(["set -eu", hzc, curl, *commands])
    done = subprocess.run(["bash", "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "made" in done.stdout
    assert job in done.stdout
    assert done.stderr.count(f"Authorization: Bearer {KEY}") == 6
    assert f"{api.url}/v1/jobs/{list(api.jobs)[-1]}/cancel" in done.stderr
    assert [view["state"] for view in api.jobs.values()][2] == "cancelled"
    (spec,) = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert parse_spec(json.loads(spec)).source.language == "python"
    assert "make stop" in next_steps(home, api.url, job, env | {"MAKELEVEL": "1"})


def test_doctor_of_a_sound_machine(hzc: Hzc, api: FakeApi) -> None:
    shown = hzc("doctor").stdout
    for name in ("Python", "Disk", "State folder", "Port", "Clock", "KVM", "TPM", "kubectl"):
        assert name in shown
    document = hzc.json("doctor")
    assert document["healthy"] is True
    found = {check["name"]: check for check in document["checks"]}
    assert api.url in found["Port"]["found"]
    assert "9.9.9" in found["Platform"]["found"]
    assert "of the platform's" in found["Clock"]["found"]
    assert "not fetched" in found["Python interpreter (WASM)"]["found"]


def test_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        document = Hzc({"HZC_HOME": str(home), "HZC_PORT": port}).json("doctor", code=1)
    wrong = {check["name"]: check["means"] for check in document["checks"] if check["verdict"] == "missing"}
    assert set(wrong) == {"State folder", "Port"}
    assert f"chmod 700 {home}" in wrong["State folder"]
    assert "HZC_PORT" in wrong["Port"]


def test_doctor_notices_another_clock(hzc: Hzc, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.date = "Thu, 01 Jan 2026 00:00:00 GMT"
    clock = next(check for check in hzc.json("doctor", code=1)["checks"] if check["name"] == "Clock")
    assert clock["verdict"] == "missing"


def test_version(hzc: Hzc) -> None:
    assert __version__ in hzc("version").stdout
    assert hzc.json("version")["version"] == __version__


def test_version_imports_nothing_heavy() -> None:
    heavy = ["pydantic", "rich.console", "urllib3", "wasmtime", "yaml", "uvicorn", "hanzo_compute_host.supervisor"]
    code = (
        f"import sys; sys.argv = ['hzc', 'version']\nfrom hanzo_compute_host.cli.main import main\n"
        f"try: main()\nexcept SystemExit: print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(hzc: Hzc, shell: str) -> None:
    script = hzc("completion", shell).stdout
    assert "_HZC_COMPLETE" in script
    assert hzc.json("completion", shell)["script"] + "\n" == script


def test_completion_completes() -> None:
    env = os.environ | {"_HZC_COMPLETE": "bash_complete", "COMP_WORDS": "hzc re", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from hanzo_compute_host.cli.main import main; main()"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == {
        "plain,receipt",
        "plain,regimes",
        "plain,replay",
        "plain,restart",
        "plain,result",
        "plain,rerun",
        "plain,restore",
    }


def test_every_command_has_help(hzc: Hzc) -> None:
    shown = hzc("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in shown
        assert hzc(name, "--help").stdout.startswith("Usage: ")
    assert set(COMMANDS) == set(cli.list_commands(None))  # type: ignore[arg-type]


def test_doctor_that_is_held_up_sees_no_jump_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven seconds between a look at the one clock and at the other, once."""
    steady, wall = iter([0.0, 7.0, 7.0, 7.1, 7.1, 7.3]), iter([100.0, 107.1, 107.2])
    looked = SimpleNamespace(monotonic=lambda: next(steady), time=lambda: next(wall))
    monkeypatch.setattr(checks, "time", looked)
    assert checks._wall_ahead() == pytest.approx(100.0)


def test_doctor_notices_a_clock_that_jumps(hzc: Hzc, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = iter([100.0, 105.5])
    monkeypatch.setattr(checks, "_wall_ahead", lambda: next(ahead))
    clock = next(check for check in hzc.json("doctor", code=1)["checks"] if check["name"] == "Clock")
    assert clock["found"] == "it jumped by 5.5 s just now"
