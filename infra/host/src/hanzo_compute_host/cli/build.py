"""From a file and options to a job spec, uploading what is too large to travel inline."""

from __future__ import annotations

import base64
import json
import re
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from hanzo_compute import errors
from hanzo_compute.model.bounds import BLOB_MAX, INLINE_MAX, KIB, MIB
from hanzo_compute.security import sealed
from hanzo_compute_host.cli import data_keys
from hanzo_compute_host.cli.folder import packed
from hanzo_compute_host.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])
Spec = dict[str, Any]

PROFILES: Final = ("fast", "deterministic")
LANGUAGES: Final = {".py": "python", ".js": "javascript"}
_FILE: Final = click.Path(exists=True, path_type=Path)
_UNITS: Final = {"": 1, "k": KIB, "m": MIB, "g": KIB * MIB}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def memory(value: str) -> int:
    """MiB; a bare number is MiB too."""
    return _quantity(value, {"": 1, "m": 1, "g": KIB})


def byte_count(value: str) -> int:
    """Bytes, from a number with or without a unit."""
    return _quantity(value, _UNITS)


def seconds(value: str) -> int:
    """Seconds, from a number with or without a unit."""
    return _quantity(value, _SECONDS)


def pair(value: str) -> tuple[str, str]:
    """``name=value`` as name and value."""
    name, equals, rest = value.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{value!r} does not look like name=value")
    return name, rest


def moment(value: str) -> str:
    """A time in RFC 3339, from a duration from now; another text is left for the platform to judge."""
    if re.fullmatch(r"\d+[smhd]", value) is None:
        return value
    then = datetime.now(UTC) + timedelta(seconds=seconds(value))
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quantity(value: str, units: dict[str, int]) -> int:
    found = re.fullmatch(r"(\d{1,15})([a-z]?)", value.lower().removesuffix("ib"))
    if found is None or found[2] not in units:
        raise click.BadParameter(f"{value!r} is not a number, nor one with a unit of {' '.join(units).strip()}")
    return int(found[1]) * units[found[2]]


_OPTIONS: Final = (
    click.option(
        "--function", metavar="NAME[@REF]", help="Instead of FILE: a function that is deployed, or a version."
    ),
    click.option("--entry", metavar="PATH", help="With a folder as FILE: its file to begin with (main.py, main.js)."),
    click.option("--input", "input_", metavar="FILE|-", help="What the program reads on standard input."),
    click.option("--profile", type=click.Choice(PROFILES), help="How it runs; `deterministic` needs --fuel."),
    click.option("--env", type=pair, metavar="K=V", multiple=True, help="Environment variable; repeatable."),
    click.option("--memory", type=memory, metavar="MIB", help="Memory of the sandbox: 256, 512m, 1g."),
    click.option("--timeout", type=seconds, metavar="SECONDS", help="Time of one attempt: 90, 5m, 1h."),
    click.option("--fuel", type=click.IntRange(min=1), help="WASM instructions that one attempt may execute."),
    click.option("--retry", type=click.IntRange(min=0), help="Further attempts after a failure."),
    click.option("--deadline", type=moment, metavar="TIME", help="When it expires: RFC 3339, or 10m, 2h, 1d."),
    click.option(
        "--privacy-tier",
        type=click.IntRange(0, 4),
        help="Seal input and outputs; only a runner that proves this tier gets the key.",
    ),
    click.option("--label", type=pair, metavar="K=V", multiple=True, help="To find the job by; repeatable."),
    click.option("--log-limit", type=byte_count, metavar="BYTES", help="Log that is kept: 65536, 256k, 2m."),
    click.option("--max-price", metavar="UNITS", help="Refuse the job if it could cost more: base units, as quoted."),
    click.option("--idempotency-key", help="The same key and job submitted again is the same job."),
)


def job_options(command: F) -> F:
    """Adds FILE, ARGS and the options that describe a job; the command gets them by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    command = click.argument("args", nargs=-1, type=click.UNPROCESSED)(command)
    return click.argument("file", required=False)(command)


def build_spec(session: Session, file: str | None, args: tuple[str, ...], given: dict[str, Any]) -> Spec:
    """The spec that FILE, ARGS and options describe; options win over what a spec file says."""
    if given["function"] is not None and given["entry"] is not None:
        raise click.UsageError("--entry names a file of a folder, and --function is none")
    if given["function"] is not None:  # then the first word after the options is an argument, too
        spec: Spec = {"source": {"function": given["function"]}}
        args = args if file is None else (file, *args)
    elif file is None:
        raise click.UsageError("Missing argument 'FILE'.", click.get_current_context(silent=True))
    else:
        spec = spec_of_file(session, _FILE.convert(file, None, None), given["entry"])
    if args:
        spec["args"] = list(args)
    if given["input_"] is not None and given["privacy_tier"] is not None:
        data = _bounded(_read(given["input_"]), given["input_"], BLOB_MAX - sealed.OVERHEAD)
        spec["input"] = {"inline_base64": base64.b64encode(data).decode()}
    elif given["input_"] is not None:
        spec["input"] = _input(session, given["input_"])
    for name, option in (("env", "env"), ("labels", "label")):
        if given[option]:
            spec[name] = {**spec.get(name, {}), **dict(given[option])}
    if given["privacy_tier"] is not None:
        _seal(session, spec, given["privacy_tier"])
    resources = {"memory_mib": given["memory"], "timeout_s": given["timeout"], "fuel": given["fuel"]}
    resources = {name: value for name, value in resources.items() if value is not None}
    if resources:
        spec["resources"] = {**spec.get("resources", {}), **resources}
    if given["retry"] is not None:
        spec["retry"] = {**spec.get("retry", {}), "max_attempts": given["retry"] + 1}
    if given["max_price"] is not None:
        spec["max_price"] = _max_price(session, spec, given["max_price"])
    for name in ("profile", "deadline", "log_limit"):
        if given[name] is not None:
            spec[name] = given[name]
    return spec


def _seal(session: Session, spec: Spec, tier: int) -> None:
    """Make a key for the job, kept here, and seal its input with it."""
    key, spec["data_key"] = data_keys.new(session.home)
    spec["privacy_tier"] = tier
    given = spec.get("input")
    if given is None:
        return
    if not isinstance(given, dict) or "blob" in given:
        raise click.UsageError("a spec's input that is a blob cannot be sealed: give it by --input")
    inline = given.get("inline_base64")
    data = str(given.get("inline", "")).encode() if inline is None else base64.b64decode(inline)
    box = sealed.seal(key, sealed.INPUT, data)
    if len(box) > INLINE_MAX:
        spec["input"] = {"blob": session.jobs.upload_blob(box)}
    else:
        spec["input"] = {"inline_base64": base64.b64encode(box).decode()}


def _max_price(session: Session, spec: Spec, text: str) -> dict[str, str]:
    """In the token that the platform bills in: it is asked, unless the spec names one."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,77}", text):
        raise click.BadParameter(f"{text!r} is no whole number of base units", param_hint="--max-price")
    named = spec.get("max_price")
    if isinstance(named, dict) and "token" in named:
        return {"token": named["token"], "units": text}
    asked = {name: value for name, value in spec.items() if name != "max_price"}
    return {"token": str(session.proofs.quote(asked)["token"]), "units": text}


def source_of(session: Session, file: Path, entry: str | None = None) -> dict[str, str] | None:
    """The program in a file or folder as a spec's source, what is a blob uploaded; None for a file of another kind."""
    if file.is_dir():
        made = packed(file, entry)
        return {"package": session.jobs.upload_blob(made.data), "language": made.language, "entry": made.entry}
    if entry is not None:
        raise click.UsageError(f"--entry names a file of a folder, and {file} is none")
    if file.suffix == ".wasm":
        return {"module": session.jobs.upload_blob(_bounded(file.read_bytes(), str(file)))}
    language = LANGUAGES.get(file.suffix)
    return None if language is None else {"code": _code(file), "language": language}


def spec_of_file(session: Session, file: Path, entry: str | None = None) -> Spec:
    """The spec that FILE alone describes, or a folder and its file ``entry``."""
    if file.suffix == ".json" and file.is_file() and entry is None:
        return _whole_spec(file)
    source = source_of(session, file, entry)
    if source is not None:
        return {"source": source}
    raise click.UsageError(
        f"{file}: not a kind of program that is known here; give a .py, .js, .wasm or .json file, or a folder"
    )


def _code(file: Path) -> str:
    data = file.read_bytes()
    if len(data) > INLINE_MAX:
        raise errors.PayloadTooLarge(
            f"{file} has {len(data)} bytes; source code may have {INLINE_MAX}",
            hint="move its data to a file for --input, or give a folder of several files",
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None


def _whole_spec(file: Path) -> Spec:
    try:
        spec = json.loads(file.read_bytes())
    except ValueError as error:
        raise click.UsageError(f"{file} is not JSON: {error}") from None
    if not isinstance(spec, dict):
        raise click.UsageError(f"{file} does not hold a job spec: it must be a JSON object")
    return spec


def _input(session: Session, name: str) -> dict[str, str]:
    data = _bounded(_read(name), name)
    if len(data) > INLINE_MAX:
        return {"blob": session.jobs.upload_blob(data)}
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return {"inline_base64": base64.b64encode(data).decode()}
    return {"inline": text}


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read(BLOB_MAX + 1)
    try:
        with Path(name).open("rb") as file:
            return file.read(BLOB_MAX + 1)
    except OSError as error:
        raise click.BadParameter(f"{name}: {error.strerror}", param_hint="--input") from None


def _bounded(data: bytes, name: str, most: int = BLOB_MAX) -> bytes:
    if len(data) > most:
        raise errors.PayloadTooLarge(f"{name} is over {most} bytes", hint="send less, or in several jobs")
    return data


def new_idempotency_key() -> str:
    """A key that no one else uses: it makes a repeated submit safe."""
    return f"hzc-{time.time_ns():x}-{secrets.token_hex(8)}"
