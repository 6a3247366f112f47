"""Runs `hzc` in this process against a platform behind HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner, Result

from hanzo_compute_host.cli.main import cli
from tests.support.fake_api import KEY, FakeApi


@dataclass
class Hzc:
    """The command with its environment; call it with arguments."""

    env: Mapping[str, str]

    @classmethod
    def of(cls, api: FakeApi, home: str) -> Hzc:
        """The command of a user whose environment names a platform."""
        return cls({"HZC_URL": api.url, "HZC_KEY": KEY, "HZC_HOME": home})

    def __call__(self, *args: str, input: bytes | None = None, code: int = 0) -> Result:  # noqa: A002
        """Run it; the exit code must be ``code``."""
        result = CliRunner(env={"HZC_URL": None, "HZC_KEY": None, **self.env}).invoke(cli, args, input=input)
        told = f"hzc {' '.join(args)}: {result.exit_code}\n{result.stdout}\n{result.stderr}"
        assert result.exit_code == code, told
        return result

    def json(self, *args: str, code: int = 0) -> Any:
        """Run it with ``-o json``; the document on standard output."""
        return json.loads(self(*args, "-o", "json", code=code).stdout)
