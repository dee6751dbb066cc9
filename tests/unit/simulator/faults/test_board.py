"""The board: orders, scopes, how often, and what is told of it."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.disks.disk import DiskSpec
from simulator.disks.link import GRAIN
from simulator.faults.api_kinds import MethodFail, VimFaultName
from simulator.faults.board import FaultBoard
from simulator.faults.kind import Place
from simulator.faults.methods import METHODS, TASK_METHODS
from simulator.faults.nfc_kinds import NfcCut
from simulator.faults.registry import KINDS, BadFault, described
from simulator.faults.tracking_kinds import CbtOmit
from simulator.site import SimulatedSite
from simulator.soap.faults import named_fault
from tests.unit.simulator.conftest import MIB

pytestmark = pytest.mark.hostile
DEADLINE_S = 30


@pytest.fixture
def board() -> FaultBoard:
    return FaultBoard()


def test_fault_fires_as_often_as_ordered_after_the_chances_it_lets_pass(board: FaultBoard) -> None:
    fault = board.set("nfc-cut", times=2, skip=1)
    fired = [board.fire(NfcCut) is fault for _ in range(5)]
    assert fired == [False, True, True, False, False]
    assert (fault.fired, fault.live) == (2, False)
    assert board.list() == [fault]


def test_fault_without_times_fires_until_it_is_cleared(board: FaultBoard) -> None:
    fault = board.set("nfc-cut")
    assert all(board.fire(NfcCut) for _ in range(10))
    assert board.clear(fault) == [fault]
    assert board.fire(NfcCut) is None
    assert board.list() == []


def test_every_fault_of_a_kind_counts_a_chance_that_another_takes(board: FaultBoard) -> None:
    board.set("nfc-cut", times=1)
    later = board.set("nfc-cut", times=1, skip=2)
    assert board.fire(NfcCut)
    assert board.fire(NfcCut) is None
    assert board.fire(NfcCut) is later


def test_fault_of_one_place_does_not_fire_at_others(board: FaultBoard) -> None:
    board.set("nfc-cut", vm="a", disk=2001)
    for place in (Place(), Place("a"), Place("b", 2001), Place("a", 2000)):
        assert board.fire(NfcCut, place) is None
    assert board.fire(NfcCut, Place("a", 2001))


def test_clearing_takes_those_that_are_named(board: FaultBoard) -> None:
    first = board.set("nfc-cut", vm="a")
    second = board.set("nfc-stall", vm="a")
    third = board.set("nfc-stall", vm="b")
    assert board.clear(first.number) == [first]
    assert board.clear("nfc-stall", vm="b") == [third]
    assert board.clear(vm="b") == []
    assert board.clear() == [second]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"name": "nfc-rot"}, "no fault is named 'nfc-rot'; there are: .*nfc-cut"),
        ({"name": "nfc-cut", "colour": 1}, "nfc-cut: colour: Extra inputs .*options: at_byte"),
        ({"name": "nfc-cut", "at_byte": "wide"}, "at_byte: 'wide' is no size"),
        ({"name": "nfc-cut", "at_byte": -1}, "at_byte: Input should be greater"),
        ({"name": "nfc-cut", "times": 0}, "times is a number from 1 on"),
        ({"name": "nfc-cut", "skip": -1}, "skip one from 0 on"),
        ({"name": "nfc-cut", "disk": 0}, "disk 0 of which VM"),
        ({"name": "method-fail"}, "method: Field required"),
        ({"name": "method-fail", "method": "createsnapshot"}, "near it are: CreateSnapshot_Task"),
        ({"name": "method-fail", "method": "NoSuchThing"}, "has no method 'NoSuchThing'; there"),
        ({"name": "answer-lost", "method": "login"}, "the site has no method 'login'; .*: Login"),
        ({"name": "answer-held", "method": ""}, "the site has no method ''; there are: "),
        ({"name": "session-expiry", "method": "LogIn"}, "near it are: Login"),
        ({"name": "task-stall", "method": "Login"}, "no task is started by 'Login'; there are"),
        ({"name": "task-slow", "method": "CreateSnapshot", "seconds": 1}, "CreateSnapshot_Task"),
        ({"name": "task-fail", "method": "RemoveSnapshots"}, "near it are: RemoveSnapshot_Task"),
        ({"name": "cbt-slice-bytes"}, "bytes or areas says what is limited"),
        ({"name": "nfc-connection-limit", "limit": 1, "vm": "a"}, "cannot be set for one vm alone"),
        ({"name": "task-stall", "vm": "a", "disk": 0}, "cannot be set for one disk alone"),
    ],
)
def test_order_that_makes_no_sense_is_told_why(
    board: FaultBoard, order: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadFault, match=said):
        board.set(**order)
    assert board.list() == []


@pytest.mark.parametrize("which", [7, "nfc-rot"])
def test_clearing_what_is_not_there_is_told(board: FaultBoard, which: int | str) -> None:
    with pytest.raises(BadFault, match="no fault"):
        board.clear(which)


def test_faults_of_a_site_name_its_vms_and_disks(site: SimulatedSite) -> None:
    vm = site.add_vm("db", [DiskSpec(MIB), DiskSpec(MIB, controller=1)])
    fault = site.faults.set("cbt-omit", vm="db", disk=1)
    assert fault.place == Place(vm.moid, 2016)
    assert site.faults.set("cbt-omit", vm=vm.moid, disk=2016).place == fault.place
    with pytest.raises(BadFault, match="no VM 'web'; there are: db"):
        site.faults.set("cbt-omit", vm="web")
    with pytest.raises(BadFault, match="db has no disk 5"):
        site.faults.set("cbt-omit", vm="db", disk=5)


def test_methods_that_options_may_name_are_those_that_the_site_answers(
    site: SimulatedSite,
) -> None:
    answered = set(site._soap.methods._methods)
    assert set(METHODS) == answered
    assert len(METHODS) == len(answered)
    assert set(TASK_METHODS) == {name for name in answered if name.endswith("_Task")}


def test_what_never_fired_is_told_by_name(board: FaultBoard) -> None:
    board.set("method-fail", method="Login", times=2)
    board.fire(MethodFail)
    with pytest.raises(AssertionError, match="method-fail method=Login fired 1 of 2 times"):
        board.assert_all_fired()
    board.fire(MethodFail)
    board.assert_all_fired()


def test_firing_and_clearing_wake_who_waits(board: FaultBoard) -> None:
    fault = board.set("nfc-stall")
    seen: list[str] = []

    def stalled() -> None:
        fault.fire(Place("a"), offset=5)
        seen.append("stalled")
        assert fault.wait_cleared(DEADLINE_S)
        seen.append("went on")

    thread = threading.Thread(target=stalled)
    thread.start()
    assert fault.wait_fired(DEADLINE_S)
    assert fault.facts()["last"] == {"vm": "a", "disk": None, "offset": 5}
    board.clear("nfc-stall")
    thread.join(DEADLINE_S)
    assert seen == ["stalled", "went on"]


def test_share_of_grains_is_the_same_however_it_is_asked_for() -> None:
    starts = np.arange(10_000, dtype=np.int64) * GRAIN
    picked = CbtOmit(fraction=0.3, seed=7).picks(starts, GRAIN)
    assert 0.27 < picked.mean() < 0.33
    parts = [CbtOmit(fraction=0.3, seed=7).picks(part, GRAIN) for part in np.split(starts, 10)]
    assert (np.concatenate(parts) == picked).all()
    assert (CbtOmit(fraction=0.3, seed=8).picks(starts, GRAIN) != picked).any()
    assert CbtOmit(fraction=1).picks(starts, GRAIN).all()


def test_range_of_areas_takes_every_grain_that_it_touches() -> None:
    starts = np.arange(10, dtype=np.int64) * GRAIN
    picked = CbtOmit.model_validate({"offset": GRAIN + 1, "length": "64 KiB"}).picks(starts, GRAIN)
    assert np.flatnonzero(picked).tolist() == [1, 2]
    assert CbtOmit(offset=8 * GRAIN).picks(starts, GRAIN).sum() == 2


def test_every_kind_is_described_with_its_options() -> None:
    kinds = {one["name"]: one for one in described()}
    assert list(kinds) == list(KINDS)
    assert all(one["text"] for one in kinds.values())
    assert all(option["type"] for one in kinds.values() for option in one["options"])
    assert kinds["nfc-cut"]["options"][0]["type"] == "integer or string"
    (limit,) = kinds["nfc-connection-limit"]["options"]
    assert (limit["name"], limit["required"], limit["type"]) == ("limit", True, "integer")
    assert "frame_bytes" in kinds["nfc-bad-fragment"]["options"][0]["values"]


def test_every_vsphere_fault_that_can_be_ordered_exists() -> None:
    for name in VimFaultName.__args__:  # type: ignore[attr-defined]
        assert type(named_fault(name, "told to", "a.vmx").fault).__name__.endswith(name)


def test_end_of_the_site_lets_go_what_a_fault_held(tmp_path: Path) -> None:
    site = SimulatedSite(tmp_path / "ending")
    site.start()
    fault = site.faults.set("task-stall")
    site.close()
    assert fault.wait_cleared(0)
