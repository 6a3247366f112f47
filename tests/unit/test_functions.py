"""Handlers are called as Lambda calls them: with a context, one at a time, and not for ever."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from aws_lambda_powertools import Logger

from hanzo_compute.errors import InternalError, RateLimited
from hanzo_compute_host.functions import Functions, LambdaContext, load
from tests.support.host import manifest_of


def test_the_context_is_lambdas() -> None:
    seen: list[LambdaContext] = []
    functions = Functions(manifest_of({"handler": lambda event, context: seen.append(context)}))
    began = time.monotonic()
    functions.call("handler", {}, "r-1")
    [context] = seen
    assert context.aws_request_id == "r-1"
    assert context.function_name == "handler"
    assert context.memory_limit_in_mb == 512
    assert context.invoked_function_arn.endswith(":function:handler")
    remaining_ms, held_up_ms = context.get_remaining_time_in_millis(), (time.monotonic() - began) * 1000
    assert 27_000 - held_up_ms < remaining_ms <= 28_000


def test_powertools_logger_takes_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    logger = Logger(service="test-of-context")

    @logger.inject_lambda_context
    def handler(event: Any, context: Any) -> str:
        logger.info("inside")
        return "done"

    functions = Functions(manifest_of({"handler": handler}))
    assert functions.call("handler", {}, "r-7") == "done"
    assert '"function_request_id":"r-7"' in capsys.readouterr().out


def test_a_second_call_at_the_same_time_is_refused() -> None:
    """The trap: in threads, handlers built on Powertools' resolvers answer one caller with another's data."""
    inside, leave = threading.Event(), threading.Event()

    def handler(event: Any, context: Any) -> None:
        inside.set()
        assert leave.wait(60)

    functions = Functions(manifest_of({"handler": handler}))
    thread = threading.Thread(target=functions.call, args=("handler", {}, "r-1"))
    thread.start()
    assert inside.wait(60)
    with pytest.raises(RuntimeError, match="one at a time"):
        functions.call("handler", {}, "r-2")
    leave.set()
    thread.join()
    functions.call("handler", {}, "r-3")


@pytest.mark.parametrize("failure", [ValueError("inside"), SystemExit(3)])
def test_a_failure_is_logged_and_hidden(failure: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def handler(event: Any, context: Any) -> None:
        raise failure

    functions = Functions(manifest_of({"handler": handler}))
    with pytest.raises(InternalError) as caught:
        functions.call("handler", {}, "r-9")
    assert "inside" not in caught.value.message
    assert caught.value.__cause__ is None
    [record] = caplog.records
    assert (record.levelno, "r-9" in record.getMessage()) == (logging.ERROR, True)
    assert record.exc_info is not None


def test_the_platforms_errors_pass() -> None:
    def handler(event: Any, context: Any) -> None:
        raise RateLimited("slow down", retry_after_s=3)

    functions = Functions(manifest_of({"handler": handler}))
    with pytest.raises(RateLimited):
        functions.call("handler", {}, "r-1")


@pytest.mark.parametrize(("path", "error"), [("json.nothing", AttributeError), ("no.such.module", ImportError)])
def test_a_handler_that_is_not_there_fails_at_the_start(path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        load(path)
    with pytest.raises(TypeError):
        load("string.digits")


HANGS = """
import time
from hanzo_compute_host import functions
from tests.support.host import manifest_of

functions.WATCHDOG_GRACE_S = -27
def hangs(event, context):
    time.sleep(60)

functions.Functions(manifest_of({"hangs": hangs}), watchdog=True).call("hangs", {}, "r-1")
"""


def test_a_handler_that_hangs_ends_its_process_and_shows_where() -> None:
    process = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=240, check=False)
    assert process.returncode == -14
    assert "in hangs" in process.stderr
