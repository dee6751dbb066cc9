"""A VM's life at random: what its guest and its administrators do, and backups in between."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from sendense import Backup, BackupStatus
from simulator.disks.tracking import REVERTED_TRACKING, RevertedTracking
from tests.model.administrator import CAPACITIES, DEEDS
from tests.model.disks import CLUSTER, Image
from tests.model.guest import MOST_DISKS, Act, GuestVm
from tests.model.restore_points import DENIES, LEAVES_OUT, Lie, RestorePoints, Survivor
from tests.model.samples import SampleLog
from tests.model.troubles import OF_TRACKING, TROUBLES, Outcome, Trouble
from tests.model.world import World, running_world

ACTS: Final = st.builds(
    Act,
    verb=st.sampled_from(["write", "write", "write", "rewrite", "zero", "trim"]),
    disk=st.integers(0, MOST_DISKS - 1),
    cluster=st.one_of(st.integers(0, 60), st.integers(-6, 180)),
    shift=st.sampled_from([0, 0, 512, 30 * 1024, CLUSTER - 512]),
    length=st.sampled_from([512, 20 * 1024, CLUSTER, 3 * CLUSTER, 10 * CLUSTER + 512]),
    seed=st.integers(0, 1 << 16),
)
# Many allocated clusters: a sample then finds only some of what tracking leaves out.
FILLED: Final = st.sampled_from([1, 60, 190])
MEANWHILE: Final = st.lists(ACTS, max_size=3)
INDEX: Final = st.integers(0, 7)


class HostileSite(RuleBasedStateMachine):
    """One VM with up to three disks, its model, and its restore points."""

    backups: ClassVar[int]  # completed and compared, of all lives since `start_counting`
    caught: ClassVar[int]  # of these, which found changes that tracking had left out
    survivors: ClassVar[list[Survivor]]
    fired: ClassVar[Counter[str]]  # backups that a fault hit, by its name

    @classmethod
    def start_counting(cls) -> None:
        cls.backups, cls.caught, cls.survivors, cls.fired = 0, 0, [], Counter()

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="model-")))
        self.world: World = self._stack.enter_context(running_world(folder, sample_least=6))
        samples = self._stack.enter_context(SampleLog())
        self.guest = GuestVm(self.world.vm)
        self.points = RestorePoints(self.world, samples)
        self.leftover = False  # a snapshot of the last job stands
        self.sound = True  # no assertion has failed

    @initialize(
        capacities=st.lists(st.sampled_from(CAPACITIES), min_size=1, max_size=MOST_DISKS),
        filled=FILLED,
    )
    def make_disks(self, capacities: list[int], filled: int) -> None:
        for number, capacity in enumerate(capacities):
            self.guest.add_disk(capacity)
            self.guest.act(Act("write", number, 0, 0, filled * CLUSTER, seed=number))

    # The guest and its administrators.

    @rule(acts=st.lists(ACTS, min_size=1, max_size=5))
    def guest_works(self, acts: list[Act]) -> None:
        for act in acts:
            self.guest.act(act)

    @rule(deed=st.sampled_from(sorted(DEEDS)), number=st.integers(0, 99))
    def administrator_works(self, deed: str, number: int) -> None:
        DEEDS[deed](self.guest, number)

    @precondition(lambda self: len(self.guest.snapshots) < 2)
    @rule()
    def somebody_takes_a_snapshot(self) -> None:
        self.guest.take_snapshot()

    @precondition(lambda self: self.guest.snapshots)
    # Not "emptied": should the snapshot go before the next backup, no trace of the revert
    # is left, and only a sample can find what was forgotten.
    @rule(index=INDEX, tracking=st.sampled_from(["new", "back"]))
    def vm_is_reverted(self, index: int, tracking: RevertedTracking) -> None:
        self.guest.revert(index, tracking)

    @precondition(lambda self: self.guest.snapshots)
    @rule(index=INDEX)
    def somebody_removes_the_snapshot(self, index: int) -> None:
        self.guest.remove_snapshot(index)

    # Backups.

    @rule(meanwhile=MEANWHILE, full=st.sampled_from([False, False, False, True]))
    def back_up(self, meanwhile: list[Act], full: bool) -> None:
        self._back_up(meanwhile=meanwhile, full=full)

    @rule(acts=st.lists(ACTS, max_size=3), trouble=TROUBLES, meanwhile=MEANWHILE)
    def back_up_in_trouble(self, acts: list[Act], trouble: Trouble, meanwhile: list[Act]) -> None:
        self.guest_works(acts)
        self._back_up(meanwhile=meanwhile, trouble=trouble)

    @rule(acts=st.lists(ACTS, min_size=1, max_size=3), trouble=OF_TRACKING)
    def back_up_with_tracking_in_trouble(self, acts: list[Act], trouble: Trouble) -> None:
        self._let_tracking_be_used()
        self.guest_works(acts)
        self._back_up(trouble=trouble)

    @rule(
        acts=st.lists(ACTS, max_size=2),
        hidden=ACTS,
        first=st.integers(0, 5),
        count=st.sampled_from([1, 1, 2, 3, 60]),
    )
    def back_up_while_tracking_lies(
        self, acts: list[Act], hidden: Act, first: int, count: int
    ) -> None:
        self._let_tracking_be_used()
        self.guest_works(acts)
        lied, clusters = self.guest.act(hidden)
        at = clusters[first % len(clusters)]
        self._back_up(lie=Lie(LEAVES_OUT, lied.uuid, lied.key, range(at, at + count)))

    @rule(
        acts=st.lists(ACTS, max_size=2),
        denied=ACTS,
        count=st.sampled_from([1, 1, 3, 60]),
        full=st.sampled_from([False, False, True]),
        trouble=st.none() | OF_TRACKING,
    )
    def back_up_while_the_host_denies_what_it_has(
        self, acts: list[Act], denied: Act, count: int, full: bool, trouble: Trouble | None
    ) -> None:
        if trouble is None and not full:
            self._let_tracking_be_used()
        self.guest_works(acts)
        lied, clusters = self.guest.act(denied)
        lie = Lie(DENIES, lied.uuid, lied.key, range(clusters.start, clusters.start + count))
        self._back_up(full=full, trouble=trouble, lie=lie)

    @precondition(lambda self: len(self.guest.snapshots) < 2)
    @rule(
        acts=st.lists(ACTS, min_size=1, max_size=4),
        since=st.booleans(),
        tracking=st.sampled_from(REVERTED_TRACKING),
    )
    def back_up_around_a_revert(
        self, acts: list[Act], since: bool, tracking: RevertedTracking
    ) -> None:
        """`since`: to a snapshot made after the last backup; else to one of before it."""
        if since:
            self._back_up()
            self.guest_works(acts)
        self.somebody_takes_a_snapshot()
        if not since:
            self.guest_works(acts)
            self._back_up()
        self.vm_is_reverted(len(self.guest.snapshots) - 1, tracking)
        self._back_up()

    def _let_tracking_be_used(self) -> None:
        """Backups until the next one can ask for changes."""
        while self.guest.snapshots:
            self.guest.remove_snapshot(0)
        for _ in range(2):
            if self.points.distrusted or self.guest.calm_disks() != self.guest.disks.keys():
                self._back_up()

    def _back_up(
        self,
        *,
        meanwhile: Sequence[Act] = (),
        full: bool = False,
        trouble: Trouble | None = None,
        lie: Lie | None = None,
    ) -> None:
        self.sound = False
        vm, faults = self.world.vm, self.world.site.faults
        truth = self.guest.images()
        fault = trouble.set(self.world.site, vm.name) if trouble else None
        told = None
        if lie:
            told = faults.set(
                lie.fault,
                vm=vm.name,
                disk=lie.key,
                offset=lie.clusters.start * CLUSTER,
                length=len(lie.clusters) * CLUSTER,
            )
        job = self.world.back_up(
            full=full,
            quiesce=trouble is not None and trouble.quiesce,
            meanwhile=lambda: self.guest_works(list(meanwhile)),
        )
        faults.clear()
        if fault is not None:
            type(self).fired[trouble.name] += bool(fault.fired)
        if lie and told is not None:
            type(self).fired[lie.fault] += bool(told.fired)
        if trouble is not None and fault.fired and trouble.may_fail(job):
            assert job.status == BackupStatus.FAILED, job
            assert job.error.reason, job
        else:
            assert job.status == BackupStatus.COMPLETED, job
            self._completed(job, truth, trouble, lie)
        self._check_snapshots(job, trouble)
        self.sound = True

    def _completed(
        self,
        job: Backup,
        truth: dict[str, Image],
        trouble: Trouble | None,
        lie: Lie | None,
    ) -> None:
        calm = self.guest.calm_disks() if trouble is None or not trouble.compares else set()
        if self.leftover or self.points.distrusted:
            calm = set()
        self.points.add(job, truth, lie, calm)
        no_ids = trouble is not None and trouble.name == "change-id-missing"
        self.guest.backed_up("the last backup has no change ids" if no_ids else "")
        type(self).backups += 1

    def _check_snapshots(self, job: Backup, trouble: Trouble | None) -> None:
        """None of ours is left, and all others are; a leftover is told and goes the next time."""
        others = {one.snapshot.name for one in self.guest.snapshots}
        ours = {one.name for one in self.world.vm.snapshots} - others
        assert others <= {one.name for one in self.world.vm.snapshots}
        told = "SNAPSHOT_LEFT_BEHIND" in {warning.code for warning in job.warnings}
        assert told or not ours, (ours, job.warnings)
        if told:  # it may be gone by now: the agent sweeps
            assert trouble is not None and trouble.outcome is Outcome.LEFTOVER, job.warnings
        self.leftover = told

    def teardown(self) -> None:
        with self._stack:
            if self.sound:
                self._back_up()
                self.points.check_all()
                self.points.check_layers(sample=4)
                type(self).survivors.extend(self.points.survivors)
                type(self).caught += self.points.caught
