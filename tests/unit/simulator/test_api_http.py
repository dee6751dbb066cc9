"""The vSphere API as HTTP: documents, chunks, bad requests, versions, tickets."""

import http.client
import ssl
import threading
from typing import Any

import pytest
from pyVmomi import SoapStubAdapter, vim

from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import connect


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
        (SERVICE_CONTENT, {"SOAPAction": '"urn:pbm/2.0"'}, b"Unsupported version URI"),
    ],
    ids=["no-xml", "no-method", "no-this", "no-envelope", "namespace"],
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


@pytest.mark.parametrize("version", ["9.0.0.0", "99.0"], ids=["newer", "unheard-of"])
def test_clients_newer_than_the_host_get_its_own_version(site: SimulatedSite, version: str) -> None:
    headers = {"SOAPAction": f'"urn:vim25/{version}"'}
    status, body = request(site, "POST", "/sdk", body=SERVICE_CONTENT, headers=headers)
    assert status == 200
    assert b"<apiVersion>8.0.3.0</apiVersion>" in body


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
