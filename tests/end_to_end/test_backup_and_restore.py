"""The main job: back up, incrementally, and get every byte of every point back."""

import random
import threading
from pathlib import Path

import pytest

from sendense import Client
from sendense.v1 import backup_pb2 as pb
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.end_to_end.processes import Agent, Hub
from tests.end_to_end.restores import Restorer, Witness
from tests.end_to_end.shared_installation import agent, client, hub, installation, site

MIB = 1 << 20
CLUSTER = 65536
COMPLETED = pb.BACKUP_STATUS_COMPLETED

__all__ = ["agent", "client", "hub", "installation", "site"]


def _scribble(vm: SimulatedVm, seed: int) -> None:
    """Writes, overwrites, zeroes and trims on every disk; small and large, on and off the grid."""
    dice = random.Random(seed)
    for disk in vm.disks:
        for _ in range(6):
            length = dice.choice([1, 512, 4096, CLUSTER, 3 * CLUSTER + 17])
            start = dice.randrange(0, disk.capacity_bytes - length)
            disk.write(start, dice.randbytes(length))
        for change in (disk.zero, disk.trim):
            start = dice.randrange(0, disk.capacity_bytes // CLUSTER - 8) * CLUSTER
            change(start, 4 * CLUSTER)


def _back_up(client: Client, vm: str, **options: object) -> pb.Backup:
    job = client.start_backup(vm, **options)  # type: ignore[arg-type]
    job = client.wait(job.job_id, timeout_s=60)
    assert job.status == COMPLETED, job
    return job


@pytest.mark.parametrize("transport", ["nbdssl", "nbd"])
def test_every_restore_point_of_a_chain_comes_back_byte_for_byte(
    tmp_path: Path, site: SimulatedSite, hub: Hub, transport: str
) -> None:
    name = f"pgtest-{transport}"
    vm = site.add_vm(
        name,
        disks=[
            DiskSpec(capacity_bytes=48 * MIB, content=random.Random(1).randbytes(9 * MIB)),
            # No multiple of 64 KiB, and data in the very last sector.
            DiskSpec(capacity_bytes=16 * MIB + 512 * 3, content=b"second disk" * 100_000),
        ],
    )
    vm.disks[1].write(16 * MIB + 512 * 2, b"E" * 512)
    agent = Agent(tmp_path / "agent", site, hub, name=transport, transport=transport)
    agent.start()
    agent.wait_reported(name)
    try:
        with hub.client() as client:
            restorer = Restorer(tmp_path / "restored", client, hub)
            points: list[tuple[pb.Backup, list[Witness]]] = []
            for step in range(4):
                if step:
                    _scribble(vm, seed=step)
                witnesses = [Witness.of_disk(disk) for disk in vm.disks]
                points.append((_back_up(client, name, site=transport), witnesses))

            assert [job.backup_type for job, _ in points] == [
                pb.BACKUP_TYPE_FULL,
                *[pb.BACKUP_TYPE_INCREMENTAL] * 3,
            ]
            for position, (job, witnesses) in enumerate(points):
                for index, witness in enumerate(witnesses):
                    assert restorer.restore(job.job_id, index) == witness
                    assert restorer.restore_with_qemu(job.job_id, index) == witness
                    restorer.assert_clean(job.job_id, index)
                    # Linear: each layer is backed by the layer before it (field failure 1).
                    assert restorer.backing_chain(job.job_id, index) == [
                        restorer.layer(older.job_id, index).resolve()
                        for older, _ in reversed(points[: position + 1])
                    ]
                    disk = client.get_disk(job.job_id, index).disk
                    assert disk.base_job_id == (points[position - 1][0].job_id if position else "")
            assert vm.snapshots == []
    finally:
        agent.stop()


def test_an_increment_sends_what_changed_and_no_more(
    site: SimulatedSite, agent: Agent, client: Client
) -> None:
    vm = site.add_vm(
        "small-change",
        disks=[DiskSpec(capacity_bytes=64 * MIB, content=random.Random(5).randbytes(20 * MIB))],
    )
    agent.wait_reported("small-change")
    full = _back_up(client, "small-change")
    vm.disks[0].write(10 * CLUSTER, b"x" * 100)
    vm.disks[0].write(200 * CLUSTER, random.Random(6).randbytes(CLUSTER))
    increment = _back_up(client, "small-change")
    assert full.bytes_read >= 20 * MIB
    assert increment.bytes_read == 2 * CLUSTER
    assert 0 < increment.bytes_transferred <= 2 * CLUSTER
    nothing = _back_up(client, "small-change")
    assert nothing.bytes_transferred == 0


def test_a_huge_thin_disk_costs_what_its_data_costs(
    site: SimulatedSite, agent: Agent, client: Client, restorer: Restorer
) -> None:
    gib = 1 << 30
    vm = site.add_vm("thin", disks=[DiskSpec(capacity_bytes=102 * gib)])
    disk = vm.disks[0]
    marks = {0: b"first", 51 * gib - 3: b"across a boundary", 102 * gib - 512: b"L" * 512}
    for start, text in marks.items():
        disk.write(start, text)
    agent.wait_reported("thin")
    job = _back_up(client, "thin")
    assert job.bytes_read <= 8 * MIB
    assert job.bytes_stored <= 4 * MIB
    restorer.assert_clean(job.job_id, 0)
    target = restorer.layer(job.job_id, 0).parent.parent.parent / "thin.raw"
    client.restore_disk(job.job_id, 0, target)
    assert target.stat().st_size == 102 * gib
    assert target.stat().st_blocks * 512 <= 1 * MIB
    with target.open("rb") as file:
        for start, text in marks.items():
            file.seek(start)
            assert file.read(len(text)) == text


def test_writes_during_the_backup_stay_out_of_it(
    site: SimulatedSite, agent: Agent, client: Client, restorer: Restorer
) -> None:
    vm = site.add_vm(
        "busy",
        disks=[DiskSpec(capacity_bytes=64 * MIB, content=random.Random(9).randbytes(40 * MIB))],
    )
    agent.wait_reported("busy")
    disk = vm.disks[0]
    before = Witness.of_disk(disk)
    job = client.start_backup("busy")
    stop = threading.Event()

    def guest() -> None:
        dice = random.Random(10)
        while not stop.is_set():
            disk.write(dice.randrange(0, 64 * MIB - CLUSTER), dice.randbytes(CLUSTER))
            stop.wait(0.001)

    writer: threading.Thread | None = None
    for state in client.watch(job.job_id):
        if writer is None and state.status == pb.BACKUP_STATUS_RUNNING:
            # The snapshot stands from here on.
            writer = threading.Thread(target=guest)
            writer.start()
    stop.set()
    assert writer is not None
    writer.join()
    assert Witness.of_disk(disk) != before
    assert client.get_backup(job.job_id).status == COMPLETED
    assert restorer.restore(job.job_id, 0) == before
    # What was written meanwhile is in the next increment.
    after = Witness.of_disk(disk)
    increment = _back_up(client, "busy")
    assert increment.backup_type == pb.BACKUP_TYPE_INCREMENTAL
    assert restorer.restore(increment.job_id, 0) == after


def test_trimmed_and_zeroed_areas_do_not_bring_old_data_back(
    site: SimulatedSite, agent: Agent, client: Client, restorer: Restorer
) -> None:
    """Field failure 12."""
    vm = site.add_vm("trim", disks=[DiskSpec(capacity_bytes=8 * MIB, content=b"old!" * MIB)])
    agent.wait_reported("trim")
    _back_up(client, "trim")
    vm.disks[0].trim(0, MIB)
    vm.disks[0].zero(2 * MIB, MIB)
    witness = Witness.of_disk(vm.disks[0])
    job = _back_up(client, "trim")
    assert job.backup_type == pb.BACKUP_TYPE_INCREMENTAL
    assert restorer.restore(job.job_id, 0) == witness
    assert restorer.restore_with_qemu(job.job_id, 0) == witness


def test_an_explicit_full_stands_alone(
    site: SimulatedSite, agent: Agent, client: Client, restorer: Restorer
) -> None:
    """Field failure 2."""
    vm = site.add_vm("again", disks=[DiskSpec(capacity_bytes=8 * MIB, content=b"abc" * MIB)])
    agent.wait_reported("again")
    _back_up(client, "again")
    vm.disks[0].write(0, b"changed")
    job = _back_up(client, "again", backup_type=pb.BACKUP_TYPE_FULL)
    assert job.backup_type == pb.BACKUP_TYPE_FULL
    assert job.bytes_read >= 3 * MIB
    assert len(restorer.backing_chain(job.job_id, 0)) == 1
    assert restorer.restore(job.job_id, 0) == Witness.of_disk(vm.disks[0])


def test_a_revert_forces_a_comparison_and_says_so(
    site: SimulatedSite, agent: Agent, client: Client, restorer: Restorer
) -> None:
    """Field failure 15."""
    vm = site.add_vm("reverted", disks=[DiskSpec(capacity_bytes=8 * MIB, content=b"abc" * MIB)])
    agent.wait_reported("reverted")
    _back_up(client, "reverted")
    snapshot = vm.create_snapshot("by hand")
    vm.disks[0].write(0, b"to be undone")
    vm.revert(snapshot)
    vm.remove_snapshot(snapshot)
    vm.disks[0].write(MIB, b"after the revert")
    job = _back_up(client, "reverted", backup_type=pb.BACKUP_TYPE_INCREMENTAL)
    assert job.backup_type == pb.BACKUP_TYPE_INCREMENTAL
    assert "COMPARED_INSTEAD_OF_TRACKING" in {w.code for w in job.warnings}
    assert client.get_backup(job.job_id).disks[0].read_method == pb.READ_METHOD_COMPARED
    assert restorer.restore(job.job_id, 0) == Witness.of_disk(vm.disks[0])


def test_a_grown_disk_is_compared_and_has_the_new_size(
    site: SimulatedSite, agent: Agent, client: Client, restorer: Restorer
) -> None:
    """Field failure 8: only the grown disk, the other goes on incrementally (failure 4)."""
    vm = site.add_vm(
        "grown",
        disks=[
            DiskSpec(capacity_bytes=8 * MIB, content=b"abc" * MIB),
            DiskSpec(capacity_bytes=8 * MIB, content=b"def" * MIB),
        ],
    )
    agent.wait_reported("grown")
    _back_up(client, "grown")
    vm.disks[1].grow(12 * MIB)
    vm.disks[1].write(11 * MIB, b"in the new part")
    vm.disks[0].write(0, b"ABC")
    job = _back_up(client, "grown")
    disks = client.get_backup(job.job_id).disks
    assert [d.read_method for d in disks] == [
        pb.READ_METHOD_CHANGED,
        pb.READ_METHOD_COMPARED,
    ]
    assert [d.capacity_bytes for d in disks] == [8 * MIB, 12 * MIB]
    for index, disk in enumerate(vm.disks):
        assert restorer.restore(job.job_id, index) == Witness.of_disk(disk)


def test_two_vms_at_once_do_not_mix(
    site: SimulatedSite, agent: Agent, client: Client, restorer: Restorer
) -> None:
    """Field failure 16: parent job id and disk index, nothing else; names do not matter (18)."""
    names = ["web-disk0", "web-disk0-disk1", "数据库 ünïcode/1"]
    vms = [
        site.add_vm(
            name,
            disks=[
                DiskSpec(capacity_bytes=6 * MIB, content=f"{name}/{index}".encode() * 20_000)
                for index in range(2)
            ],
        )
        for name in names
    ]
    for name in names:
        agent.wait_reported(name)
    jobs = [client.start_backup(name) for name in names]
    assert len({job.job_id for job in jobs}) == 3
    for job, vm in zip(jobs, vms, strict=True):
        assert client.wait(job.job_id, timeout_s=60).status == COMPLETED
        for index, disk in enumerate(vm.disks):
            assert restorer.restore(job.job_id, index) == Witness.of_disk(disk)
    contexts = {c.vm_name: c for c in client.list_contexts() if c.vm_name in names}
    assert set(contexts) == set(names)
    assert {c.successful_backups for c in contexts.values()} == {1}
