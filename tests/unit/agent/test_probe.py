"""`sendense-agent probe`: what it finds, how it says it, and that it changes nothing."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from agent.probe import timed_read as timed
from agent.probe.errors import VmNotThere
from agent.probe.probe import probe
from agent.probe.report import MachineReport, ProbeReport
from agent.probe.screen import lines
from agent.vsphere import privileges
from agent.vsphere.errors import PermissionMissing
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.machines import SimulatedVm
from simulator.site import DiskSpec, SimulatedSite
from tests.unit.agent.test_cli import run, run_bytes, write_config

pytestmark = pytest.mark.hostile

MIB = 1 << 20
LOOKS = {
    "Login",
    "Logout",
    "RetrieveServiceContent",
    "CurrentTime",
    "CreateContainerView",
    "DestroyView",
    "RetrievePropertiesEx",
    "NfcGetVmFiles",
}
CHANGES = (
    "ReconfigVM_Task",
    "CreateSnapshot_Task",
    "CreateSnapshotEx_Task",
    "RemoveSnapshot_Task",
    "RemoveAllSnapshots_Task",
    "RevertToSnapshot_Task",
    "ConsolidateVMDisks_Task",
    "PowerOnVM_Task",
    "PowerOffVM_Task",
    "SuspendVM_Task",
    "NfcRandomAccessOpenDisk",
)


def probed(settings: VsphereSettings, vm: str = "") -> ProbeReport:
    with VsphereSite.connect(settings) as site:
        return probe(site, settings, "1.2.3", vm)


def machine(report: ProbeReport, name: str) -> MachineReport:
    (found,) = [one for one in report.machines if one.name == name]
    return found


@pytest.fixture
def off(simulated: SimulatedSite) -> SimulatedVm:
    """A VM that is off, with 3 MiB of data and 65 MiB of nothing."""
    vm = simulated.add_vm(
        "off", disks=[DiskSpec(capacity_bytes=68 * MIB)], power_state="poweredOff"
    )
    vm.disks[0].write(65 * MIB, b"data" * (3 * MIB // 4))
    return vm


def test_probe_asks_and_changes_nothing(
    simulated: SimulatedSite, settings: VsphereSettings, off: SimulatedVm
) -> None:
    on = simulated.add_vm("on", disks=[DiskSpec(capacity_bytes=MIB)])
    on.create_snapshot("by hand")
    simulated.faults.set("consolidation-needed", vm="on")
    before = [(vm.changed_at, [one.name for one in vm.snapshots]) for vm in (off, on)]
    report = probed(settings)
    assert report.read.read_bytes
    assert {method: simulated.faults.calls(method) for method in CHANGES} == dict.fromkeys(
        CHANGES, 0
    )
    assert all(simulated.faults.calls(method) for method in LOOKS)
    assert [(vm.changed_at, [one.name for one in vm.snapshots]) for vm in (off, on)] == before
    assert not off.change_tracking_enabled
    assert simulated.sessions.all() == []


def test_disk_of_a_vm_that_is_off_is_read_where_it_is_allocated(
    settings: VsphereSettings, off: SimulatedVm
) -> None:
    read = probed(settings).read
    assert (read.source, read.vm, read.disk) == ("powered-off VM", "off", "Hard disk 1")
    assert read.file_name == off.disks[0].current.file_name
    assert read.allocated_only
    assert read.read_bytes == read.wanted_bytes == 3 * MIB
    assert read.mib_per_s > 0
    assert read.problem == ""


def test_at_most_64_mib_are_read_even_where_allocation_is_not_known(
    simulated: SimulatedSite, settings: VsphereSettings, off: SimulatedVm
) -> None:
    simulated.faults.set("nfc-error-reply", on="allocated")
    read = probed(settings).read
    assert not read.allocated_only
    assert read.read_bytes == read.wanted_bytes == 64 * MIB


def test_frozen_disk_of_a_snapshot_is_read_where_every_vm_runs(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    vm = simulated.add_vm(
        "on", disks=[DiskSpec(capacity_bytes=MIB), DiskSpec(capacity_bytes=2 * MIB)]
    )
    snapshot = vm.create_snapshot("by hand")
    read = probed(settings).read
    assert (read.source, read.snapshot, read.disk) == ("snapshot", "by hand", "Hard disk 2")
    assert read.file_name == snapshot.links[vm.disks[1].key].file_name
    assert read.file_name != vm.disks[1].current.file_name
    assert read.read_bytes == 2 * MIB


def test_nothing_to_read_is_said_and_no_failure(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    simulated.add_vm("on", disks=[DiskSpec(capacity_bytes=MIB)])
    report = probed(settings)
    assert (report.read.source, report.read.read_bytes) == ("", 0)
    assert "no VM is powered off" in report.read.problem
    assert report.ok


def test_read_that_does_not_come_is_given_up_and_reported(
    simulated: SimulatedSite,
    settings: VsphereSettings,
    off: SimulatedVm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timed, "LIMIT_S", 0.5)
    stalled = simulated.faults.set("nfc-stall")
    report = probed(settings)
    assert stalled.fired
    assert report.read.problem_code == "READ_TOO_SLOW"
    assert (report.read.source, report.read.read_bytes) == ("powered-off VM", 0)
    assert not report.ok
    assert any("READ_TOO_SLOW" in line for line in lines(report))


def take_job_snapshot(settings: VsphereSettings, vm: SimulatedVm) -> None:
    with VsphereSite.connect(settings) as site:
        site.take_snapshot(
            job_id="job-1",
            vm_moref=vm.moid,
            instance_uuid=vm.instance_uuid,
            quiesce=False,
            owner="agent-1",
        )


@pytest.mark.parametrize("power_state", ["poweredOn", "poweredOff"])
def test_vm_that_a_backup_has_a_snapshot_of_is_left_alone(
    simulated: SimulatedSite, settings: VsphereSettings, power_state: str
) -> None:
    disks = [DiskSpec(capacity_bytes=MIB)]
    vm = simulated.add_vm("a", disks=disks, power_state=power_state)
    vm.create_snapshot("by hand")
    take_job_snapshot(settings, vm)
    tickets = simulated.faults.calls("NfcGetVmFiles")
    report = probed(settings)
    assert (report.read.source, report.read.problem_code) == ("", "")
    assert "but for those that a backup has one of" in report.read.problem
    assert simulated.faults.calls("NfcGetVmFiles") == tickets
    simulated.add_vm("b", disks=disks).create_snapshot("also by hand")
    read = probed(settings).read
    assert (read.vm, read.snapshot, read.read_bytes) == ("b", "also by hand", MIB)


def test_snapshot_whose_disks_cannot_be_asked_for_is_passed_over_for_the_next(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    for name in ("a", "b"):
        simulated.add_vm(name, disks=[DiskSpec(capacity_bytes=MIB)]).create_snapshot("by hand")
    # After the VMs and the roles.
    failing = simulated.faults.set("method-fail", method="RetrievePropertiesEx", skip=2, times=1)
    report = probed(settings)
    assert failing.fired == 1
    assert (report.read.vm, report.read.read_bytes, report.read.problem) == ("b", MIB, "")
    (before,) = report.read.failed_before
    assert (before.source, before.vm, before.disk) == ("snapshot", "a", "")
    assert before.problem_code == "VSPHERE_FAULT"
    assert report.ok
    assert any('tried before: snapshot "by hand" of a: ' in line for line in lines(report))


def test_probe_fails_where_no_snapshot_tells_its_disks(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    for name in ("a", "b"):
        simulated.add_vm(name, disks=[DiskSpec(capacity_bytes=MIB)]).create_snapshot("by hand")
    failing = simulated.faults.set("method-fail", method="RetrievePropertiesEx", skip=2)
    report = probed(settings)
    assert failing.fired == 2
    assert (report.read.source, report.read.vm, report.read.disk) == ("snapshot", "b", "")
    assert report.read.problem_code == "VSPHERE_FAULT"
    assert [one.vm for one in report.read.failed_before] == ["a"]
    assert not report.ok
    assert any(line.strip().startswith("failed: vSphere cannot") for line in lines(report))


def test_disk_that_cannot_be_read_is_passed_over_for_the_next_then_for_snapshots(
    simulated: SimulatedSite, settings: VsphereSettings, off: SimulatedVm
) -> None:
    off.add_disk(DiskSpec(capacity_bytes=2 * MIB))
    simulated.add_vm("on", disks=[DiskSpec(capacity_bytes=MIB)]).create_snapshot("by hand")
    first = simulated.faults.set("nfc-error-reply", vm="off", disk=0, on="open")
    read = probed(settings).read
    assert first.fired
    assert (read.vm, read.disk, read.read_bytes) == ("off", "Hard disk 2", 2 * MIB)
    second = simulated.faults.set("nfc-error-reply", vm="off", disk=1, on="open")
    report = probed(settings)
    assert second.fired
    assert (report.read.source, report.read.vm, report.read.read_bytes) == ("snapshot", "on", MIB)
    assert [(one.vm, one.disk) for one in report.read.failed_before] == [
        ("off", "Hard disk 1"),
        ("off", "Hard disk 2"),
    ]
    assert report.ok


def test_password_that_stops_working_is_not_tried_for_every_disk(
    simulated: SimulatedSite, settings: VsphereSettings, off: SimulatedVm
) -> None:
    off.add_disk(DiskSpec(capacity_bytes=2 * MIB))
    with VsphereSite.connect(settings) as site:
        machines = site.survey().machines
        simulated._soap.methods._password = "another one"
        simulated.sessions.end_all()
        read = timed.timed_read(site, machines, settings.transport)
    assert (read.disk, read.problem_code) == ("Hard disk 1", "VSPHERE_LOGIN_FAILED")
    assert read.failed_before == []


GET_FILES = "VirtualMachine.Provisioning.GetVmFiles"
RANDOM_READ = "VirtualMachine.Provisioning.DiskRandomRead"


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ([], []),
        (["VirtualMachine.State.CreateSnapshot"], [["VirtualMachine.State.CreateSnapshot"]]),
        (["VirtualMachine.State.RemoveSnapshot"], [["VirtualMachine.State.RemoveSnapshot"]]),
        (["VirtualMachine.Config.ChangeTracking"], [["VirtualMachine.Config.ChangeTracking"]]),
        # Either of two gives tickets; one of them is needed for what changed as well.
        ([GET_FILES], []),
        ([RANDOM_READ], [[RANDOM_READ]]),
        ([GET_FILES, RANDOM_READ], [[RANDOM_READ], [GET_FILES, RANDOM_READ]]),
        # One that no backup needs.
        (["VirtualMachine.State.RevertToSnapshot"], []),
    ],
    ids=lambda one: "+".join(str(part).rsplit(".", 1)[-1] for part in one) or "none",
)
def test_missing_privileges_are_named_with_the_vms(
    simulated: SimulatedSite, settings: VsphereSettings, missing: list[str], told: list[list[str]]
) -> None:
    simulated.behaviour.privileges_missing = frozenset(missing)
    for name in ("a", "b"):
        simulated.add_vm(name, disks=[DiskSpec(capacity_bytes=MIB)])
    report = probed(settings)
    assert [one.any_of for one in report.privileges.missing] == told
    assert all(one.vms == ["a", "b"] for one in report.privileges.missing)
    assert report.ok is not bool(told)


def test_privilege_that_no_backup_is_known_to_need_is_recommended_and_no_failure(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    simulated.behaviour.privileges_missing = frozenset({"VirtualMachine.Config.DiskLease"})
    simulated.add_vm("on", disks=[DiskSpec(capacity_bytes=MIB)])
    report = probed(settings)
    (told,) = report.privileges.recommended
    assert (told.any_of, told.vms) == (["VirtualMachine.Config.DiskLease"], ["on"])
    assert report.privileges.missing == []
    assert report.ok
    shown = list(lines(report))
    assert any("has all that backups need" in line for line in shown)
    assert any(
        line.strip().startswith("recommended: VirtualMachine.Config.DiskLease") for line in shown
    )


@pytest.mark.parametrize(
    "privilege", ["VirtualMachine.State.CreateSnapshot", "VirtualMachine.Config.ChangeTracking"]
)
def test_what_the_probe_calls_missing_is_what_a_backup_is_refused(
    simulated: SimulatedSite, settings: VsphereSettings, privilege: str
) -> None:
    vm = simulated.add_vm("on", disks=[DiskSpec(capacity_bytes=MIB)])
    simulated.behaviour.privileges_missing = frozenset({privilege})
    ((told,),) = [one.any_of for one in probed(settings).privileges.missing]
    with VsphereSite.connect(settings) as site:
        try:
            snapshot = site.take_snapshot(
                job_id="1",
                vm_moref=vm.moid,
                instance_uuid=vm.instance_uuid,
                quiesce=False,
                owner="agent-1",
            )
        except PermissionMissing as error:
            assert error.privilege == told
        else:
            (warning,) = snapshot.warnings
            assert told in warning.message


@pytest.mark.parametrize("how", ["no manager", "no answer"])
def test_privileges_that_vsphere_does_not_show_are_called_neither_fine_nor_missing(
    simulated: SimulatedSite, settings: VsphereSettings, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    simulated.add_vm("on", disks=[DiskSpec(capacity_bytes=MIB)])
    simulated.behaviour.privileges_missing = frozenset({"System.View"})
    with VsphereSite.connect(settings) as site:
        if how == "no manager":
            site._session.content.authorizationManager = None
        else:
            monkeypatch.setattr(privileges, "properties_of", lambda *_: {})
        report = probe(site, settings, "1.2.3", "")
    assert "does not show them" in report.privileges.problem
    assert report.privileges.missing == []
    assert not report.ok
    assert any(line.startswith("privileges  not known") for line in lines(report))


def test_tracking_is_told_vm_by_vm(simulated: SimulatedSite, settings: VsphereSettings) -> None:
    disks = [DiskSpec(capacity_bytes=MIB)]
    simulated.add_vm("never", disks=disks)
    simulated.add_vm("stays off", disks=disks).create_snapshot("by hand")
    simulated.add_vm("at the next stun", disks=disks, change_tracking_enabled=True)
    active = simulated.add_vm("active", disks=disks, change_tracking_enabled=True)
    active.remove_snapshot(active.create_snapshot("stuns it"))
    states = {one.name: one.tracking.state for one in probed(settings).machines}
    assert states == {
        "never": "off",
        "stays off": "off_snapshots",
        "at the next stun": "enabled",
        "active": "active",
    }


def test_what_cannot_be_backed_up_is_told_with_the_reason(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    plain = DiskSpec(capacity_bytes=MIB)
    outside = DiskSpec(capacity_bytes=MIB, mode="independent_persistent")
    raw = DiskSpec(capacity_bytes=MIB, physical_rdm=True)
    shared = DiskSpec(capacity_bytes=MIB, multi_writer=True)
    for name, disks in {
        "mixed": [plain, outside, raw],
        "shared": [plain, shared],
        "outside": [outside],
        "bare": [],
    }.items():
        simulated.add_vm(name, disks=disks)
    simulated.add_vm("being made", disks=[plain]).instance_uuid = ""
    report = probed(settings)
    mixed = machine(report, "mixed")
    assert mixed.problem == ""
    assert [word in disk.problem for word, disk in zip(
        ("", "independent", "raw device"), mixed.disks, strict=True)] == [True] * 3  # fmt: skip
    assert mixed.disks[0].problem == ""
    assert "multi-writer" in machine(report, "shared").problem
    assert "snapshot would freeze" in machine(report, "outside").problem
    assert machine(report, "bare").problem == "it has no disk"
    (left_out,) = report.left_out
    assert left_out.name == "being made"
    assert "cannot be read" in left_out.reason
    assert report.ok  # nothing that the user's role or the network could change


def test_old_snapshots_and_disks_apart_are_alarms(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    vm = simulated.add_vm("on", disks=[DiskSpec(capacity_bytes=MIB)])
    vm.create_snapshot("forgotten", age=timedelta(days=40))
    simulated.faults.set("consolidation-needed", vm="on")
    (found,) = probed(settings).machines
    assert [alarm.code for alarm in found.alarms] == ["SNAPSHOT_OLD", "CONSOLIDATION_NEEDED"]
    assert [(one.name, one.is_sendense) for one in found.snapshots] == [("forgotten", False)]
    relaxed = replace(settings, snapshot_age_alarm_h=24 * 50.0)
    (found,) = probed(relaxed).machines
    assert [alarm.code for alarm in found.alarms] == ["CONSOLIDATION_NEEDED"]


def test_one_vm_is_probed_by_name_moref_or_uuid(
    simulated: SimulatedSite, settings: VsphereSettings, off: SimulatedVm
) -> None:
    vm = simulated.add_vm("on", disks=[DiskSpec(capacity_bytes=MIB)])
    for name in ("on", vm.moid, vm.instance_uuid.upper()):
        report = probed(settings, name)
        assert [one.name for one in report.machines] == ["on"]
        assert report.read.source == ""  # the disk of another VM is not read
    with pytest.raises(VmNotThere, match="nobody"):
        probed(settings, "nobody")


def test_program_prints_the_report_as_json(
    tmp_path: Path, simulated: SimulatedSite, off: SimulatedVm
) -> None:
    config = write_config(tmp_path, simulated, "127.0.0.1:8443")
    done = run("probe", "--json", "--config", str(config))
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert set(report) == {
        "site", "agent_version", "vsphere", "privileges", "machines", "left_out", "read", "format",
    }  # fmt: skip
    assert report["format"] == 1
    assert report["vsphere"]["full_name"].startswith("VMware ESXi 8.0.3")
    assert report["vsphere"]["api_type"] == "HostAgent"
    assert [one["name"] for one in report["machines"]] == ["off"]
    assert report["read"]["read_bytes"] == 3 * MIB
    assert simulated.password not in done.stdout


def test_program_tells_people_and_exits_with_1_when_something_is_missing(
    tmp_path: Path, simulated: SimulatedSite, off: SimulatedVm
) -> None:
    simulated.behaviour.privileges_missing = frozenset({GET_FILES, RANDOM_READ})
    config = write_config(tmp_path, simulated, "127.0.0.1:8443")
    done = run("probe", "--config", str(config))
    assert (done.returncode, done.stderr) == (1, "")
    assert f"{GET_FILES} or {RANDOM_READ} on every VM, to get tickets" in done.stdout
    assert "VSPHERE_PERMISSION_MISSING" in done.stdout
    assert "off (1), poweredOff" in done.stdout


NAME = "Büro – Ärzte ✓"


@pytest.mark.parametrize(
    ("encoding", "printed"),
    # ASCII is taken for a setting that nobody made.
    [("latin-1", "latin-1"), ("koi8-r", "koi8-r"), ("ascii", "utf-8"), ("utf-8", "utf-8")],
)
def test_program_prints_names_that_the_screen_cannot_show(
    tmp_path: Path, simulated: SimulatedSite, encoding: str, printed: str
) -> None:
    simulated.add_vm(NAME, disks=[DiskSpec(capacity_bytes=MIB)])
    config = write_config(tmp_path, simulated, "127.0.0.1:8443")
    as_json = run_bytes("probe", "--json", "--config", str(config), PYTHONIOENCODING=encoding)
    assert (as_json.returncode, as_json.stderr) == (0, b"")
    assert json.loads(as_json.stdout.decode("ascii"))["machines"][0]["name"] == NAME
    shown = run_bytes("probe", "--config", str(config), PYTHONIOENCODING=encoding)
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert NAME.encode(printed, "backslashreplace") in shown.stdout


def test_program_says_beforehand_what_the_read_may_hold_up() -> None:
    told = " ".join(run("probe", "--help").stdout.split())
    assert "at most 5 minutes" in told
    assert "refuse to power that VM on, or to merge that snapshot" in told


def test_program_that_is_asked_for_an_unknown_vm_exits_with_2(
    tmp_path: Path, simulated: SimulatedSite
) -> None:
    config = write_config(tmp_path, simulated, "127.0.0.1:8443")
    done = run("probe", "--vm", "nobody", "--config", str(config))
    assert (done.returncode, done.stdout) == (2, "")
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr
