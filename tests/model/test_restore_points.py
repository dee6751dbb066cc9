"""Random lives of a VM: whatever happens to it, every completed backup restores what was there."""

import os
import random
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import HostileSite
from tests.model.summary import note

pytestmark = pytest.mark.hostile

# Together at least 200 backups in every run of the tests, and 2,000 in a soak.
SHARES: Final = 4
BACKUPS_OF_A_SHARE: Final = 50
SOAK_SHARES: Final = 20
BACKUPS_OF_A_SOAK_SHARE: Final = 100
SEED_VARIABLE: Final = "SENDENSE_SOAK_SEED"

# Without shrinking, which would repeat minutes of backups: the steps of a
# failure are printed, and its seed leads to them again.
LIVES: Final = settings(
    # The first is always the shortest of all lives; more at a time would go on far beyond
    # the backups that a share is to make.
    max_examples=2,
    stateful_step_count=24,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def live(first_seed: int, backups: int) -> type[HostileSite]:
    """Lives of VMs until so many backups were completed and compared; the class has counted."""

    class Counted(HostileSite):
        pass

    Counted.start_counting()
    at = first_seed
    while Counted.backups < backups:
        print(f"seed {at}")
        run_state_machine_as_test(seed(at)(Counted), settings=LIVES)
        at += 1
    return Counted


@pytest.mark.parametrize("share", range(SHARES))
def test_completed_backups_restore_what_the_guest_had_whatever_the_site_does(
    share: int, record_property: Callable[[str, object], None]
) -> None:
    machine = live(1000 * share, BACKUPS_OF_A_SHARE)
    note(machine, record_property)
    assert machine.backups >= BACKUPS_OF_A_SHARE


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("share", range(SOAK_SHARES))
def test_completed_backups_restore_what_the_guest_had_for_long(
    share: int, record_property: Callable[[str, object], None]
) -> None:
    given = os.environ.get(SEED_VARIABLE)
    first = int(given) if given else random.SystemRandom().randrange(1 << 32)
    print(f"{SEED_VARIABLE}={first}")
    machine = live(first + 1_000_000 * share, BACKUPS_OF_A_SOAK_SHARE)
    note(machine, record_property)
    assert machine.backups >= BACKUPS_OF_A_SOAK_SHARE
