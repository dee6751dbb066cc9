"""Faults that a random backup may meet, and what the product may make of each."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from hypothesis import strategies as st

from sendense import Backup, BackupStatus
from simulator.site import SimulatedSite
from tests.model.disks import CLUSTER

ANSWERS_THAT_MAKE_NO_SENSE: Final = (
    "cbt-zero-slice",
    "cbt-gap",
    "cbt-unsorted",
    "cbt-overlap",
    "cbt-beyond-capacity",
)


class Outcome(Enum):
    """What a fault may do to a backup."""

    UNSEEN = "completes as if nothing had happened"
    COMPARED = "completes; disks may be compared instead of asked for"
    LEFTOVER = "completes; the snapshot stays, with a warning"
    FAILED = "fails"
    EITHER = "completes or fails"


@dataclass(frozen=True)
class Trouble:
    """A fault of the simulator that is set while one backup runs."""

    name: str
    outcome: Outcome = Outcome.UNSEEN
    times: int | None = 1
    skip: int = 0
    quiesce: bool = False
    on_vm: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def compares(self) -> bool:
        """Whether a disk may be compared because of it."""
        return self.outcome is Outcome.COMPARED

    def may_fail(self, job: Backup) -> bool:
        """Whether the job is to have failed, or did as it may. It hit the job."""
        if self.outcome is Outcome.FAILED:
            return True
        return self.outcome is Outcome.EITHER and job.status == BackupStatus.FAILED

    def set(self, site: SimulatedSite, vm: str) -> Any:
        """The handle of the fault, which counts how often it fired."""
        return site.faults.set(
            self.name,
            vm=vm if self.on_vm else None,
            times=self.times,
            skip=self.skip,
            **self.options,
        )


def _options(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(strategies)


_OF_THE_API: Final = st.one_of(
    st.builds(
        Trouble,
        name=st.just("session-expiry"),
        on_vm=st.just(False),
        skip=st.integers(0, 40),
        options=st.just({"on": "call"}),
    ),
    st.builds(
        Trouble,
        name=st.just("session-expiry"),
        on_vm=st.just(False),
        skip=st.integers(0, 3),
        options=st.just({"on": "read"}),
    ),
    st.just(Trouble("quiesce-fail", quiesce=True)),
    st.just(Trouble("snapshot-remove-fail")),
    st.just(Trouble("snapshot-remove-fail", Outcome.LEFTOVER, times=None)),
    st.just(Trouble("consolidation-needed")),
    st.just(
        Trouble("task-fail", Outcome.FAILED, times=None, options={"method": "CreateSnapshot_Task"})
    ),
)
_OF_NFC: Final = st.one_of(
    st.builds(
        Trouble,
        name=st.just("nfc-cut"),
        times=st.integers(1, 2),
        options=_options(at_byte=st.sampled_from([0, 60, 400, 3000, CLUSTER, 5 * CLUSTER])),
    ),
    st.builds(Trouble, name=st.just("nfc-cut"), skip=st.integers(0, 3)),
    st.builds(
        Trouble,
        name=st.just("nfc-error-reply"),
        options=_options(on=st.sampled_from(["read", "allocated"])),
    ),
    # Repeated only once the file could be opened.
    st.just(Trouble("nfc-error-reply", Outcome.EITHER, options={"on": "open"})),
    st.just(Trouble("nfc-connection-limit", times=None, on_vm=False, options={"limit": 1})),
    st.builds(
        Trouble,
        name=st.just("nfc-bad-fragment"),
        options=_options(
            field=st.sampled_from(["length", "extra_bytes", "within", "total", "offset"]),
            by=st.sampled_from([512, -512, 1 << 20]),
        ),
    ),
    st.just(Trouble("nfc-ticket-expired")),
    st.just(Trouble("nfc-ticket-refused")),
)
OF_TRACKING: Final = st.one_of(
    st.just(Trouble("file-fault", Outcome.COMPARED)),
    st.just(Trouble("change-id-uuid", Outcome.COMPARED)),
    st.just(Trouble("change-id-missing", Outcome.COMPARED)),
    st.builds(
        Trouble,
        name=st.sampled_from(ANSWERS_THAT_MAKE_NO_SENSE),
        outcome=st.just(Outcome.COMPARED),
        times=st.just(None),
    ),
    st.builds(
        Trouble,
        name=st.just("cbt-slice-bytes"),
        times=st.just(None),
        options=st.sampled_from([{"bytes": 64 << 20}, {"areas": 1}]),
    ),
    st.builds(
        Trouble,
        name=st.just("cbt-extra"),
        times=st.just(None),
        options=_options(fraction=st.sampled_from([0.01, 0.3]), seed=st.integers(0, 99)),
    ),
)

TROUBLES: Final = st.one_of(_OF_THE_API, _OF_NFC, OF_TRACKING)
