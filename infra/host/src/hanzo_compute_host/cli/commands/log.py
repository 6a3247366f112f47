"""`hzc log`: the platform's transparency log, watched and verified."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import click

from hanzo_compute import errors
from hanzo_compute.transparency.merkle import BulkRoot
from hanzo_compute_host.cli import witness
from hanzo_compute_host.cli.commands.receipt import read_receipt, tell
from hanzo_compute_host.cli.home import find_endpoint
from hanzo_compute_host.cli.known import open_known
from hanzo_compute_host.cli.progress import Progress
from hanzo_compute_host.cli.render import print_pairs
from hanzo_compute_host.cli.session import Session, client_options, output_option, pass_session

LEAF: Final = 32
CHUNK: Final = 4096 * LEAF
SHOW_AFTER_S: Final = 2.0


@click.group()
def log() -> None:
    """The platform's transparency log: hashes of everything that was billed, only ever appended to."""


@log.command("checkpoint")
@client_options
@pass_session
def checkpoint(session: Session) -> None:
    """Fetch the newest checkpoint, prove that it extends the last one that was seen here, and remember it.

    The exit code is 4 when it does not: the platform has rewritten its past.
    """
    with open_known(session.home) as known:
        point, key, note = witness.look(session.proofs, known)
    tell(session, known)
    if session.json:
        session.print_json({"size": point.size, "root": point.root.hex(), "key": str(key), "note": note})
        return
    print_pairs(
        session.console,
        [("log", key.name), ("leaves", f"{point.size:,}"), ("root", point.root.hex()), ("key", str(key))],
    )


@log.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@client_options
@pass_session
def export(session: Session, file: Path) -> None:
    """Write all leaves to FILE (32 bytes each) and the checkpoint over them to FILE.checkpoint, verified."""
    with open_known(session.home) as known, Progress(SHOW_AFTER_S) as progress:
        point, _, note = witness.look(session.proofs, known)
        with _replacing(file) as target:
            bulk, count = BulkRoot(), 0
            while count < point.size:
                data = session.proofs.entries(count)[: (point.size - count) * LEAF]
                if not data or len(data) % LEAF:
                    short = f"the platform gives no more than {count} of {point.size} leaves"
                    raise errors.Rejected(short, name="entries")
                target.write(data)
                bulk.update(data)
                count += len(data) // LEAF
                progress(f"exporting: {count:,} of {point.size:,} leaves")
            if bulk.root() != point.root:
                raise errors.Rejected("the platform's leaves are not those of its checkpoint", name="entries")
        with _replacing(_beside(file)) as target:
            target.write(note.encode())
    tell(session, known)
    _print(session, file, point.size, point.root)


@log.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--receipt", "receipts", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@output_option
@pass_session
def verify(session: Session, file: Path, receipts: tuple[Path, ...]) -> None:
    """Verify an export (FILE and FILE.checkpoint) without any network, under the pinned key.

    With `--receipt` (repeatable) also that the receipt's leaf is in it. The exit code is 4 when something does
    not hold.
    """
    try:
        note = _beside(file).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise errors.Rejected(f"{_beside(file)} is no checkpoint: {error}", name="checkpoint") from None
    with open_known(session.home) as known, Progress(SHOW_AFTER_S) as progress:
        key = known.platform(note.partition("\n")[0])
        if key is None:
            raise errors.Rejected(
                "the export is of a platform that is not known here", hint="hzc log checkpoint", name="platform_key"
            )
        point = witness.opened(note, key)
        bulk, read = BulkRoot(), 0
        with file.open("rb") as source:
            while data := source.read(CHUNK):
                if len(data) % LEAF:
                    raise errors.Rejected(f"{file} does not end with a whole leaf", name="entries")
                bulk.update(data)
                read += len(data) // LEAF
                progress(f"verifying: {read:,} of {point.size:,} leaves")
        if (read, bulk.root()) != (point.size, point.root):
            raise errors.Rejected(
                f"{file} has {read} leaves that are not those of its checkpoint of {point.size}", name="entries"
            )
        for path in receipts:
            proven = witness.verified(read_receipt(path), known, job=None, platform=key, agents=set())
            if proven.index >= point.size:
                raise errors.Rejected(f"{path}: its leaf {proven.index} is not in this export yet", name="proof.index")
            with file.open("rb") as source:
                source.seek(proven.index * LEAF)
                if source.read(LEAF).hex() != proven.leaf:
                    raise errors.Rejected(f"{path}: the export has another leaf in its place", name="leaf.data")
    _print(session, file, point.size, point.root)


@log.command("forget")
@click.argument("address", metavar="[URL]", required=False)
@client_options
@pass_session
def forget(session: Session, address: str | None) -> None:
    """Forget the pinned log, checkpoint and agents of the platform at URL: it is trusted anew at its next use."""
    address = (address or find_endpoint(session.url, session.key, session.home).url).rstrip("/")
    with open_known(session.home) as known:
        if not known.forget(address):
            raise errors.NotFound(f"nothing is pinned for {address}", hint="hzc log checkpoint")
    session.say(f"forgotten: {address}")


@contextmanager
def _replacing(file: Path) -> Iterator[IO[bytes]]:
    """A file to write, which replaces ``file`` once it is whole."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as target:
            yield target
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.checkpoint")


def _print(session: Session, file: Path, size: int, root: bytes) -> None:
    if session.json:
        session.print_json({"file": str(file), "leaves": size, "root": root.hex(), "valid": True})
    else:
        print_pairs(
            session.console,
            [("export", f"{file}: everything in it holds"), ("leaves", f"{size:,}"), ("root", root.hex())],
        )
