"""`hzc adapter`: fine-tunes of one base model as BitDeltas - compress, merge, report. Files alone, no platform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hanzo_compute import errors
from hanzo_compute_host.cli.escape import escape_line
from hanzo_compute_host.cli.progress import Progress
from hanzo_compute_host.cli.render import print_pairs, print_table, size
from hanzo_compute_host.cli.session import Session, json_option, output_option, pass_session

if TYPE_CHECKING:
    from hllm.bitdelta import Report, Tensor

SHOW_AFTER_S = 2.0

_model = click.Path(exists=True, dir_okay=False, path_type=Path)
_made = click.option(
    "-o", "--out", "target", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write."
)
_force = click.option("--force", is_flag=True, help="Overwrite the file of -o.")


@click.group()
def adapter() -> None:
    """Fine-tunes of one model as BitDeltas: a bit per weight, and a scale per matrix."""


@adapter.command("compress")
@click.argument("base", type=_model)
@click.argument("tuned", type=_model)
@_made
@click.option("--bits", type=click.IntRange(1, 16), default=1, show_default=True, help="Bits per weight.")
@click.option("--per-row", is_flag=True, help="A scale for each row instead of one per matrix.")
@click.option(
    "--rank", type=click.IntRange(min=0), default=0, show_default=True, help="Keep the residual's rank-R part."
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Keep these tensors whole [default: *embed*, *lm_head*]; repeatable.",
)
@click.option("--inputs", type=_model, help="Fit scales to these inputs of layers: safetensors, by the matrix's name.")
@_force
@json_option
@pass_session
def compress_command(  # noqa: PLR0913 - one parameter per option
    session: Session,
    *,
    base: Path,
    tuned: Path,
    target: Path,
    bits: int,
    per_row: bool,
    rank: int,
    exclude: tuple[str, ...],
    inputs: Path | None,
    force: bool,
) -> None:
    """Write what TUNED changed of BASE as a delta; both are safetensors files.

    Changed matrices become signs and scales, other changes are kept whole. Models are read matrix by matrix and need
    not fit in memory.
    """
    from hllm.bitdelta import Options, compress, report, safetensors

    _may_write(target, force)
    with _told(), Progress(SHOW_AFTER_S) as progress:
        options = Options(planes=bits, per_row=per_row, rank=rank, **({"exclude": exclude} if exclude else {}))
        with safetensors.File(base) as old, safetensors.File(tuned) as new:
            calibration = None
            if inputs is not None:
                with safetensors.File(inputs) as given:
                    calibration = {name: given[name].floats(repr(name)) for name in given}
            delta = compress(old, _Watched(new, progress), options, calibration)
            delta.save(target)
        made = report(delta)
    _tell(session, target, made, {"base": delta.base, "size": target.stat().st_size})
    session.say(f"{tuned.name}: {size(tuned.stat().st_size)}; {target.name}: {size(target.stat().st_size)}")


@adapter.command("merge")
@click.argument("base", type=_model)
@click.argument("delta", type=_model)
@_made
@_force
@json_option
@pass_session
def merge_command(session: Session, base: Path, delta: Path, target: Path, force: bool) -> None:
    """Write BASE with DELTA added as a model of its own; BASE must be the one that the delta was made of."""
    from hllm.bitdelta import Delta, merge_file, safetensors

    _may_write(target, force)
    with _told(), Progress(SHOW_AFTER_S) as progress, safetensors.File(base) as old:
        found = Delta.load(delta)
        merge_file(_Watched(old, progress), found, target)
    if session.json:
        session.print_json({"file": str(target), "base": found.base, "size": target.stat().st_size})
    else:
        click.echo(escape_line(str(target)))


@adapter.command("report")
@click.argument("delta", type=_model)
@output_option
@pass_session
def report_command(session: Session, delta: Path) -> None:
    """Show what DELTA takes and what it misses, matrix by matrix.

    ERROR is the size of what was lost beside the size of the change: 0.60 is usual for one bit.
    """
    from hllm.bitdelta import Delta, report

    with _told():
        found = Delta.load(delta)
        made = report(found)
    if not session.json and made.matrices:
        print_table(
            session.console,
            ["MATRIX", "SHAPE", "BITS", "SCALES", "RANK", "FINE-TUNE", "DELTA", "ERROR"],
            [
                [
                    line.name,
                    "x".join(map(str, line.shape)),
                    line.planes,
                    "rows" if line.per_row else "one",
                    line.rank,
                    size(line.tuned_bytes),
                    size(line.delta_bytes),
                    f"{line.relative_error:.3f}",
                ]
                for line in made.matrices
            ],
        )
    _tell(session, delta, made, {"base": found.base, "size": delta.stat().st_size})


def _tell(session: Session, file: Path, made: Report, more: Mapping[str, Any]) -> None:
    if session.json:
        lines = [
            {
                "name": line.name,
                "shape": line.shape,
                "bits": line.planes,
                "per_row": line.per_row,
                "rank": line.rank,
                "tuned_bytes": line.tuned_bytes,
                "delta_bytes": line.delta_bytes,
                "relative_error": line.relative_error,
            }
            for line in made.matrices
        ]
        totals = {
            "tuned_bytes": made.tuned_bytes,
            "delta_bytes": made.delta_bytes,
            "whole_bytes": made.whole_bytes,
            "relative_error": made.relative_error,
        }
        session.print_json({"file": str(file), **more, **totals, "matrices": lines, "whole": dict(made.whole)})
        return
    changed = f"{len(made.matrices)} matrices"
    if made.matrices:
        changed += f", {size(made.tuned_bytes)} as {size(made.delta_bytes)}: {made.ratio:.1f} times smaller"
    print_pairs(
        session.console,
        [
            ("delta", f"{file}, {size(more['size'])}"),
            ("base", more["base"]),
            ("changed", changed),
            ("kept whole", f"{len(made.whole)} tensors, {size(made.whole_bytes)}"),
            ("error", f"{made.relative_error:.3f} of the change's size"),
        ],
    )


class _Watched(Mapping[str, "Tensor"]):
    """A model that says which tensor is read."""

    def __init__(self, model: Mapping[str, Tensor], say: Progress) -> None:
        self._model, self._say = model, say

    def __getitem__(self, name: str) -> Tensor:
        self._say(f"reading: {name}")
        return self._model[name]

    def __contains__(self, name: object) -> bool:
        return name in self._model

    def __iter__(self) -> Iterator[str]:
        return iter(self._model)

    def __len__(self) -> int:
        return len(self._model)


def _may_write(target: Path, force: bool) -> None:
    if target.exists() and not force:
        raise errors.Conflict(f"{target} is there already", hint="--force overwrites it")


@contextmanager
def _told() -> Iterator[None]:
    """The engine's refusals as errors of this command."""
    from hllm.errors import HllmError

    try:
        yield
    except HllmError as error:
        raise errors.InvalidRequest(str(error)) from None
