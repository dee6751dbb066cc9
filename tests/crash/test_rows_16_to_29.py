"""Rows 16 to 29 of the failures seen in the field, with programs that die.

Rows 21 and 28 have more tests in tests/hostile, row 27 in test_file_faults.py.
"""

import threading
from functools import partial
from typing import Final

import pytest

from hub.jobs.parts import Patience
from sendense import Backup, BackupStatus
from sendense.errors import AlreadyExists, FailedPrecondition
from tests.crash.fail_points import Trap
from tests.crash.installation import Installation
from tests.crash.proof import assert_nothing_is_left, assert_restores, catalog_findings
from tests.crash.rounds import Scene
from tests.crash.summary import Tally
from tests.end_to_end.processes import wait_for
from tests.model.disks import CLUSTER
from tests.model.guest import Act, GuestVm

UPLOADING: Final = Trap("agent.upload.frame_sent", 3, "hold")
HOURS_S: Final = 7 * 3600.0
RESERVE: Final = "hub.repository.reserve.RESERVE_BYTES"


def hold_in_mid_upload(scene: Scene, guest: GuestVm, seed: int) -> str:
    """A backup whose agent waits in the middle of an upload; its job id."""
    scene.write(guest, seed)
    scene.there.agent.arm(UPLOADING)
    job_id = scene.there.order(guest.vm)
    scene.there.agent.wait_reached(UPLOADING.point)
    return job_id


def add_guest(there: Installation, name: str = "victim", disks: int = 1) -> GuestVm:
    guest = GuestVm(there.site.add_vm(name))
    for index in range(disks):
        guest.add_disk(64 * CLUSTER)
        guest.act(Act("write", index, 0, 0, 40 * CLUSTER, seed=index))
    return guest


def status(job: Backup) -> BackupStatus:
    return BackupStatus(job.status)


def test_row_16_disks_of_a_backup_that_takes_hours_are_its_own(scene: Scene, tally: Tally) -> None:
    """Row 16: parent and child were matched by a time window: backups over an hour were lost."""
    there, guest = scene.there, scene.guests[3]
    job_id = hold_in_mid_upload(scene, guest, 16)
    there.hub.set_clock(HOURS_S)
    there.agent.release()
    job = there.wait_ended(job_id)
    there.hub.set_clock(0)
    scene.prove(job, [guest.images()], tally)
    assert [(disk.job_id, disk.disk_index) for disk in job.disks] == [
        (job_id, index) for index in range(3)
    ]


def test_row_17_job_is_committed_before_its_disks(scene: Scene, tally: Tally) -> None:
    """Row 17: child rows were inserted before the parent: foreign key error."""
    there, guest = scene.there, scene.guests[2]
    scene.write(guest, 17)
    there.hub.arm(Trap("hub.open.committed", does="hold"))
    there.agent.arm(Trap("agent.job.taken", does="hold"))
    job_id = there.order(guest.vm)
    there.agent.wait_reached("agent.job.taken")
    assert len(there.client.get_backup(job_id).disks) == 0
    assert catalog_findings(there) == []
    there.agent.release()
    there.hub.wait_reached("hub.open.committed")
    assert len(there.client.get_backup(job_id).disks) == 2
    assert catalog_findings(there) == []
    there.hub.kill()
    there.start_hub()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally)


def test_row_18_jobs_of_the_same_second_and_of_odd_names_are_kept_apart(
    there: Installation,
) -> None:
    """Row 18: ids of one-second resolution collided; "-disk" in a VM's name hid its backups."""
    names = ["db", "db-disk", "db-disk-0", "db-disk-0.qcow2"]
    guests = [add_guest(there, name) for name in names]
    there.start_hub()
    there.start_agent()
    job_ids = [there.order(guest.vm) for guest in guests]
    there.hub.kill()
    there.start_hub()
    assert len(set(job_ids)) == len(names)
    for guest, job_id in zip(guests, job_ids, strict=True):
        assert_restores(there, there.wait_ended(job_id), [guest.images()])
    for name, job_id in zip(names, job_ids, strict=True):
        assert [one.job_id for one in there.client.list_backups(vm_name=name)] == [job_id]
    assert_nothing_is_left(there)


def test_row_19_job_of_an_agent_that_died_before_it_said_anything_does_not_run_for_ever(
    there: Installation,
) -> None:
    """Row 19: an agent died before its first report: the job ran forever."""
    guest = add_guest(there)
    there.hub_settings = {"lease_s": 1, "resume_wait_s": 1}
    there.hub_constants["hub.main.Patience"] = partial(Patience, sweep_interval_s=0.2)
    there.start_hub()
    there.start_agent()
    there.agent.arm(Trap("agent.snapshot.taken"))
    job_id = there.order(guest.vm)
    there.agent.wait_killed()
    assert len(guest.vm.snapshots) == 1
    job = there.wait_ended(job_id)
    assert (status(job), job.error.reason) == (BackupStatus.FAILED, "AGENT_LOST")
    there.start_agent()
    assert_nothing_is_left(there)
    assert_restores(there, there.completed(guest.vm), [guest.images()])


def test_row_20_hub_that_comes_back_goes_on_with_its_jobs_and_removes_what_is_nobodys(
    scene: Scene, tally: Tally
) -> None:
    """Row 20: after a restart jobs were stuck, files were left, new data went to an old file."""
    there, guest = scene.there, scene.guests[2]
    job_id = hold_in_mid_upload(scene, guest, 20)
    context_id = there.client.get_backup(job_id).context_id
    there.hub.kill()
    junk = there.repository / context_id / "backup-of-nobody" / "disk-0.qcow2.partial"
    junk.parent.mkdir()
    junk.write_bytes(b"left over")
    there.start_hub()
    assert not junk.parent.exists()
    there.agent.release()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally)


def test_row_21_snapshot_of_an_agent_that_died_goes_and_others_stay(scene: Scene) -> None:
    """Row 21: a snapshot was left behind, or one job deleted another's."""
    there, guest = scene.there, scene.guests[1]
    others = guest.vm.create_snapshot("before the update")
    job_id = hold_in_mid_upload(scene, guest, 21)
    there.agent.kill()
    there.client.cancel_backup(job_id, reason="row 21")
    assert status(there.wait_ended(job_id)) == BackupStatus.CANCELLED
    assert len(guest.vm.snapshots) == 2
    there.start_agent()
    wait_for("the snapshot is swept", lambda: len(guest.vm.snapshots) == 1)
    assert [one.name for one in guest.vm.snapshots] == ["before the update"]
    guest.vm.remove_snapshot(others)
    assert_nothing_is_left(there)


def test_row_22_first_error_ends_the_job_of_several_disks_cleanly(scene: Scene) -> None:
    """Row 22: a worker's error blocked the others, the job hung with the snapshot open."""
    there, guest = scene.there, scene.guests[3]
    scene.write(guest, 22)
    key = guest.vm.disks[1].key
    fault = there.site.faults.set("nfc-error-reply", vm=guest.vm.name, disk=key, on="open")
    job = there.wait_ended(there.order(guest.vm))
    there.site.faults.clear()
    assert fault.fired
    assert status(job) == BackupStatus.FAILED
    assert job.error.reason
    assert_nothing_is_left(there)


def test_row_23_vm_has_one_job_at_a_time_through_a_restart_of_the_hub(
    scene: Scene, tally: Tally
) -> None:
    """Row 23: two jobs ran for one VM at once."""
    there, guest = scene.there, scene.guests[2]
    job_id = hold_in_mid_upload(scene, guest, 23)
    with pytest.raises(AlreadyExists):
        there.client.start_backup(guest.vm.instance_uuid)
    there.hub.kill()
    there.start_hub()
    with pytest.raises(AlreadyExists):
        there.client.start_backup(guest.vm.instance_uuid)
    there.agent.release()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally)


def test_row_24_success_is_the_completion_and_its_counters_are_those_of_the_layers(
    scene: Scene, tally: Tally
) -> None:
    """Row 24: "success" in 0.4 s with nothing done; counters were never written."""
    there, guest = scene.there, scene.guests[2]
    scene.write(guest, 24)
    there.hub.arm(Trap("hub.complete.facts_written", does="hold"))
    job_id = there.order(guest.vm)
    there.hub.wait_reached("hub.complete.facts_written")
    assert status(there.client.get_backup(job_id)) == BackupStatus.RUNNING
    there.hub.kill()
    there.start_hub()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally)
    for disk in job.disks:
        layer = there.layer(job, disk.disk_index)
        files = (layer, layer.with_suffix(".manifest"))
        assert disk.bytes_stored == sum(file.stat().st_size for file in files)
        assert 0 < disk.bytes_transferred <= disk.bytes_stored
    assert job.bytes_stored == sum(disk.bytes_stored for disk in job.disks)


def test_row_25_deletion_that_was_interrupted_is_of_rows_and_files(
    scene: Scene, tally: Tally
) -> None:
    """Row 25: deletion removed rows, not files, or a base that increments need."""
    there, guest = scene.there, scene.guests[1]
    full = there.completed(guest.vm, full=True)
    scene.write(guest, 25)
    increment = there.completed(guest.vm)
    with pytest.raises(FailedPrecondition):
        there.client.delete_backup(full.job_id)
    scene.prove(increment, [guest.images()], tally)
    there.hub.arm(Trap("hub.removal.files_removed"))
    deleting = threading.Thread(target=scene.delete, args=(full.job_id,), daemon=True)
    deleting.start()
    there.hub.wait_killed()
    there.start_hub()
    deleting.join(30)
    scene.settle()
    assert_nothing_is_left(there)
    left = {one.job_id for one in there.client.list_backups()}
    assert not left & {full.job_id, increment.job_id}
    scene.prove_next(guest, tally)


def test_row_26_truncated_layer_is_no_success(scene: Scene, tally: Tally) -> None:
    """Row 26: a truncated image was called a success."""
    there, guest = scene.there, scene.guests[1]
    scene.write(guest, 26)
    there.hub.arm(Trap("hub.seal.tables_written"))
    job_id = there.order(guest.vm)
    there.hub.wait_killed()
    (partial,) = there.repository.rglob(f"{job_id}/*.qcow2.partial")
    size = partial.stat().st_size
    with partial.open("r+b") as file:
        file.truncate(size - 3 * CLUSTER)
    there.start_hub()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally)


def test_row_27_full_disk_of_the_hub_fails_the_job_clearly_and_gives_space_back(
    scene: Scene, tally: Tally
) -> None:
    """Row 27: the hub's disk was full in mid-backup."""
    there, guest = scene.there, scene.guests[2]
    job_id = hold_in_mid_upload(scene, guest, 27)
    there.hub.set_constant(RESERVE, 1 << 60)
    there.agent.release()
    job = there.wait_ended(job_id)
    there.hub.set_constant(RESERVE, 0)
    assert (status(job), job.error.reason) == (BackupStatus.FAILED, "REPOSITORY_FULL")
    assert_nothing_is_left(there)
    scene.prove_next(guest, tally)


def test_row_28_sessions_that_end_while_a_hub_is_away_are_renewed(
    scene: Scene, tally: Tally
) -> None:
    """Row 28: a session expired after 30 minutes in mid-read."""
    there, guest = scene.there, scene.guests[2]
    job_id = hold_in_mid_upload(scene, guest, 28)
    there.hub.kill()
    assert there.site.expire_sessions() > 0
    there.site.cut_nfc_connections()
    there.start_hub()
    there.agent.release()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally)


def test_row_29_only_what_was_not_durable_is_read_and_sent_again(
    scene: Scene, tally: Tally
) -> None:
    """Row 29: any failure meant reading everything again."""
    there, guest = scene.there, scene.guests[3]
    scene.write(guest, 29)
    there.hub.arm(Trap("hub.layer.journaled", 4))
    job_id = there.order(guest.vm)
    there.hub.wait_killed()
    there.start_hub()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally)
    assert sum(disk.resume_count for disk in job.disks) > 0
    resent = sum(disk.bytes_resent for disk in job.disks)
    assert resent < sum(disk.bytes_transferred for disk in job.disks)
