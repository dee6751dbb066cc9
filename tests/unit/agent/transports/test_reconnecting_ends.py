"""What ends the reading of a disk whose connections fail, and with which error."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tenacity import RetryCallState, Retrying

from agent.areas import Area
from agent.cancellation import Cancellation
from agent.errors import HubUnreachable
from agent.transports.errors import (
    NfcCertificateMismatch,
    NfcConnectionLost,
    NfcOpenRefused,
    NfcReadFailed,
    NfcRefused,
    NfcRunningDisk,
    NfcTicketRefused,
    NfcWrongSize,
    ReaderClosed,
)
from agent.transports.nfc.connections import NfcConnections
from agent.transports.nfc.patience import ReconnectPatience
from agent.transports.nfc.reader import NfcDiskReader
from agent.transports.nfc.reconnecting import SAME_PLACE
from agent.transports.nfc.ticket import NfcTicket
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.transports.read_disks import (
    ATTEMPTS,
    CAPACITY,
    EAGER,
    K,
    content,
    opened,
    pieces,
    take,
    whole,
)

pytestmark = pytest.mark.hostile


def test_place_that_the_host_cannot_read_ends_it_after_fresh_connections(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    bad = simulated.faults.set("nfc-error-reply", vm="pg", offset=20 * K, code=5)
    with opened(vsphere, snapshot) as reader:
        with pytest.raises(NfcReadFailed) as caught:
            whole(reader, longest=K)
        with pytest.raises(ReaderClosed):
            whole(reader)
    assert bad.fired == 1 + SAME_PLACE
    error = caught.value
    assert (error.offset_bytes, error.host, error.path) == (
        20 * K,
        "127.0.0.2",
        snapshot.disks[0].file_name,
    )
    assert "0x5" in str(error)


@pytest.mark.parametrize(
    ("fault", "options", "error"),
    [
        ("nfc-ticket-refused", {}, NfcRefused),
        ("nfc-ticket-expired", {}, NfcRefused),
        ("nfc-cut", {"at_byte": 700}, NfcConnectionLost),
        ("nfc-connection-limit", {"limit": 0}, NfcConnectionLost),
    ],
)
def test_failure_that_stays_is_told_with_host_and_disk_when_patience_ends(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    vm: SimulatedVm,
    fault: str,
    options: dict[str, Any],
    error: type[Exception],
) -> None:
    snapshot = take(vsphere, vm)
    armed = simulated.faults.set(fault, **options)
    with pytest.raises(error) as caught:
        opened(vsphere, snapshot)
    assert armed.fired == ATTEMPTS
    assert "127.0.0.2" in str(caught.value)
    assert snapshot.disks[0].file_name in str(caught.value)
    assert vsphere._budget._hosts == {}


def test_patience_in_seconds_ends_it_too(
    simulated: SimulatedSite, plain: VsphereSettings, vm: SimulatedVm
) -> None:
    hurried = ReconnectPatience(attempts=1000, total_s=0.0)
    with VsphereSite.connect(replace(plain, reconnect=hurried)) as vsphere:
        snapshot = take(vsphere, vm)
        cut = simulated.faults.set("nfc-cut", at_byte=0)
        with pytest.raises(NfcConnectionLost):
            opened(vsphere, snapshot)
        assert cut.fired == 1


def test_running_vms_current_link_is_refused_at_once(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    vm.power("poweredOn")
    (info,) = [one for one in vsphere.virtual_machines() if one.moref == vm.moid]
    running = replace(snapshot.disks[0], file_name=info.disks[0].file_name)
    tickets = simulated.faults.calls("NfcGetVmFiles")
    with pytest.raises(NfcRunningDisk, match="snapshot froze") as caught:
        vsphere.open_disk(snapshot, running, Cancellation())
    assert caught.value.host == "127.0.0.2"
    assert simulated.faults.calls("NfcGetVmFiles") == tickets + 1


def test_changed_certificate_of_the_nfc_service_ends_it_at_once(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    reader = opened(vsphere, snapshot)
    areas = pieces([Area(0, CAPACITY)], K)
    tickets = simulated.faults.calls("NfcGetVmFiles")
    seen = simulated.change_certificate("nfc")  # drops the connections, too
    with pytest.raises(NfcCertificateMismatch) as caught:
        list(reader.read(areas))
    assert caught.value.seen == seen.replace(":", "").lower()
    assert simulated.faults.calls("NfcGetVmFiles") == tickets + 1
    assert vsphere._budget._hosts == {}


def test_file_that_is_held_for_a_moment_is_opened_a_little_later(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    times = EAGER.first_opens - 1
    held = simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=times)
    with opened(vsphere, snapshot) as reader:
        assert whole(reader, longest=5 * K) == content(1)
    assert held.fired == times
    assert simulated.faults.calls("NfcGetVmFiles") == times + 1


def test_file_that_stays_held_is_told_after_a_few_tries(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    held = simulated.faults.set("nfc-error-reply", vm="pg", on="open", code=7)
    with pytest.raises(NfcOpenRefused, match="0x7") as caught:
        opened(vsphere, snapshot)
    assert not isinstance(caught.value, NfcRunningDisk)
    assert held.fired == EAGER.first_opens < ATTEMPTS
    assert vsphere._budget._hosts == {}


def test_refusals_before_the_first_open_do_not_count_with_those_after_it(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    before = simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=2)
    with opened(vsphere, snapshot) as reader:
        simulated.faults.cut_nfc(on_read=3)
        after = simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=2)
        assert whole(reader, longest=5 * K) == content(1)
    assert (before.fired, after.fired) == (2, 2)
    simulated.faults.assert_all_fired()


def test_file_that_is_held_is_waited_for_although_nobody_tells_what_the_vm_runs_on(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(vsphere, vm)
    asked = []
    ask = NfcConnections.connect

    def refuse_the_question(self: NfcConnections, stop: Cancellation) -> NfcDiskReader:
        try:
            return ask(self, stop)
        finally:
            asked.append(simulated.faults.clear("method-fail"))

    ticket = vsphere._tickets.for_disk

    def then_silent(moref: str, key: int) -> NfcTicket:
        given = ticket(moref, key)
        simulated.faults.set("method-fail", method="RetrievePropertiesEx")
        return given

    monkeypatch.setattr(NfcConnections, "connect", refuse_the_question)
    monkeypatch.setattr(vsphere._tickets, "for_disk", then_silent)
    held = simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=1)
    with opened(vsphere, snapshot):
        assert held.fired == 1
    assert [[one.fired for one in each] for each in asked] == [[1], [0]]


def test_file_of_another_size_is_not_opened_twice(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    wrong = replace(snapshot.disks[0], capacity_bytes=CAPACITY + 512)
    with pytest.raises(NfcWrongSize):
        vsphere.open_disk(snapshot, wrong, Cancellation())
    assert simulated.faults.calls("NfcGetVmFiles") == 1


@pytest.mark.parametrize(("on", "more_s"), [("open", 5.0), ("read", 0.0)])
def test_refused_open_is_given_more_time_than_other_failures(on: str, more_s: float) -> None:
    refused = (
        NfcOpenRefused("esx", "[ds] a", "busy")
        if on == "open"
        else NfcRefused("esx", 902, "[ds] a", "log in", "busy")
    )
    patience = ReconnectPatience(first_wait_s=0.0, open_wait_s=5.0)
    state = RetryCallState(Retrying(), None, (), {})
    state.set_exception((type(refused), refused, None))
    assert patience.wait_s(state) == more_s


def test_file_that_was_open_before_is_opened_again_although_refused_once(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        simulated.faults.cut_nfc(on_read=3)
        simulated.faults.set("nfc-error-reply", vm="pg", on="open", times=1)
        assert whole(reader, longest=5 * K) == content(1)
    simulated.faults.assert_all_fired()


def test_fault_of_vsphere_is_waited_out_for_a_disk_half_read_and_told_for_another(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm
) -> None:
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        simulated.faults.cut_nfc(on_read=3)
        simulated.faults.fail_method("NfcGetVmFiles")
        assert whole(reader, longest=5 * K) == content(1)
    simulated.faults.fail_method("NfcGetVmFiles")
    with pytest.raises(NfcTicketRefused, match="SystemError"):
        opened(vsphere, snapshot)
    simulated.faults.assert_all_fired()


class Enough(Exception):
    """Why a test's job ends."""


@pytest.mark.parametrize("error", [Enough(), HubUnreachable("gone")], ids=["any", "retryable"])
def test_error_of_whoever_names_the_areas_is_not_a_failure_of_the_connection(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, error: Exception
) -> None:
    def areas() -> Iterator[Area]:
        yield Area(0, K)
        raise error

    snapshot = take(vsphere, vm)
    tickets = simulated.faults.calls("NfcGetVmFiles")
    with opened(vsphere, snapshot) as reader, pytest.raises(type(error)) as caught:
        list(reader.read(areas()))
    assert caught.value is error
    assert simulated.faults.calls("NfcGetVmFiles") == tickets + 1
