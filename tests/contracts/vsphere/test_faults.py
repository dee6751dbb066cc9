"""Faults: which one, and how it looks on the wire."""

from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.contracts.vsphere.calls import (
    RETRIEVE_CONTENT,
    http_request,
    one_object,
    retrieve,
)
from tests.contracts.vsphere.hosts import Host

pytestmark = pytest.mark.hostile


@pytest.mark.parametrize("call", ["property", "method", "task"])
def test_object_that_does_not_exist_is_named(api: Any, call: str) -> None:
    nobody = vim.VirtualMachine("no-such-vm", api._stub)
    calls: dict[str, Any] = {
        "property": lambda: nobody.name,
        "method": lambda: nobody.QueryChangedDiskAreas(None, 2000, 0, "*"),
        "task": lambda: nobody.CreateSnapshot_Task("one", "", False, False),
    }
    with pytest.raises(vmodl.fault.ManagedObjectNotFound) as refused:
        calls[call]()
    assert refused.value.obj == nobody
    assert refused.value.msg


def test_method_of_another_type_is_not_found(api: Any, vm: Any) -> None:
    wrong = vim.vm.Snapshot(vm._moId, api._stub)
    with pytest.raises((vmodl.fault.MethodNotFound, vmodl.fault.ManagedObjectNotFound)):
        wrong.RevertToSnapshot_Task()


def test_property_of_no_type_is_refused(content: Any, vm: Any) -> None:
    with pytest.raises(vmodl.query.InvalidProperty) as refused:
        retrieve(content, one_object(vm, "nonsense"))
    assert refused.value.name == "nonsense"
    assert refused.value.msg


def test_fault_is_an_http_500_with_its_type(host: Host) -> None:
    body = RETRIEVE_CONTENT.replace(b"RetrieveServiceContent", b"CurrentTime")
    status, headers, answer = http_request(host, "POST", "/sdk", body=body)
    assert status == 500
    assert "xml" in headers["Content-Type"]
    assert b"<faultcode>ServerFaultCode</faultcode>" in answer
    assert b'type="NotAuthenticated"' in answer


@pytest.mark.parametrize(
    "body",
    [b"no xml", RETRIEVE_CONTENT.replace(b"RetrieveServiceContent", b"NoSuchMethod")],
    ids=["no-xml", "no-method"],
)
def test_request_that_makes_no_sense_is_a_fault(host: Host, body: bytes) -> None:
    status, _, answer = http_request(host, "POST", "/sdk", body=body)
    assert status == 500
    assert b"Fault>" in answer
    assert host.stranger().RetrieveContent().about.vendor


def test_chunked_requests_are_understood(host: Host) -> None:
    parts = iter([RETRIEVE_CONTENT[:100], RETRIEVE_CONTENT[100:]])
    status, _, body = http_request(
        host,
        "POST",
        "/sdk",
        body=parts,
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert status == 200
    assert b'<rootFolder type="Folder">' in body


@pytest.mark.parametrize("version", ["9.0.0.0", "6.0"], ids=["newer", "older"])
def test_clients_of_another_version_are_served(host: Host, version: str) -> None:
    headers = {"SOAPAction": f"urn:vim25/{version}"}
    status, _, body = http_request(host, "POST", "/sdk", body=RETRIEVE_CONTENT, headers=headers)
    assert status == 200
    assert b'<rootFolder type="Folder">' in body


def test_other_paths_are_not_found(host: Host) -> None:
    assert http_request(host, "POST", "/other", body=RETRIEVE_CONTENT)[0] == 404
