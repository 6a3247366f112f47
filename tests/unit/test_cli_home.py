"""Which platform a command talks to, and that a key goes nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hanzo_compute import errors
from hanzo_compute_host.cli.home import Endpoint, find_endpoint, find_home, find_port, read_credentials
from tests.support.cli import Hzc

URL = "http://127.0.0.1:8787"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write(tmp_path, {"url": URL, "key": "hzk_stored"})
    return tmp_path


def write(home: Path, value: object, mode: int = 0o600) -> Path:
    path = home / "credentials.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    path.chmod(mode)
    return path


def test_home_by_variable_then_here_then_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_home({"XDG_STATE_HOME": "/state"}) == Path("/state/hanzo-compute")
    assert find_home({}) == Path.home() / ".local" / "state" / "hanzo-compute"
    (tmp_path / ".hzc").mkdir()
    assert find_home({"XDG_STATE_HOME": "/state"}) == tmp_path / ".hzc"
    assert find_home({"HZC_HOME": "elsewhere"}) == tmp_path / "elsewhere"


@pytest.mark.parametrize("value", ["x", "0", "65536", "-1", "1e3"])
def test_a_bad_port_is_named(value: str) -> None:
    with pytest.raises(errors.InvalidRequest, match="HZC_PORT"):
        find_port({"HZC_PORT": value})


def test_port() -> None:
    assert (find_port({}), find_port({"HZC_PORT": "9000"})) == (8787, 9000)


def test_flags_then_environment_then_file(home: Path) -> None:
    environ = {"HZC_URL": "http://b:1", "HZC_KEY": "hzk_env"}
    assert find_endpoint("http://a:1", "hzk_flag", home, environ) == Endpoint("http://a:1", "hzk_flag")
    assert find_endpoint(None, None, home, environ) == Endpoint("http://b:1", "hzk_env")
    assert find_endpoint(None, None, home, {}) == Endpoint(URL, "hzk_stored")
    assert find_endpoint(None, None, home, {"HZC_KEY": "hzk_env"}) == Endpoint(URL, "hzk_env")


@pytest.mark.parametrize("url", ["http://localhost:8787", "http://[::1]:8787/", URL])
def test_loopback_by_another_name_is_the_same_place(home: Path, url: str) -> None:
    assert find_endpoint(url, None, home, {}).key == "hzk_stored"


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8788", "https://127.0.0.1:8787", "http://evil.example:8787", "http://127.0.0.1.evil:8787"],
)
def test_a_stored_key_goes_nowhere_else(home: Path, url: str) -> None:
    with pytest.raises(errors.Unauthenticated):
        find_endpoint(url, None, home, {})


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_credentials_that_others_can_touch_prove_nothing(home: Path, mode: int) -> None:
    (home / "credentials.json").chmod(mode)
    with pytest.raises(errors.PermissionDenied, match="others"):
        read_credentials(home)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "x"}', '"x"'])
def test_broken_credentials_are_named(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with pytest.raises(errors.InvalidRequest, match=r"credentials\.json"):
        read_credentials(tmp_path)


def test_no_platform_is_known(tmp_path: Path) -> None:
    hzc = Hzc({"HZC_HOME": str(tmp_path)})
    result = hzc("ls", code=6)
    assert "hzc up" in result.stderr
    problem = json.loads(hzc("ls", "-o", "json", code=6).stderr)
    assert problem["code"] == "unavailable"


def test_an_address_without_a_key(tmp_path: Path) -> None:
    result = Hzc({"HZC_HOME": str(tmp_path), "HZC_URL": URL})("ls", code=4)
    assert "HZC_KEY" in result.stderr


@pytest.mark.parametrize("key", ["hzk_a\nb", "hzk_a b", "hzk_ä", "x" * 129])
def test_a_key_that_is_none_is_not_shown(home: Path, key: str) -> None:
    with pytest.raises(errors.InvalidRequest) as raised:
        find_endpoint(URL, key, home, {})
    assert key not in str(raised.value)


def test_a_line_end_of_another_system_is_no_part_of_a_key(home: Path) -> None:
    assert find_endpoint(None, None, home, {"HZC_URL": URL, "HZC_KEY": "hzk_x\r\n"}).key == "hzk_x"


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://a b", "ftp://a", "http://", "127.0.0.1:8787"])
def test_an_address_that_is_none_is_a_usage_error(home: Path, url: str) -> None:
    ran = Hzc({"HZC_URL": url, "HZC_KEY": "hzk_x", "HZC_HOME": str(home)})("ls", code=2)
    assert "not the address of a platform" in ran.stderr


def test_a_home_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = Hzc({"HZC_HOME": str(tmp_path / "file")})("ls", code=2)
    assert "Not a directory" in ran.stderr
