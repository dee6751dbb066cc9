"""The vSphere API, judged by pyVmomi: sessions, inventory, properties, tasks, waits."""

import http.client
import ssl
import threading
from typing import Any

import pytest
from pyVim.task import WaitForTask
from pyVmomi import SoapStubAdapter, vim, vmodl

from simulator.disks.disk import DiskSpec
from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import MIB, connect, frozen_disks, take_snapshot

PC = vmodl.query.PropertyCollector


def test_login_tells_a_standalone_esxi_8_host(api: Any, site: SimulatedSite) -> None:
    content = api.RetrieveContent()
    assert content.about.apiType == "HostAgent"
    assert content.about.productLineId == "embeddedEsx"
    assert content.about.fullName.startswith("VMware ESXi 8.0")
    assert content.sessionManager.currentSession.userName == site.user
    assert api.CurrentTime().tzinfo is not None


def test_wrong_password_is_invalid_login(site: SimulatedSite) -> None:
    for changes in ({"pwd": "wrong"}, {"user": "nobody"}):
        with pytest.raises(vim.fault.InvalidLogin, match="incorrect user name or password"):
            connect(site, **changes)


def test_second_login_in_a_session_is_refused(api: Any, site: SimulatedSite) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        api.RetrieveContent().sessionManager.Login(site.user, site.password, None)


def test_certificate_that_is_not_trusted_ends_the_connection(site: SimulatedSite) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(site, sslContext=ssl.create_default_context())


def test_certificate_stays_the_same_for_a_state_folder(site: SimulatedSite) -> None:
    folder = site.state_dir
    site.close()
    with SimulatedSite(folder) as again:
        assert again.certificate_sha256 == site.certificate_sha256
        assert again.password == site.password


@pytest.mark.parametrize("way", ["never", "logout", "expired", "terminated"])
def test_calls_without_a_live_session_are_not_authenticated(
    site: SimulatedSite, vm: SimulatedVm, way: str
) -> None:
    api = connect(site)
    seen = vim.VirtualMachine(vm.moid, api._stub)
    manager = api.RetrieveContent().sessionManager
    assert seen.name == vm.name
    if way == "never":
        seen._stub.cookie = ""
    elif way == "logout":
        manager.Logout()
    elif way == "expired":
        assert site.expire_sessions() == 1
    else:
        other = connect(site)
        other.RetrieveContent().sessionManager.TerminateSession([manager.currentSession.key])
    with pytest.raises(vim.fault.NotAuthenticated):
        seen.name  # noqa: B018 (each attribute read is a call)
    with pytest.raises(vim.fault.NotAuthenticated):
        api.CurrentTime()
    manager.Login(site.user, site.password, None)
    assert seen.name == vm.name


def test_idle_session_ends_after_its_limit(site: SimulatedSite, vm: SimulatedVm) -> None:
    api = connect(site)
    site.behaviour.session_idle_s = 0
    with pytest.raises(vim.fault.NotAuthenticated):
        api.CurrentTime()


def test_container_view_lists_vms_and_their_facts(
    api: Any, site: SimulatedSite, vm: SimulatedVm
) -> None:
    site.add_vm("off", power_state="poweredOff")
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    assert [(one.name, one.runtime.powerState) for one in view.view] == [
        (vm.name, "poweredOn"),
        ("off", "poweredOff"),
    ]
    first = view.view[0]
    assert first.config.instanceUuid == vm.instance_uuid
    assert first.summary.config.numVirtualDisks == 2
    assert first.guest.toolsRunningStatus == "guestToolsRunning"
    assert [one.name for one in first.layoutEx.file if one.type == "diskDescriptor"] == [
        "[datastore1] db 1/db 1.vmdk",
        "[datastore1] db 1/db 1_1.vmdk",
    ]
    disks = [
        (one.key, one.controllerKey, one.unitNumber, one.capacityInBytes)
        for one in first.config.hardware.device
        if isinstance(one, vim.vm.device.VirtualDisk)
    ]
    assert disks == [(2000, 1000, 0, 16 * MIB), (2016, 1001, 0, 8 * MIB)]
    view.Destroy()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        view.view  # noqa: B018


def test_inventory_can_be_walked_from_the_root_and_back(api: Any, vm: SimulatedVm) -> None:
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.ManagedEntity], True)
    for entity in view.view:
        at = entity
        while at.parent is not None:
            at = at.parent
        assert at == content.rootFolder
    kinds = {type(entity) for entity in view.view}
    assert {
        vim.Datacenter,
        vim.ComputeResource,
        vim.HostSystem,
        vim.ResourcePool,
        vim.Datastore,
        vim.Folder,
        vim.VirtualMachine,
    } == kinds
    datacenter = content.rootFolder.childEntity[0]
    assert [one.name for one in datacenter.vmFolder.childEntity] == [vm.name]
    host = datacenter.hostFolder.childEntity[0].host[0]
    assert host.summary.config.product.apiType == "HostAgent"
    assert [one.name for one in host.vm] == [vm.name]


def view_filter(view: Any, kind: Any, paths: list[str], *, everything: bool = False) -> Any:
    return PC.FilterSpec(
        objectSet=[
            PC.ObjectSpec(
                obj=view,
                skip=True,
                selectSet=[
                    PC.TraversalSpec(
                        name="members", type=vim.view.ContainerView, path="view", skip=False
                    )
                ],
            )
        ],
        propSet=[PC.PropertySpec(type=kind, pathSet=paths, all=everything)],
    )


def test_property_retrieval_comes_in_pages_with_tokens(
    api: Any, site: SimulatedSite, vm: SimulatedVm
) -> None:
    for number in range(6):
        site.add_vm(f"more {number}")
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [], True)
    collector = content.propertyCollector
    spec = view_filter(view, vim.VirtualMachine, ["name", "config.hardware.device"])
    names: list[str] = []
    page = collector.RetrievePropertiesEx([spec], PC.RetrieveOptions(maxObjects=3))
    sizes = [len(page.objects)]
    while True:
        names += [one.val for item in page.objects for one in item.propSet if one.name == "name"]
        if not page.token:
            break
        token = page.token
        page = collector.ContinueRetrievePropertiesEx(token)
        sizes.append(len(page.objects))
    assert sizes == [3, 3, 1]
    assert names == [one.name for one in site.vms]
    with pytest.raises(vmodl.fault.InvalidArgument):
        collector.ContinueRetrievePropertiesEx(token)


def test_host_limits_pages_of_clients_that_do_not(
    api: Any, site: SimulatedSite, vm: SimulatedVm
) -> None:
    site.add_vm("second")
    site.behaviour.page_objects = 1
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    spec = view_filter(view, vim.VirtualMachine, ["name"])
    page = content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    assert len(page.objects) == 1
    assert page.token


def test_base_types_nested_traversals_and_named_selections_work(api: Any, vm: SimulatedVm) -> None:
    content = api.RetrieveContent()
    spec = PC.FilterSpec(
        objectSet=[
            PC.ObjectSpec(
                obj=content.rootFolder,
                skip=False,
                selectSet=[
                    PC.TraversalSpec(
                        name="folder",
                        type=vim.Folder,
                        path="childEntity",
                        selectSet=[
                            PC.SelectionSpec(name="folder"),
                            PC.TraversalSpec(
                                name="datacenter",
                                type=vim.Datacenter,
                                path="vmFolder",
                                selectSet=[PC.SelectionSpec(name="folder")],
                            ),
                        ],
                    )
                ],
            )
        ],
        propSet=[PC.PropertySpec(type=vim.ManagedEntity, pathSet=["name", "parent"])],
    )
    (page,) = [content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())]
    assert [type(one.obj).__name__ for one in page.objects] == [
        "vim.Folder",
        "vim.Datacenter",
        "vim.Folder",
        "vim.VirtualMachine",
    ]


def test_values_of_any_type_arrive_typed(api: Any, vm: SimulatedVm, seen_vm: Any) -> None:
    content = api.RetrieveContent()
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=seen_vm)],
        propSet=[PC.PropertySpec(type=vim.VirtualMachine, all=True)],
    )
    page = content.propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())
    values = {one.name: one.val for one in page.objects[0].propSet}
    assert isinstance(values["config"], vim.vm.ConfigInfo)
    assert isinstance(values["datastore"][0], vim.Datastore)
    assert isinstance(values["overallStatus"], vim.ManagedEntity.Status)
    assert "snapshot" not in values  # unset properties are left out
    one_path = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=seen_vm)],
        propSet=[
            PC.PropertySpec(
                type=vim.VirtualMachine,
                pathSet=["config.hardware.device[2000].capacityInBytes", "runtime.powerState"],
            )
        ],
    )
    page = content.propertyCollector.RetrievePropertiesEx([one_path], PC.RetrieveOptions())
    assert [one.val for one in page.objects[0].propSet] == [16 * MIB, "poweredOn"]


@pytest.mark.parametrize("path", ["nonsense", "config.nonsense", "name.x", "config..name", ""])
def test_property_that_does_not_exist_is_invalid(api: Any, seen_vm: Any, path: str) -> None:
    spec = PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=seen_vm)],
        propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=[path])],
    )
    with pytest.raises(vmodl.query.InvalidProperty):
        api.RetrieveContent().propertyCollector.RetrievePropertiesEx([spec], PC.RetrieveOptions())


def test_object_that_is_gone_is_not_found(api: Any, site: SimulatedSite, seen_vm: Any) -> None:
    site.remove_vm(site.vms[0])
    with pytest.raises(vmodl.fault.ManagedObjectNotFound) as missing:
        seen_vm.name  # noqa: B018
    assert missing.value.obj == seen_vm


def test_method_of_another_type_is_not_found(api: Any, seen_vm: Any) -> None:
    wrong = vim.vm.Snapshot(seen_vm._moId, api._stub)
    with pytest.raises(vmodl.fault.MethodNotFound):
        wrong.RevertToSnapshot_Task()


def test_unset_property_reads_as_none(seen_vm: Any) -> None:
    assert seen_vm.snapshot is None
    assert seen_vm.rootSnapshot == []


def test_search_finds_vms_by_uuid_and_path(api: Any, vm: SimulatedVm, seen_vm: Any) -> None:
    search = api.RetrieveContent().searchIndex
    assert search.FindByUuid(None, vm.uuid, True, False) == seen_vm
    assert search.FindByUuid(None, vm.instance_uuid.upper(), True, True) == seen_vm
    assert search.FindByUuid(None, vm.instance_uuid, True, False) is None
    assert search.FindByInventoryPath("ha-datacenter/vm/db 1") == seen_vm
    assert search.FindByInventoryPath("ha-datacenter/vm/none") is None


# Tasks and waits.


def test_wait_for_updates_tells_how_a_task_ends(api: Any, seen_vm: Any) -> None:
    collector = api.RetrieveContent().propertyCollector.CreatePropertyCollector()
    task = seen_vm.CreateSnapshot_Task("one", "a test", False, False)
    watched = collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=task)],
            propSet=[PC.PropertySpec(type=vim.Task, pathSet=["info.state", "info.result"])],
        ),
        True,
    )
    version = ""
    state = ""
    while state not in ("success", "error"):
        update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=30))
        version = update.version
        for one in update.filterSet[0].objectSet[0].changeSet:
            if one.name == "info.state":
                state = one.val
    assert state == "success"
    watched.Destroy()
    assert task.info.result.config.name == "db 1"
    assert task.info.descriptionId == "vim.VirtualMachine.CreateSnapshot"
    collector.Destroy()


def test_task_filter_with_all_and_no_paths_gets_the_whole_info(api: Any, seen_vm: Any) -> None:
    collector = api.RetrieveContent().propertyCollector
    task = seen_vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True))
    watched = collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=task)],
            propSet=[PC.PropertySpec(type=vim.Task, all=True, pathSet=[])],
        ),
        True,
    )
    update = collector.WaitForUpdates(None)
    (change,) = update.filterSet[0].objectSet[0].changeSet
    assert change.name == "info"
    assert change.val.key == task._moId
    assert change.val.name.info.wsdlName == "ReconfigVM_Task"
    watched.Destroy()


def test_wait_ends_empty_when_nothing_changes_in_time(api: Any, seen_vm: Any) -> None:
    collector = api.RetrieveContent().propertyCollector
    collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=seen_vm)],
            propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
        ),
        False,
    )
    first = collector.WaitForUpdatesEx("", None)
    assert collector.WaitForUpdatesEx(first.version, PC.WaitOptions(maxWaitSeconds=0)) is None
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        collector.WaitForUpdatesEx("4711", None)


def test_wait_wakes_when_a_vm_appears_and_when_it_leaves(
    api: Any, site: SimulatedSite, vm: SimulatedVm
) -> None:
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    collector = content.propertyCollector.CreatePropertyCollector()
    collector.CreateFilter(view_filter(view, vim.VirtualMachine, ["name"]), True)
    version = collector.WaitForUpdatesEx("", None).version

    def next_update(change: Any) -> Any:
        worker = threading.Timer(0.05, change)
        worker.start()
        try:
            return collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=30))
        finally:
            worker.join(30)

    update = next_update(lambda: site.add_vm("new"))
    (entered,) = update.filterSet[0].objectSet
    assert (entered.kind, entered.changeSet[0].val) == ("enter", "new")
    version = update.version
    update = next_update(lambda: site.remove_vm(site.vm("new")))
    (left,) = update.filterSet[0].objectSet
    assert left.kind == "leave"


def test_cancelled_wait_ends_with_request_canceled(
    api: Any, site: SimulatedSite, seen_vm: Any
) -> None:
    collector = api.RetrieveContent().propertyCollector.CreatePropertyCollector()
    collector.CreateFilter(
        PC.FilterSpec(
            objectSet=[PC.ObjectSpec(obj=seen_vm)],
            propSet=[PC.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
        ),
        True,
    )
    version = collector.WaitForUpdatesEx("", None).version
    canceller = threading.Timer(0.2, collector.CancelWaitForUpdates)
    canceller.start()
    with pytest.raises(vmodl.fault.RequestCanceled):
        collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=30))
    canceller.join(30)


def test_ordered_method_fault_fires_as_often_as_ordered(
    api: Any, site: SimulatedSite, seen_vm: Any
) -> None:
    site.faults.fail_method("CreateSnapshot_Task")
    with pytest.raises(vmodl.fault.SystemError):
        seen_vm.CreateSnapshot_Task("one", "", False, False)
    site.faults.fail_task("CreateSnapshot_Task")
    with pytest.raises(vmodl.fault.SystemError):
        take_snapshot(seen_vm, "two")
    assert site.vms[0].snapshots == []
    assert take_snapshot(seen_vm, "three")
    site.faults.assert_all_fired()


# Snapshots and change tracking over the API.


def test_increment_through_the_api_in_slices(
    api: Any, site: SimulatedSite, vm: SimulatedVm, seen_vm: Any
) -> None:
    site.behaviour.slice_bytes = 5 * MIB
    WaitForTask(seen_vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    assert seen_vm.config.changeTrackingEnabled
    first = take_snapshot(seen_vm, "one")
    since = {disk.key: disk.backing.changeId for disk in frozen_disks(first)}
    vm.disks[0].write(4 * MIB, b"x" * 2 * MIB)
    second = take_snapshot(seen_vm, "two")
    found: list[tuple[int, int]] = []
    slices = []
    offset = 0
    while offset < 16 * MIB:
        part = seen_vm.QueryChangedDiskAreas(second, 2000, offset, since[2000])
        assert part.startOffset == offset
        slices.append(part.length)
        found += [(one.start, one.length) for one in part.changedArea]
        offset += part.length
    assert slices == [5 * MIB, 5 * MIB, 5 * MIB, MIB]
    assert found == [(4 * MIB, MIB), (5 * MIB, MIB)]
    with pytest.raises(vim.fault.FileFault):
        seen_vm.QueryChangedDiskAreas(second, 2000, 16 * MIB, since[2000])
    with pytest.raises(vim.fault.FileFault):
        seen_vm.QueryChangedDiskAreas(None, 2000, 0, since[2000])
    with pytest.raises(vim.fault.FileFault):
        seen_vm.QueryChangedDiskAreas(second, 2000, 0, since[2016])
    with pytest.raises(vmodl.fault.InvalidArgument):
        seen_vm.QueryChangedDiskAreas(second, 9999, 0, since[2000])
    assert not seen_vm.QueryChangedDiskAreas(second, 2016, 0, since[2016]).changedArea


def test_slices_are_limited_in_areas_too(
    api: Any, site: SimulatedSite, vm: SimulatedVm, seen_vm: Any
) -> None:
    site.behaviour.areas_per_slice = 2
    vm.reconfigure(change_tracking_enabled=True)
    for number in range(5):
        vm.disks[0].write(number * 128 * 1024, b"x")
    snapshot = take_snapshot(seen_vm, "one")
    part = seen_vm.QueryChangedDiskAreas(snapshot, 2000, 0, "*")
    assert [one.start for one in part.changedArea] == [0, 128 * 1024]
    assert part.length == 256 * 1024


@pytest.mark.parametrize(("star", "areas"), [("whole", [(0, 16 * MIB)]), ("fault", None)])
def test_star_answers_as_other_hosts_do(
    api: Any, site: SimulatedSite, vm: SimulatedVm, seen_vm: Any, star: Any, areas: Any
) -> None:
    site.behaviour.star = star
    vm.reconfigure(change_tracking_enabled=True)
    snapshot = take_snapshot(seen_vm, "one")
    if areas is None:
        with pytest.raises(vim.fault.FileFault):
            seen_vm.QueryChangedDiskAreas(snapshot, 2000, 0, "*")
        return
    part = seen_vm.QueryChangedDiskAreas(snapshot, 2000, 0, "*")
    assert [(one.start, one.length) for one in part.changedArea] == areas


def test_snapshot_shows_disks_as_frozen_and_the_tree(
    api: Any, vm: SimulatedVm, seen_vm: Any
) -> None:
    vm.add_disk(DiskSpec(MIB, mode="independent_persistent"))
    vm.add_disk(DiskSpec(MIB, physical_rdm=True))
    one = take_snapshot(seen_vm, "one")
    two = take_snapshot(seen_vm, "two")
    files = {disk.key: disk.backing.fileName for disk in frozen_disks(two)}
    assert files == {
        2000: "[datastore1] db 1/db 1-000001.vmdk",
        2001: "[datastore1] db 1/db 1_2.vmdk",
        2002: "[datastore1] db 1/db 1_3.vmdk",
        2016: "[datastore1] db 1/db 1_1-000001.vmdk",
    }
    backings = [disk.backing for disk in frozen_disks(two)]
    assert [one.diskMode for one in backings] == [
        "persistent",
        "independent_persistent",
        None,
        "persistent",
    ]
    assert backings[2].compatibilityMode == "physicalMode"
    tree = seen_vm.snapshot
    assert tree.currentSnapshot == two
    assert tree.rootSnapshotList[0].snapshot == one
    assert tree.rootSnapshotList[0].childSnapshotList[0].name == "two"
    WaitForTask(one.RemoveSnapshot_Task(False, True))
    assert [node.name for node in seen_vm.snapshot.rootSnapshotList] == ["two"]
    assert frozen_disks(two)[0].backing.fileName == "[datastore1] db 1/db 1.vmdk"
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        one.RemoveSnapshot_Task(False, True)


def test_quiesce_without_tools_fails_and_leaves_no_snapshot(
    api: Any, vm: SimulatedVm, seen_vm: Any
) -> None:
    vm.tools_running = False
    with pytest.raises(vim.fault.FilesystemQuiesceFault):
        take_snapshot(seen_vm, "one", quiesce=True)
    assert vm.snapshots == []
    assert take_snapshot(seen_vm, "two").vm == seen_vm


def test_multi_writer_disk_refuses_snapshots(api: Any, vm: SimulatedVm, seen_vm: Any) -> None:
    vm.add_disk(DiskSpec(MIB, multi_writer=True))
    with pytest.raises(vim.fault.SnapshotFault):
        take_snapshot(seen_vm, "one")


def test_locked_disks_leave_consolidation_needed_until_it_is_done(
    api: Any, vm: SimulatedVm, seen_vm: Any
) -> None:
    vm.reader_patience_s = 0
    snapshot = take_snapshot(seen_vm, "one")
    vm.disks[0].lease()
    with pytest.raises(vim.fault.FileLocked):
        WaitForTask(snapshot.RemoveSnapshot_Task(False, True))
    assert seen_vm.snapshot is None
    assert seen_vm.runtime.consolidationNeeded
    vm.disks[0].release()
    WaitForTask(seen_vm.ConsolidateVMDisks_Task())
    assert not seen_vm.runtime.consolidationNeeded


def test_revert_and_power_tasks_do_what_they_say(api: Any, vm: SimulatedVm, seen_vm: Any) -> None:
    vm.disks[0].write(0, b"old")
    snapshot = take_snapshot(seen_vm, "one")
    vm.disks[0].write(0, b"new")
    WaitForTask(snapshot.RevertToSnapshot_Task())
    assert vm.disks[0].read(0, 3) == b"old"
    assert seen_vm.runtime.powerState == "poweredOff"
    WaitForTask(seen_vm.PowerOnVM_Task())
    assert seen_vm.runtime.powerState == "poweredOn"
    with pytest.raises(vim.fault.InvalidPowerState):
        WaitForTask(seen_vm.PowerOnVM_Task())


# HTTP.


def request(site: SimulatedSite, method: str, path: str, **options: Any) -> tuple[int, bytes]:
    host, port = site.address.split(":")
    context = ssl.create_default_context(cadata=site.certificate_pem)
    connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
    try:
        connection.request(method, path, **options)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


SERVICE_CONTENT = (
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<RetrieveServiceContent xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance'
    b"</_this></RetrieveServiceContent></soapenv:Body></soapenv:Envelope>"
)


def test_version_document_names_the_api_versions(site: SimulatedSite) -> None:
    status, body = request(site, "GET", "/sdk/vimServiceVersions.xml")
    assert status == 200
    assert b"<name>urn:vim25</name><version>8.0.3.0</version>" in body


def test_chunked_requests_are_understood(site: SimulatedSite) -> None:
    parts = iter([SERVICE_CONTENT[:100], SERVICE_CONTENT[100:]])
    status, body = request(
        site,
        "POST",
        "/sdk",
        body=parts,
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert status == 200
    assert b'<rootFolder type="Folder">ha-folder-root</rootFolder>' in body


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"no xml", {}, b"Malformed request"),
        (SERVICE_CONTENT.replace(b"RetrieveServiceContent", b"Nonsense"), {}, b"Unable to resolve"),
        (SERVICE_CONTENT.replace(b"_this", b"_that"), {}, b"Cannot deserialize"),
        (b"<a/>", {}, b"no method"),
        (SERVICE_CONTENT, {"SOAPAction": '"urn:vim25/99.0"'}, b"Unsupported version URI"),
    ],
    ids=["no-xml", "no-method", "no-this", "no-envelope", "version"],
)
def test_bad_requests_get_a_fault_that_says_why(
    site: SimulatedSite, body: bytes, headers: dict[str, str], said: bytes
) -> None:
    status, answer = request(site, "POST", "/sdk", body=body, headers=headers)
    assert status == 500
    assert said in answer
    assert b"ServerFaultCode" in answer


def test_other_paths_are_not_found(site: SimulatedSite) -> None:
    assert request(site, "GET", "/folder")[0] == 404
    assert request(site, "POST", "/other", body=SERVICE_CONTENT)[0] == 404


def test_older_api_versions_are_served_as_such(site: SimulatedSite, vm: SimulatedVm) -> None:
    host, port = site.address.split(":")
    context = ssl.create_default_context(cadata=site.certificate_pem)
    stub = SoapStubAdapter(
        host=host, port=int(port), version="vim.version.version10", sslContext=context
    )
    content = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
    content.sessionManager.Login(site.user, site.password, None)
    assert vim.VirtualMachine(vm.moid, stub).config.changeTrackingEnabled is False


def test_many_clients_work_side_by_side(site: SimulatedSite, vm: SimulatedVm) -> None:
    problems: list[BaseException] = []

    def client() -> None:
        try:
            api = connect(site)
            seen = vim.VirtualMachine(vm.moid, api._stub)
            for _ in range(5):
                assert seen.name == vm.name
                assert seen.config.hardware.device
        except BaseException as error:  # noqa: BLE001 (handed to the test's own thread)
            problems.append(error)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert len(site.sessions.all()) == 8


def test_nfc_tickets_come_from_the_api(api: Any, site: SimulatedSite, vm: SimulatedVm) -> None:
    body = (
        b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/">'
        b'<soapenv:Body><NfcGetVmFiles xmlns="urn:vim25"><_this type="NfcService">ha-nfc-service</_this>'
        b'<vm type="VirtualMachine">1</vm></NfcGetVmFiles></soapenv:Body></soapenv:Envelope>'
    )
    cookie = {"Cookie": api._stub.cookie}
    status, answer = request(site, "POST", "/sdk", body=body, headers=cookie)
    assert status == 200
    assert f"<port>{site.nfc_port}</port>".encode() in answer
    assert f"<sslThumbprint>{site.certificate.sha1}</sslThumbprint>".encode() in answer
    assert b"<service>nfc</service><serviceVersion>1.1</serviceVersion>" in answer
    assert request(site, "POST", "/sdk", body=body)[1].count(b"NotAuthenticatedFault") == 2
    version = body.replace(b"NfcGetVmFiles", b"NfcGetServerNfcLibVersion").replace(
        b'<vm type="VirtualMachine">1</vm>', b""
    )
    status, answer = request(site, "POST", "/sdk", body=version, headers=cookie)
    assert b"<returnval>11</returnval>" in answer
    wrong = body.replace(b"NfcGetVmFiles", b"NfcRandomAccessOpenReadonly").replace(
        b"</vm>", b"</vm><diskDeviceKey>4711</diskDeviceKey>"
    )
    status, answer = request(site, "POST", "/sdk", body=wrong, headers=cookie)
    assert status == 500
    assert b"InvalidArgument" in answer
