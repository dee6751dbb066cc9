"""Programs that stand still, are told to stop, die together, or are slow: backups go on in the same job."""

import pytest

from sendense import BackupStatus
from tests.crash.children import unchanged
from tests.crash.fail_points import Trap
from tests.crash.kills import OF_RECOVERY, STAGES
from tests.crash.proof import assert_nothing_is_left
from tests.crash.rounds import Scene
from tests.crash.summary import Tally
from tests.end_to_end.processes import wait_for

UPLOADING = Trap("agent.upload.frame_sent", 3, "hold")
CANCEL_S = 5.0
YEAR_S = 365 * 86400.0


def test_backup_goes_on_when_both_programs_are_killed_at_once(scene: Scene, tally: Tally) -> None:
    there, guest = scene.there, scene.guests[2]
    scene.write(guest, seed=1)
    there.agent.arm(UPLOADING)
    job_id = there.order(guest.vm)
    there.agent.wait_reached(UPLOADING.point)
    there.hub.kill()
    there.agent.kill()
    tally.count("kills", 2)
    tally.count("kills of both programs at once")
    there.start_what_is_dead()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally, kills=2)


@pytest.mark.parametrize("program", ["hub", "agent"])
def test_backup_goes_on_when_a_program_stands_still_for_a_while(
    scene: Scene, tally: Tally, program: str
) -> None:
    there, guest, child = scene.there, scene.guests[2], scene.child(program)
    scene.write(guest, seed=2)
    there.agent.arm(UPLOADING)
    job_id = there.order(guest.vm)
    there.agent.wait_reached(UPLOADING.point)
    child.hold()
    try:
        wait_for("it stands still", lambda: child.status("State").startswith("T"))
        if program == "hub":
            there.agent.release()
            wait_for("the agent waits", unchanged(lambda: there.agent.cpu_ticks))
    finally:
        child.go_on()
    if program == "agent":
        there.agent.release()
    job = there.wait_ended(job_id)
    scene.prove(job, [guest.images()], tally)


@pytest.mark.parametrize("program", ["hub", "agent"])
def test_program_that_is_told_to_stop_in_mid_upload_ends_in_time(
    scene: Scene, tally: Tally, program: str
) -> None:
    """A hub's uploads go on when it is back. An agent ends its jobs, and their snapshots."""
    there, guest = scene.there, scene.guests[3]
    scene.write(guest, seed=3)
    there.agent.arm(UPLOADING)
    job_id = there.order(guest.vm)
    there.agent.wait_reached(UPLOADING.point)
    if program == "hub":
        assert there.hub.stop() == 0
        there.agent.release()
    else:
        there.agent.arm(Trap("agent.upload.frame_sent", 1_000))
        assert there.agent.stop() == 0
        assert there.site.vm("victim3").snapshots == []
    there.start_what_is_dead()
    job = there.wait_ended(job_id)
    scene.settle()
    if program == "hub":
        scene.prove(job, [guest.images()], tally)
        assert sum(disk.resume_count for disk in job.disks) > 0
    else:
        assert BackupStatus(job.status) == BackupStatus.FAILED
        assert job.error.reason in ("AGENT_STOPPING", "AGENT_LOST")
        assert_nothing_is_left(there)
        scene.prove_next(guest, tally)


@pytest.mark.parametrize(
    "point", ["hub.layer.data_synced", "hub.seal.tables_written", "hub.complete.facts_written"]
)
def test_hub_that_is_held_up_by_its_storage_ends_as_told(
    scene: Scene, tally: Tally, point: str
) -> None:
    """A thread that hangs in a system call is not waited for; the job goes on."""
    there, guest = scene.there, scene.guests[2]
    scene.write(guest, seed=5)
    there.hub.arm(Trap(point, 1, "hold"))
    job_id = there.order(guest.vm)
    there.hub.wait_reached(point)
    assert there.hub.stop() == 0
    there.start_what_is_dead()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally)


def test_hub_that_is_told_to_stop_while_it_recovers_ends_and_recovers_the_next_time(
    scene: Scene, tally: Tally
) -> None:
    there, guest = scene.there, scene.guests[2]
    scene.write(guest, seed=6)
    there.hub.arm(Trap("hub.layer.journaled", 2))
    job_id = there.order(guest.vm)
    there.hub.wait_killed()
    there.start_hub(Trap(OF_RECOVERY[0], 1, "hold"), ready=False)
    there.hub.wait_reached(OF_RECOVERY[0])
    assert there.hub.stop() == 0
    there.start_hub()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, [guest.images()], tally, kills=1)


@pytest.mark.parametrize("point", STAGES)
def test_cancelled_job_ends_soon_and_leaves_nothing_at_every_stage(
    scene: Scene, point: str
) -> None:
    """The program is held at the stage while the cancellation is asked for."""
    there, guest = scene.there, scene.guests[2]
    scene.write(guest, seed=4)
    child = there.hub if point.startswith("hub.") else there.agent
    child.arm(Trap(point, 1, "hold"))
    job_id = there.order(guest.vm)
    child.wait_reached(point)
    there.client.cancel_backup(job_id, reason="not wanted")
    child.release()
    job = there.wait_ended(job_id, CANCEL_S)
    assert BackupStatus(job.status) == BackupStatus.CANCELLED, f"{job}\n{there.logs()}"
    assert "not wanted" in job.error.message
    assert_nothing_is_left(there)


@pytest.mark.parametrize("offset_s", [YEAR_S, -YEAR_S, 3600.0])
def test_backup_does_not_mind_a_hub_whose_clock_jumps(
    scene: Scene, tally: Tally, offset_s: float
) -> None:
    """Only displayed times change: jobs complete, and the chain goes by numbers of runs."""
    there, guest = scene.there, scene.guests[2]
    scene.write(guest, seed=5)
    there.agent.arm(UPLOADING)
    job_id = there.order(guest.vm)
    there.agent.wait_reached(UPLOADING.point)
    there.hub.set_clock(offset_s)
    there.agent.release()
    first = there.wait_ended(job_id)
    scene.prove(first, [guest.images()], tally)
    scene.write(guest, seed=6)
    there.hub.set_clock(-offset_s)
    second = there.completed(guest.vm)
    scene.prove(second, [guest.images()], tally)
    assert {disk.base_job_id for disk in second.disks} == {first.job_id}
    there.hub.set_clock(0)
    third = there.completed(guest.vm)
    assert {disk.base_job_id for disk in third.disks} == {second.job_id}
    assert_nothing_is_left(there)  # the catalog's rules are of the numbers of runs
    assert there.client.get_context(first.context_id).last_backup_id == third.job_id
