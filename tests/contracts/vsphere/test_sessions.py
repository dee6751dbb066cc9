"""Sessions: logging in and out, the cookie, and what belongs to a session."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from tests.contracts.vsphere.calls import (
    RETRIEVE_CONTENT,
    http_request,
    one_object,
    retrieve,
    virtual_machines,
)
from tests.contracts.vsphere.hosts import Host, govmomi_version

pytestmark = pytest.mark.hostile


def test_the_program_is_the_pinned_one(host: Host) -> None:
    expected = govmomi_version() if host.kind.program == "vcsim" else "simulator"
    assert host.version == expected


def test_version_document_is_served_without_a_login(host: Host) -> None:
    status, headers, body = http_request(host, "GET", "/sdk/vimServiceVersions.xml")
    assert status == 200
    assert "xml" in headers["Content-Type"]
    assert b"<name>urn:vim25</name>" in body
    assert host.stranger().RetrieveContent().about.apiVersion.encode() in body


def test_content_is_told_without_a_login(host: Host) -> None:
    content = host.stranger().RetrieveContent()
    assert content.about.apiType == host.api_type
    assert content.about.vendor == "VMware, Inc."
    assert isinstance(content.rootFolder, vim.Folder)
    assert isinstance(content.sessionManager, vim.SessionManager)
    assert isinstance(content.propertyCollector, vmodl.query.PropertyCollector)
    assert isinstance(content.searchIndex, vim.SearchIndex)
    assert isinstance(content.viewManager, vim.view.ViewManager)


@pytest.mark.parametrize("wrong", [{"pwd": "wrong"}, {"user": "nobody"}], ids=["password", "user"])
def test_wrong_login_is_refused(host: Host, wrong: dict[str, str]) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        host.connect(**wrong)


def test_login_answers_the_session_that_is_current_then(host: Host) -> None:
    api = host.stranger()
    manager = api.RetrieveContent().sessionManager
    session = manager.Login(host.user, host.password, None)
    assert session.userName == host.user
    assert manager.currentSession.key == session.key
    assert abs(datetime.now(UTC) - session.loginTime) < timedelta(minutes=5)
    manager.Logout()


def test_sessions_of_others_can_be_asked_for_at_a_vcenter(host: Host, content: Any) -> None:
    key = content.sessionManager.currentSession.key
    ask = content.sessionManager.SessionIsActive
    if host.kind.flavour == "esxi":
        with pytest.raises(vmodl.fault.NotImplemented):
            ask(key, host.user)
        return
    assert ask(key, host.user)
    assert not ask(key, "somebody else")
    assert not ask("52aaaaaa-no-such-session", host.user)


def test_cookie_of_a_login_is_not_replaced(host: Host) -> None:
    api = host.stranger()
    api.RetrieveContent().sessionManager.Login(host.user, host.password, None)
    name, _, value = api._stub.cookie.partition("=")
    assert name == "vmware_soap_session"
    assert value.split(";")[0].strip('"')
    cookie = {"Cookie": api._stub.cookie.split(";")[0]}
    status, headers, _ = http_request(host, "POST", "/sdk", body=RETRIEVE_CONTENT, headers=cookie)
    assert status == 200
    assert "Set-Cookie" not in headers
    api.RetrieveContent().sessionManager.Logout()


@pytest.mark.parametrize("call", ["collector", "property", "view", "task", "search", "clock"])
def test_calls_without_a_login_are_not_authenticated(host: Host, content: Any, call: str) -> None:
    seen = virtual_machines(content)[0]
    api = host.stranger()
    stranger = api.RetrieveContent()
    foreign = vim.VirtualMachine(seen._moId, api._stub)
    calls: dict[str, Any] = {
        "collector": lambda: retrieve(stranger, one_object(foreign, "name")),
        "property": lambda: foreign.name,
        "view": lambda: stranger.viewManager.CreateContainerView(stranger.rootFolder, [], True),
        "task": lambda: foreign.CreateSnapshot_Task("foreign", "", False, False),
        "search": lambda: stranger.searchIndex.FindByUuid(None, "", True, False),
        "clock": api.CurrentTime,
    }
    with pytest.raises(vim.fault.NotAuthenticated):
        calls[call]()


def test_not_authenticated_names_the_object(host: Host) -> None:
    stranger = host.stranger().RetrieveContent()
    with pytest.raises(vim.fault.NotAuthenticated) as refused:
        stranger.searchIndex.FindByUuid(None, "", True, False)
    assert refused.value.object == stranger.searchIndex
    assert refused.value.privilegeId == "System.View"


@pytest.mark.parametrize("way", ["logout", "terminated"])
def test_session_that_ended_can_be_replaced_by_a_login(host: Host, api: Any, way: str) -> None:
    mine = host.connect()
    manager = mine.RetrieveContent().sessionManager
    key = manager.currentSession.key
    if way == "logout":
        manager.Logout()
    else:
        api.RetrieveContent().sessionManager.TerminateSession([key])
    with pytest.raises(vim.fault.NotAuthenticated):
        virtual_machines(mine.RetrieveContent())
    manager.Login(host.user, host.password, None)
    assert manager.currentSession.key != key
    assert virtual_machines(mine.RetrieveContent())
    manager.Logout()


def test_own_session_cannot_be_terminated(content: Any) -> None:
    manager = content.sessionManager
    with pytest.raises(vmodl.fault.InvalidArgument):
        manager.TerminateSession([manager.currentSession.key])
    assert manager.currentSession


def test_unknown_session_cannot_be_terminated(content: Any) -> None:
    with pytest.raises(vim.fault.NotFound):
        content.sessionManager.TerminateSession(["52aaaaaa-no-such-session"])


def test_views_of_another_session_are_not_found(host: Host, content: Any) -> None:
    view = content.viewManager.CreateContainerView(content.rootFolder, [], True)
    other = host.connect()
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vim.view.ContainerView(view._moId, other._stub).view  # noqa: B018 (a call)
    other.RetrieveContent().sessionManager.Logout()
    assert view.view


def test_views_end_with_their_session(host: Host) -> None:
    api = host.connect()
    content = api.RetrieveContent()
    view = content.viewManager.CreateContainerView(content.rootFolder, [], True)
    content.sessionManager.Logout()
    content.sessionManager.Login(host.user, host.password, None)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        view.view  # noqa: B018 (a call)
    content.sessionManager.Logout()


def test_clock_is_of_now_and_has_a_zone(api: Any) -> None:
    assert abs(datetime.now(UTC) - api.CurrentTime()) < timedelta(minutes=5)
