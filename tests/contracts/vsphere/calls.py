"""What several tests of the suite ask of a host."""

import http.client
import time
from typing import Any

from pyVmomi import vim, vmodl

from tests.contracts.vsphere.hosts import CALL_S, Host

PC = vmodl.query.PropertyCollector

_TASK_S = 15.0

RETRIEVE_CONTENT = (
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<RetrieveServiceContent xmlns="urn:vim25"><_this type="ServiceInstance">ServiceInstance'
    b"</_this></RetrieveServiceContent></soapenv:Body></soapenv:Envelope>"
)


def virtual_machines(content: Any) -> list[Any]:
    """All VMs, by a container view."""
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    found = list(view.view)
    view.Destroy()
    return found


def one_object(seen: Any, *paths: str, everything: bool = False) -> Any:
    """A FilterSpec of some properties of one object."""
    return PC.FilterSpec(
        objectSet=[PC.ObjectSpec(obj=seen)],
        propSet=[PC.PropertySpec(type=type(seen), pathSet=list(paths), all=everything)],
    )


def members(view: Any, kind: Any, *paths: str) -> Any:
    """A FilterSpec of some properties of a view's members."""
    return PC.FilterSpec(
        objectSet=[
            PC.ObjectSpec(
                obj=view,
                skip=True,
                selectSet=[
                    PC.TraversalSpec(name="members", type=type(view), path="view", skip=False)
                ],
            )
        ],
        propSet=[PC.PropertySpec(type=kind, pathSet=list(paths))],
    )


def retrieve(content: Any, *specs: Any, size: int | None = None) -> Any:
    """RetrievePropertiesEx: the first page."""
    options = PC.RetrieveOptions(maxObjects=size)
    return content.propertyCollector.RetrievePropertiesEx(list(specs), options)


def read(seen: Any, path: str) -> Any:
    """One property of one object; None when it is unset."""
    content = vim.ServiceInstance("ServiceInstance", seen._stub).RetrieveContent()
    (item,) = retrieve(content, one_object(seen, path)).objects
    return values(item).get(path)


def values(item: Any) -> dict[str, Any]:
    """Path and value of an ObjectContent."""
    return {one.name: one.val for one in item.propSet}


def finish(task: Any) -> Any:
    """Wait for a task through a filter of its own; its result. Raises the task's fault."""
    content = vim.ServiceInstance("ServiceInstance", task._stub).RetrieveContent()
    collector = content.propertyCollector.CreatePropertyCollector()
    collector.CreateFilter(one_object(task, "info.state"), True)
    deadline = time.monotonic() + _TASK_S
    version = ""
    state = ""
    while state not in ("success", "error"):
        left_s = int(deadline - time.monotonic())
        assert left_s > 0, f"{task.info.descriptionId} has not ended in {_TASK_S:.0f} s"
        update = collector.WaitForUpdatesEx(version, PC.WaitOptions(maxWaitSeconds=left_s))
        if update is None:
            continue
        version = update.version
        for change in update.filterSet[0].objectSet[0].changeSet:
            state = change.val
    collector.Destroy()
    if state == "error":
        raise task.info.error
    return task.info.result


def snapshot_of(vm: Any, name: str, description: str = "") -> Any:
    """A new snapshot without memory, not quiesced."""
    return finish(vm.CreateSnapshot_Task(name, description, False, False))


def disks_of(devices: Any) -> list[Any]:
    """The disks of a VM's or a snapshot's devices."""
    return [one for one in devices if isinstance(one, vim.vm.device.VirtualDisk)]


def http_request(
    host: Host, method: str, path: str, **options: Any
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body of a plain HTTPS request."""
    name, _, port = host.address.partition(":")
    connection = http.client.HTTPSConnection(name, int(port), timeout=CALL_S, context=host.tls())
    try:
        connection.request(method, path, **options)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()
