"""SIGKILL at every named point and at random moments: nothing is lost, nothing is left, all goes on."""

import os
import random
import threading
from typing import Final

import pytest

from sendense import BackupStatus
from tests.crash.fail_points import Trap
from tests.crash.kills import KILLS, OF_A_REMOVAL, OF_AN_END, OF_RECOVERY
from tests.crash.proof import assert_nothing_is_left
from tests.crash.rounds import Scene
from tests.crash.summary import Tally

RANDOM_KILLS: Final = 8
LATEST_S: Final = 0.9
SOAK_SHARES: Final = 20
KILLS_VARIABLE: Final = "SENDENSE_SOAK_KILLS"
SEED_VARIABLE: Final = "SENDENSE_SOAK_SEED"


@pytest.mark.parametrize("number", range(len(KILLS)), ids=lambda number: str(KILLS[number]))
def test_backup_goes_on_when_a_program_is_killed(scene: Scene, tally: Tally, number: int) -> None:
    kill = KILLS[number]
    guest = scene.guests[max(kill.fewest_disks, 1 + number % 3)]
    scene.kill_in_backup(guest, kill, tally, full=number % 5 == 0, seed=number)
    if number % 4 == 0:
        scene.prove_next(guest, tally)


@pytest.mark.parametrize("program", ["hub", "agent"])
@pytest.mark.parametrize("number", range(RANDOM_KILLS // 2))
def test_backup_goes_on_when_a_program_is_killed_at_any_moment(
    scene: Scene, tally: Tally, program: str, number: int
) -> None:
    kill_at_any_moment(scene, tally, program, seed=number)


@pytest.mark.parametrize("point", OF_RECOVERY)
def test_hub_that_is_killed_while_it_recovers_recovers_again(
    scene: Scene, tally: Tally, point: str
) -> None:
    kill_in_recovery(scene, tally, point, seed=5)


def test_hub_that_is_killed_while_it_ends_a_job_ends_it_again(scene: Scene, tally: Tally) -> None:
    kill_in_cancellation(scene, tally, seed=6)


def test_hub_that_is_killed_while_it_removes_a_backup_removes_it(
    scene: Scene, tally: Tally
) -> None:
    kill_in_removal(scene, tally, seed=7)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", range(SOAK_SHARES))
def test_backups_go_on_through_many_kills(scene: Scene, tally: Tally, share: int) -> None:
    given = os.environ.get(SEED_VARIABLE)
    first = int(given) if given else random.SystemRandom().randrange(1 << 32)
    print(f"{SEED_VARIABLE}={first}")
    kills = int(os.environ.get(KILLS_VARIABLE, "1000")) // SOAK_SHARES
    chance = random.Random(f"{first} {share}")
    for number in range(kills):
        seed = chance.randrange(1 << 32)
        print(f"round {number}, seed {seed}")
        match chance.randrange(20):
            case 0:
                kill_in_recovery(scene, tally, chance.choice(OF_RECOVERY), seed)
            case 1:
                kill_in_cancellation(scene, tally, seed)
            case 2:
                kill_in_removal(scene, tally, seed)
            case 3 | 4 | 5 | 6:
                kill_at_any_moment(scene, tally, chance.choice(["hub", "agent"]), seed)
            case _:
                kill = chance.choice(KILLS)
                guest = scene.guests[chance.randint(kill.fewest_disks, 3)]
                scene.kill_in_backup(guest, kill, tally, full=chance.random() < 0.2, seed=seed)


def kill_at_any_moment(scene: Scene, tally: Tally, program: str, seed: int) -> None:
    chance = random.Random(seed)
    guest = scene.guests[chance.randint(1, 3)]
    scene.write(guest, seed)
    moments = [guest.images()]
    job_id = scene.there.order(guest.vm, full=chance.random() < 0.3)
    threading.Event().wait(chance.random() * LATEST_S)
    scene.child(program).kill()
    tally.count(f"kills of the {program} at any moment")
    tally.count("kills")
    scene.there.start_what_is_dead()
    job = scene.there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, moments, tally)


def kill_in_recovery(scene: Scene, tally: Tally, point: str, seed: int) -> None:
    """The hub is killed in the middle of an upload, and again while it starts."""
    there, guest = scene.there, scene.guests[2]
    scene.write(guest, seed)
    moments = [guest.images()]
    there.hub.arm(Trap("hub.layer.journaled", 2))
    job_id = there.order(guest.vm)
    there.hub.wait_killed()
    there.start_hub(Trap(point), ready=False)
    there.hub.wait_killed()
    assert there.hub.has_reached(point)
    tally.count(f"kills at {point}")
    tally.count("kills", 2)
    there.start_hub()
    job = there.wait_ended(job_id)
    scene.settle()
    scene.prove(job, moments, tally, kills=2)


def kill_in_cancellation(scene: Scene, tally: Tally, seed: int) -> None:
    """The hub is killed when it has written that a cancelled job has ended."""
    there, guest = scene.there, scene.guests[3]
    scene.write(guest, seed)
    there.agent.arm(Trap("agent.upload.frame_sent", 2, "hold"))
    there.hub.arm(Trap(OF_AN_END))
    job_id = there.order(guest.vm)
    there.agent.wait_reached("agent.upload.frame_sent")
    there.client.cancel_backup(job_id, reason="enough")
    there.agent.release()
    there.hub.wait_killed()
    tally.count(f"kills at {OF_AN_END}")
    tally.count("kills")
    there.start_hub()
    job = there.wait_ended(job_id)
    assert BackupStatus(job.status) == BackupStatus.CANCELLED, f"{job}\n{there.logs()}"
    tally.count("jobs ended cancelled")
    scene.settle()
    assert_nothing_is_left(there)
    scene.prove_next(guest, tally)


def kill_in_removal(scene: Scene, tally: Tally, seed: int) -> None:
    """The hub is killed between the files of a backup that is deleted and its rows."""
    there, guest = scene.there, scene.guests[1]
    scene.write(guest, seed)
    job = there.completed(guest.vm, full=True)
    there.hub.arm(Trap(OF_A_REMOVAL))
    deleting = threading.Thread(target=scene.delete, args=(job.job_id,), daemon=True)
    deleting.start()
    there.hub.wait_killed()
    tally.count(f"kills at {OF_A_REMOVAL}")
    tally.count("kills")
    there.start_hub()
    deleting.join(30)
    scene.settle()
    assert_nothing_is_left(there)
    assert job.job_id not in {one.job_id for one in there.client.list_backups()}
    scene.prove_next(guest, tally)


def test_every_point_is_in_the_list() -> None:
    """A point that the programs have and no test kills at would be forgotten."""
    from tests.crash.points import points_of_the_programs

    tested = {kill.point for kill in KILLS} | {*OF_RECOVERY, OF_AN_END, OF_A_REMOVAL}
    assert points_of_the_programs() == tested


def test_at_least_60_kills_are_in_every_run() -> None:
    assert len(KILLS) + RANDOM_KILLS + 2 * len(OF_RECOVERY) + 2 >= 60
