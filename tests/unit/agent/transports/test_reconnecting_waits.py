"""Waits of disks whose connections fail: for a host, its budget, the next try; and their end."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from agent.cancellation import Cancellation
from agent.transports.errors import (
    ReaderClosed,
)
from agent.transports.nfc.patience import ReconnectPatience
from agent.vsphere.models import JobSnapshot
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.agent.transports.read_disks import (
    CAPACITY,
    DEADLINE_S,
    K,
    content,
    opened,
    take,
    whole,
)

pytestmark = pytest.mark.hostile
ENDLESS = ReconnectPatience(attempts=1000, first_wait_s=3600, longest_wait_s=3600)


def test_host_out_of_connections_is_waited_for(
    simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    patient = ReconnectPatience(attempts=1000, first_wait_s=0.01, longest_wait_s=0.02)
    with (
        VsphereSite.connect(replace(settings, reconnect=patient)) as vsphere,
        ThreadPoolExecutor(1) as pool,
    ):
        snapshot = take(vsphere, vm)
        limit = simulated.faults.set("nfc-connection-limit", limit=1)
        with opened(vsphere, snapshot):
            second = pool.submit(opened, vsphere, snapshot)
            assert limit.wait_fired(DEADLINE_S, times=3)
        with second.result(DEADLINE_S) as reader:
            assert whole(reader) == content(1)


def test_disks_share_the_budget_of_their_host(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    vms = [
        simulated.add_vm(
            f"vm-{n}", disks=[DiskSpec(capacity_bytes=CAPACITY, content=content(n))] * 2
        )
        for n in range(3)
    ]
    small = replace(settings, nfc_connections_per_host=2, nfc_buffers_mib_per_host=6)
    with VsphereSite.connect(small) as vsphere, ThreadPoolExecutor(6) as pool:

        def read(snapshot: JobSnapshot, index: int) -> bytes:
            with vsphere.open_disk(snapshot, snapshot.disks[index], Cancellation()) as reader:
                return whole(reader, longest=5 * K)

        snapshots = [take(vsphere, vm) for vm in vms]
        reads = [pool.submit(read, one, index) for one in snapshots for index in (0, 1)]
        wanted = [content(n) for n in range(3) for _ in (0, 1)]
        assert [each.result(DEADLINE_S) for each in reads] == wanted
        assert vsphere._budget._hosts == {}
    assert simulated.most_nfc_sessions == 2


def test_disk_that_moved_is_read_within_the_other_hosts_budget(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader:
        (before,) = vsphere._budget._hosts
        monkeypatch.setattr(vsphere._tickets, "host_of", lambda _: "host-4711")
        simulated.faults.cut_nfc(on_read=2)
        assert whole(reader, longest=5 * K) == content(1)
        assert before != "host-4711"
        assert list(vsphere._budget._hosts) == ["host-4711"]
    assert vsphere._budget._hosts == {}


def test_wait_for_the_other_hosts_budget_is_no_time_for_the_watch_over_the_reads(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    wait = vsphere._budget._wait_for_change

    def told(*arguments: Any) -> None:
        waiting.set()
        wait(*arguments)

    monkeypatch.setattr(vsphere._budget, "_wait_for_change", told)
    snapshot = take(vsphere, vm)
    with opened(vsphere, snapshot) as reader, ThreadPoolExecutor(1) as pool, ExitStack() as others:
        for _ in range(vsphere._budget._connections):
            others.callback(vsphere._budget.lease("host-4711", Cancellation()).release)
        monkeypatch.setattr(vsphere._tickets, "host_of", lambda _: "host-4711")
        simulated.faults.cut_nfc(on_read=2)
        reading = pool.submit(whole, reader, 5 * K)
        assert waiting.wait(DEADLINE_S)
        stands_at_s = reader.clock_s()
        assert reader.clock_s() == stands_at_s
        others.close()
        assert reading.result(DEADLINE_S) == content(1)
        assert reader.clock_s() > stands_at_s


class Enough(Exception):
    """Why a test's job ends."""


def test_cancelled_job_ends_the_wait_before_the_next_connection(
    simulated: SimulatedSite, settings: VsphereSettings, vm: SimulatedVm
) -> None:
    job = Cancellation()
    with (
        VsphereSite.connect(replace(settings, reconnect=ENDLESS)) as vsphere,
        ThreadPoolExecutor(1) as pool,
    ):
        snapshot = take(vsphere, vm)
        refused = simulated.faults.set("nfc-ticket-refused")
        opening = pool.submit(opened, vsphere, snapshot, job)
        assert refused.wait_fired(DEADLINE_S)
        job.cancel(Enough())
        with pytest.raises(Enough):
            opening.result(DEADLINE_S)
        assert vsphere._budget._hosts == {}


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_read_that_stalls_ends_with_its_job_or_its_reader(
    simulated: SimulatedSite, vsphere: VsphereSite, vm: SimulatedVm, how: str
) -> None:
    job = Cancellation()
    snapshot = take(vsphere, vm)
    reader = opened(vsphere, snapshot, job)
    stall = simulated.faults.set("nfc-stall", skip=2)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(whole, reader, K)
        assert stall.wait_fired(DEADLINE_S)
        if how == "cancelled":
            job.cancel(Enough())
        else:
            reader.close()
        with pytest.raises(Enough if how == "cancelled" else ReaderClosed):
            reading.result(DEADLINE_S)
    # The thread that was reading gave everything back.
    assert vsphere._budget._hosts == {}
    assert job._callbacks == {}
    reader.close()


def test_wait_for_the_budget_ends_when_its_job_is_cancelled(
    settings: VsphereSettings, vm: SimulatedVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Cancellation()
    waiting = threading.Event()
    with (
        VsphereSite.connect(replace(settings, nfc_connections_per_host=1)) as vsphere,
        ThreadPoolExecutor(1) as pool,
    ):
        wait = vsphere._budget._wait_for_change

        def told(*arguments: Any) -> None:
            waiting.set()
            wait(*arguments)

        monkeypatch.setattr(vsphere._budget, "_wait_for_change", told)
        snapshot = take(vsphere, vm)
        with opened(vsphere, snapshot) as first:
            second = pool.submit(opened, vsphere, snapshot, job)
            assert waiting.wait(DEADLINE_S)
            job.cancel(Enough())
            with pytest.raises(Enough):
                second.result(DEADLINE_S)
            assert whole(first) == content(1)
