"""A hub that serves from MariaDB: the main job, restarts of either, and who may use the catalog."""

import json
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from sqlalchemy import make_url

from hub.catalog.engine import Catalog
from hub.catalog.hub_lock import HubLock
from sendense import Client
from sendense.errors import FailedPrecondition, Unavailable
from sendense.v1 import backup_pb2 as pb
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.end_to_end.processes import BIN, Agent, Hub, wait_for
from tests.end_to_end.restores import Restorer, Witness
from tests.mariadb_server import MariadbServer

pytestmark = pytest.mark.mariadb
MIB = 1 << 20
COMPLETED, FAILED = pb.BACKUP_STATUS_COMPLETED, pb.BACKUP_STATUS_FAILED
# Of a host's answers: whatever was sampled before, enough frames have reached the hub then.
HOLD_AT_BYTE = 48 * MIB
WAITING = "SELECT id FROM information_schema.processlist WHERE state = 'User lock'"


@pytest.fixture
def catalog_url(mariadb: MariadbServer, cleanup: ExitStack) -> str:
    return cleanup.enter_context(mariadb.database())


@pytest.fixture
def hub(tmp_path: Path, catalog_url: str, cleanup: ExitStack) -> Hub:
    hub = Hub(tmp_path, catalog_url)
    hub.start()
    cleanup.callback(hub.stop)
    return hub


def checked(hub: Hub) -> dict[str, int]:
    """`db check` finds nothing; what it looked at."""
    done = subprocess.run(
        [BIN / "sendense-hub", "db", "check", "--json", "--config", hub.config],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, int] = json.loads(done.stdout)["checked"]
    return counts


def test_two_vms_at_once_come_back_byte_for_byte_and_go_again(
    site: SimulatedSite, agent: Agent, hub: Hub, client: Client, restorer: Restorer
) -> None:
    dice = random.Random(11)
    vms = [
        site.add_vm(
            name,
            disks=[
                DiskSpec(capacity_bytes=24 * MIB, content=dice.randbytes(5 * MIB)),
                DiskSpec(capacity_bytes=8 * MIB + 512, content=name.encode() * 50_000),
            ],
        )
        for name in ("Datenbank-ä", "数据库")
    ]
    agent.start()
    points: list[tuple[pb.Backup, list[Witness]]] = []
    for step in range(2):
        if step:
            _write(vms, dice)
        points += _back_up_together(client, vms)
        if not step:
            # The catalog and all that it knows is on the server.
            assert not (hub.state / "catalog.db").exists()
            assert hub.stop() == 0
            hub.start()
            agent.wait_connected()
    assert [job.backup_type for job, _ in points] == [
        *[pb.BACKUP_TYPE_FULL] * 2,
        *[pb.BACKUP_TYPE_INCREMENTAL] * 2,
    ]
    for job, witnesses in points:
        for index, witness in enumerate(witnesses):
            assert restorer.restore(job.job_id, index) == witness
            assert restorer.restore_with_qemu(job.job_id, index) == witness
    assert checked(hub) == {"contexts": 2, "jobs": 4, "disks": 8, "layers": 8}

    full, increment = points[0][0], points[2][0]
    with pytest.raises(FailedPrecondition, match=increment.job_id):
        client.delete_backup(full.job_id)
    client.delete_backup(full.job_id, cascade=True)
    wait_for(
        "files of the deleted chain gone",
        lambda: (
            {path.split("/")[1] for path in hub.files()}
            == {points[1][0].job_id, points[3][0].job_id}
        ),
    )
    assert restorer.restore(points[3][0].job_id, 0) == points[3][1][0]
    assert checked(hub) == {"contexts": 2, "jobs": 2, "disks": 4, "layers": 4}
    ((again, witnesses), _) = _back_up_together(client, vms)
    assert again.backup_type == pb.BACKUP_TYPE_FULL
    assert restorer.restore(again.job_id, 1) == witnesses[1]


@pytest.mark.parametrize("away_at_the_end", [False, True], ids=["back-before-the-end", "away-then"])
def test_backup_during_which_the_server_crashes_and_returns_ends_cleanly(
    site: SimulatedSite,
    agent: Agent,
    hub: Hub,
    client: Client,
    restorer: Restorer,
    mariadb: MariadbServer,
    away_at_the_end: bool,
) -> None:
    content = random.Random(3).randbytes(96 * MIB)
    vm = site.add_vm("victim", disks=[DiskSpec(capacity_bytes=128 * MIB, content=content)])
    agent.start()
    site.faults.set("nfc-stall", at_byte=HOLD_AT_BYTE)
    job_id = client.start_backup("victim").job_id
    wait_for("some of the job has arrived", lambda: hub.files())
    mariadb.kill()
    try:
        # Whoever asks meanwhile is told what is away.
        with pytest.raises(Unavailable, match="the catalog cannot be used"):
            client.get_backup(job_id)
        if away_at_the_end:
            # All data comes, and the hub cannot note that it has it.
            site.faults.release_reads()
            wait_for("layer sealed", lambda: any(one.endswith(".qcow2") for one in hub.files()))
    finally:
        mariadb.start()
    site.faults.release_reads()
    job = client.wait(job_id, timeout_s=90)
    assert job.status in (COMPLETED, FAILED), job
    if job.status == COMPLETED:
        assert restorer.restore(job_id, 0) == Witness.of_disk(vm.disks[0])
    after = client.wait(client.start_backup("victim").job_id, timeout_s=60)
    assert after.status == COMPLETED
    assert restorer.restore(after.job_id, 0) == Witness.of_disk(vm.disks[0])
    assert vm.snapshots == []
    completed = {job_id, after.job_id} if job.status == COMPLETED else {after.job_id}
    wait_for(
        "files of completed jobs alone",
        lambda: {path.split("/")[1] for path in hub.files()} == completed,
    )
    assert checked(hub)["layers"] == len(completed)
    assert hub.program is not None
    assert hub.program.process.poll() is None
    program = hub.program
    wait_for("its catalog is held again", lambda: "catalog_lock_taken_again" in program.log)


def test_hub_stops_when_another_one_has_taken_its_catalog(
    hub: Hub, catalog_url: str, mariadb: MariadbServer
) -> None:
    assert hub.program is not None
    other = Catalog(catalog_url)
    lock = HubLock(other)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lock.__enter__)
        (waits,) = wait_for("the other one waits", lambda: mariadb.run(WAITING))
        # The server gives the lock to the one that waits, before the hub comes again.
        for number in mariadb.connection_ids(str(make_url(catalog_url).database)):
            if number != waits[0]:
                mariadb.run("KILL CONNECTION %s", number)
        waiting.result(30)
    try:
        assert hub.program.exit_code() == 1
    finally:
        lock.__exit__(None, None, None)
        other.close()
    last = hub.program.log.splitlines()[-1]
    assert last.startswith("sendense-hub: the catalog cannot be used now")
    assert "another sendense-hub" in last
    assert last.endswith("this hub has stopped")
    assert '"catalog_taken"' in hub.program.log
    hub.start()
    with grpc.insecure_channel(hub.address) as channel:
        grpc.channel_ready_future(channel).result(10)


def test_hub_without_its_server_ends_with_a_sentence(hub: Hub, mariadb: MariadbServer) -> None:
    assert hub.stop() == 0
    mariadb.stop()
    try:
        ended = subprocess.run(
            [BIN / "sendense-hub", "serve", "--config", hub.config],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        mariadb.start()
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("sendense-hub: the catalog cannot be used now, try again later: ")
    assert "the server cannot be reached" in line
    hub.start()


def _write(vms: list[SimulatedVm], dice: random.Random) -> None:
    for vm in vms:
        for disk in vm.disks:
            disk.write(dice.randrange(0, 7 * MIB), dice.randbytes(100_000))


def _back_up_together(
    client: Client, vms: list[SimulatedVm]
) -> list[tuple[pb.Backup, list[Witness]]]:
    """All at once; each with what its disks held."""
    witnesses = [[Witness.of_disk(disk) for disk in vm.disks] for vm in vms]
    started = [client.start_backup(vm.name).job_id for vm in vms]
    jobs = [client.wait(job_id, timeout_s=60) for job_id in started]
    assert [job.status for job in jobs] == [COMPLETED] * len(vms), jobs
    return list(zip(jobs, witnesses, strict=True))
