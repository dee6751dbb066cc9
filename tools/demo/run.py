"""`make demo`: the main job from a full backup to a proven restore, in five steps."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from sendense import Backup, BackupStatus, BackupType, Client
from sendense.cli.progress import restore_callback, watch_job
from sendense.cli.text import size
from sendense.cli.transfers import show_transfers
from tools.demo.checks import Findings, layers_of_chain
from tools.demo.guest import VM_NAME, Guest
from tools.demo.guest_files import file_system_is_clean
from tools.demo.report import show_catalog, show_commands_for_layers
from tools.demo.world import World

INCREMENTS: Final = 2


class DemoFailed(Exception):
    """Something that the demo shows did not happen."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The content of summary.json; every value comes from a check or from the catalog."""

    restore_points: int
    disks: int
    identical: bool
    layers_clean: bool
    chain_linear: bool
    bytes_read: int
    bytes_sent: int
    bytes_stored: int
    seconds: float

    @property
    def good(self) -> bool:
        return self.identical and self.layers_clean and self.chain_linear


def run_demo(folder: Path, state: Path, console: Console) -> Summary:
    """Do it all; `folder` gets summary.json, `state` everything else. Raises DemoFailed."""
    began_at = time.monotonic()
    findings = Findings()
    world = World(state)
    guest = Guest(state / "guest", world.apply)
    with ExitStack() as stack:
        with _step(console, 1, f"a simulated ESXi site with the VM {VM_NAME}, a hub, an agent"):
            console.print(f"  {guest.make_disks()}")
            world.start(stack, guest.disk_0, guest.disk_1)
            console.print(f"  hub at {world.hub_address}, agent of site demo connected")
        client = stack.enter_context(Client(world.hub_address))
        with _step(console, 2, "a full backup"):
            jobs = [_back_up(client, console, BackupType.FULL)]
        with _step(console, 3, "the guest works on, incremental backups"):
            for number in range(1, INCREMENTS + 1):
                for sentence in guest.work(number):
                    console.print(f"  {sentence}", highlight=False, soft_wrap=True)
                jobs.append(_back_up(client, console, BackupType.INCREMENTAL))
        with _step(console, 4, "restore of every restore point, compared byte for byte"):
            _prove(client, console, world, guest, jobs, findings)
        with _step(console, 5, "the catalog, as the API tells it"):
            show_catalog(console, list(client.list_contexts(vm_name=VM_NAME)), jobs)
            newest_layer = world.repository / jobs[-1].disks[0].qcow2_path
    summary = Summary(
        restore_points=len(jobs),
        disks=min(len(job.disks) for job in jobs),
        identical=findings.identical,
        layers_clean=findings.layers_clean,
        chain_linear=findings.chain_linear,
        bytes_read=sum(job.bytes_read for job in jobs),
        bytes_sent=sum(job.bytes_transferred for job in jobs),
        bytes_stored=sum(job.bytes_stored for job in jobs),
        seconds=round(time.monotonic() - began_at, 1),
    )
    (folder / "summary.json").write_text(json.dumps(asdict(summary), indent=2) + "\n")
    _show_result(console, summary, findings)
    if summary.good:
        # Two gigabytes that only a search for a fault would need.
        for leftover in (state / "guest", state / "site"):
            shutil.rmtree(leftover)
    show_commands_for_layers(console, newest_layer)
    return summary


def _back_up(client: Client, console: Console, wanted: BackupType) -> Backup:
    started = client.start_backup(VM_NAME, backup_type=wanted)
    job = watch_job(client, started.job_id, console)
    if BackupStatus(job.status) is not BackupStatus.COMPLETED:
        raise DemoFailed(f"backup {job.job_id} did not complete: {job.error.message}")
    if any(BackupType(disk.backup_type) is not wanted for disk in job.disks):
        raise DemoFailed(f"backup {job.job_id} is not {wanted.name.lower()} on every disk")
    return job


def _prove(
    client: Client,
    console: Console,
    world: World,
    guest: Guest,
    jobs: list[Backup],
    findings: Findings,
) -> None:
    """Restore, compare and judge; the results are in `findings`."""
    restored = world.folder / "restored.raw"
    for job in jobs:
        for disk in job.disks:
            with show_transfers(console, moved_label="received") as transfers:
                client.restore_disk(
                    job.job_id,
                    disk.disk_index,
                    restored,
                    overwrite=True,
                    progress=restore_callback(transfers),
                )
            recorded = world.recorded(job.job_id, disk.vmware_disk_key)
            same = findings.restored(job, disk, restored, recorded)
            clean = findings.layer(world.repository / disk.qcow2_path)
            console.print(
                f"  {job.job_id} disk {disk.disk_index}: {_verdict(same, 'identical', 'DIFFERENT')}, "
                f"qemu-img check {_verdict(clean, 'clean', 'COMPLAINS')}",
                highlight=False,
                soft_wrap=True,
            )
            if disk.disk_index == 0:
                _check_file_system(restored, findings, job)
            if job is jobs[-1]:
                layers = layers_of_chain(client, world.repository, job.job_id, disk.disk_index)
                if len(layers) != len(jobs):
                    findings.broken_chains += 1
                    findings.problems.append(f"disk {disk.disk_index} has {len(layers)} layers")
                linear = findings.chain(layers)
                agrees = findings.qemu_agrees(restored, layers[0])
                console.print(
                    f"  chain of {len(layers)} layers: {_verdict(linear, 'linear', 'NOT LINEAR')}; "
                    f"qemu-img compare: {_verdict(agrees, 'identical', 'DIFFERENT')}",
                    highlight=False,
                )
                if disk.disk_index == 0 and not guest.files_are_there(restored):
                    findings.differing += 1
                    findings.problems.append(
                        "a file that the guest wrote is not in the newest point"
                    )
    restored.unlink()


def _check_file_system(restored: Path, findings: Findings, job: Backup) -> None:
    if not file_system_is_clean(restored):
        findings.differing += 1
        findings.problems.append(f"e2fsck finds faults in disk 0 of {job.job_id}")


@contextmanager
def _step(console: Console, number: int, title: str) -> Iterator[None]:
    console.print(f"\n[bold cyan]{number}[/] [bold]{title}[/]")
    began_at = time.monotonic()
    yield
    console.print(f"  [dim]{time.monotonic() - began_at:.1f} s[/]", highlight=False)


def _show_result(console: Console, summary: Summary, findings: Findings) -> None:
    for problem in findings.problems:
        console.print(f"  {problem}", style="red", markup=False)
    style = "bold green" if summary.good else "bold red"
    console.print(
        f"\n{summary.restore_points} restore points of {summary.disks} disks: "
        f"{_verdict(summary.identical, 'all identical', 'NOT IDENTICAL')}, layers "
        f"{_verdict(summary.layers_clean, 'clean', 'NOT CLEAN')}, chains "
        f"{_verdict(summary.chain_linear, 'linear', 'NOT LINEAR')}. "
        f"{size(summary.bytes_read)} read, {size(summary.bytes_sent)} sent, "
        f"{size(summary.bytes_stored)} stored, {summary.seconds:.0f} s.",
        style=style,
        highlight=False,
    )


def _verdict(good: bool, yes: str, no: str) -> str:
    return yes if good else no
