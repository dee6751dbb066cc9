"""The vSphere API, judged by pyVmomi: certificates and sessions."""

import ssl
from typing import Any

import pytest
from pyVmomi import vim

from simulator.machines import SimulatedVm
from simulator.site import SimulatedSite
from tests.unit.simulator.conftest import connect


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
