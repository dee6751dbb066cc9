"""sendense restore: one disk of a restore point to a local file."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sendense import TargetExists
from sendense.cli import failures, text
from sendense.cli.options import DiskArgument, RestorePointArgument
from sendense.cli.output import print_json
from sendense.cli.progress import restore_callback
from sendense.cli.state import HubOption, JsonOption, connected, err, out
from sendense.cli.transfers import show_transfers
from sendense.restore.target import TO_REPLACE


class Format(StrEnum):
    """--format."""

    RAW = "raw"
    QCOW2 = "qcow2"


def _check_output(output: Path) -> Path:
    if output == Path():
        raise typer.BadParameter("the name of the file to write is missing")
    if output == Path("-"):
        raise typer.BadParameter("a disk is not written to standard output; name a file")
    return output


def _file_at(path: Path) -> tuple[int, int] | None:
    """What tells one file from another under the same name; None without one."""
    try:
        facts = path.lstat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def restore(
    context: typer.Context,
    job: RestorePointArgument,
    disk: DiskArgument,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write.", callback=_check_output
        ),
    ],
    file_format: Annotated[
        Format, typer.Option("--format", help="Sparse raw, or flat compressed QCOW2.")
    ] = Format.RAW,
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE when it exists, once all is restored.")
    ] = False,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore a disk of a backup to a file.

    Every cluster and the whole disk are checked against their digests, and the
    data is on stable storage, before the file gets its name.
    """
    with connected(context) as (client, state):
        before = _file_at(output)
        try:
            with show_transfers(err(), moved_label="received") as transfers:
                result = client.restore_disk(
                    job,
                    disk,
                    output,
                    file_format.value,
                    overwrite=force,
                    progress=restore_callback(transfers),
                )
        except TargetExists as error:
            message = error.message.replace(TO_REPLACE, "use --force")
            raise TargetExists(message, reason=error.reason, metadata=error.metadata) from error
        except KeyboardInterrupt:
            # After the file got its name, at the very end, all of it is there.
            outcome = "was not written" if _file_at(output) == before else "is complete"
            raise typer.Exit(
                failures.report_interrupted(f"interrupted; {output} {outcome}", as_json=state.json)
            ) from None
        if state.json:
            # As protobuf's JSON form: 64-bit numbers are texts.
            print_json(
                {
                    "path": str(result.path),
                    "format": result.format,
                    "capacity_bytes": str(result.capacity_bytes),
                    "root_digest": result.root_digest,
                    "cluster_count": str(result.cluster_count),
                    "payload_bytes": str(result.payload_bytes),
                    "imported": result.imported,
                }
            )
            return
        digest = f"digest {result.root_digest[:16]}…"
        out().print(
            f"{text.plain(str(result.path))}: disk {disk} of {text.plain(job)}, "
            f"{text.size(result.capacity_bytes)} {result.format}, {digest} "
            f"{'as the hub read it' if result.imported else 'as backed up'}",
            soft_wrap=True,
        )
        if result.imported:
            err().print(
                "remark: an imported backup has no digests of its own; that the file is what the "
                "hub read was checked, that it is what was once backed up cannot be",
                soft_wrap=True,
            )
