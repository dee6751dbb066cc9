"""Login, certificates and sessions against the simulated host."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import BadStatusLine
from pathlib import Path
from xml.parsers.expat import ExpatError

import pytest

from agent.cancellation import Cancellation
from agent.vsphere import session
from agent.vsphere.api import vim
from agent.vsphere.errors import (
    CertificateMismatch,
    LoginFailed,
    PermissionMissing,
    SessionLost,
    VsphereError,
    VsphereFault,
    VsphereUnreachable,
)
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite

MIB = 1 << 20


def end_session(settings: VsphereSettings, of: VsphereSite) -> None:
    """What a restart of the management agents does, by the API: TerminateSession."""
    key = of._session.content.sessionManager.currentSession.key
    with VsphereSite.connect(settings) as other:
        other._session.content.sessionManager.TerminateSession([key])


def test_about_tells_the_host(vsphere: VsphereSite, settings: VsphereSettings) -> None:
    about = vsphere.about()
    assert about.address == settings.address
    assert about.api_type == "HostAgent"
    assert "ESXi 8" in about.full_name
    assert about.api_version.startswith("8")


def test_wrong_password_is_told_without_it(
    settings: VsphereSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(LoginFailed) as caught:
        VsphereSite.connect(replace(settings, password="hunter2"))
    error: BaseException | None = caught.value
    assert caught.value.code == "VSPHERE_LOGIN_FAILED"
    while error is not None:
        assert "hunter2" not in str(error) + repr(error)
        error = error.__cause__
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is None  # its frames hold the password
    assert "hunter2" not in caplog.text


def test_wrong_certificate_is_refused(settings: VsphereSettings) -> None:
    with pytest.raises(CertificateMismatch):
        VsphereSite.connect(replace(settings, certificate_sha256="00" * 32))


def test_certificate_of_a_given_authority_is_trusted(
    simulated: SimulatedSite, settings: VsphereSettings, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    pem = simulated.certificate_pem
    ca_file.write_bytes(pem if isinstance(pem, bytes) else pem.encode())
    with VsphereSite.connect(replace(settings, certificate_sha256=None, ca_file=ca_file)) as site:
        assert site.about().api_type == "HostAgent"


def test_expired_session_is_renewed_in_the_middle_of_work(
    simulated: SimulatedSite, vsphere: VsphereSite, settings: VsphereSettings
) -> None:
    vm = simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=MIB)])
    end_session(settings, vsphere)
    assert [one.name for one in vsphere.virtual_machines() if one.moref == vm.moid] == ["pg"]
    end_session(settings, vsphere)
    snapshot = vsphere.take_snapshot(
        job_id="a", vm_moref=vm.moid, instance_uuid=vm.instance_uuid, quiesce=False, owner="agent-1"
    )
    end_session(settings, vsphere)
    with vsphere.open_disk(snapshot, snapshot.disks[0], Cancellation()) as reader:
        assert reader.capacity_bytes == MIB
    end_session(settings, vsphere)
    vsphere.remove_snapshot(snapshot)
    assert vm.snapshots == []


def test_threads_that_find_the_session_expired_log_in_once(
    simulated: SimulatedSite, vsphere: VsphereSite, settings: VsphereSettings
) -> None:
    simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=MIB)])
    end_session(settings, vsphere)
    together = threading.Barrier(4)

    def ask() -> int:
        together.wait(10)
        return len(vsphere.virtual_machines())

    with ThreadPoolExecutor(4) as threads:
        counts = [job.result() for job in [threads.submit(ask) for _ in range(4)]]
    assert len(set(counts)) == 1
    assert vsphere._session._logins == 2


def test_password_changed_meanwhile_is_a_failed_login(
    vsphere: VsphereSite, settings: VsphereSettings
) -> None:
    vsphere._session.settings = replace(settings, password="old")
    end_session(settings, vsphere)
    with pytest.raises(LoginFailed):
        vsphere.virtual_machines()


def test_close_may_be_called_twice_and_after_the_session_ended(
    vsphere: VsphereSite, settings: VsphereSettings
) -> None:
    end_session(settings, vsphere)
    vsphere.close()
    vsphere.close()


def test_keep_alive_renews_the_session_while_nobody_calls(
    settings: VsphereSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "KEEP_ALIVE_S", 0.02)
    with VsphereSite.connect(settings) as vsphere:
        end_session(settings, vsphere)
        never = threading.Event()
        tries = 0
        while vsphere._session._logins < 2 and tries < 500:
            never.wait(0.02)
            tries += 1
        assert vsphere._session._logins == 2


def test_host_that_went_away_is_unreachable(simulated: SimulatedSite, vsphere: VsphereSite) -> None:
    simulated.__exit__(None, None, None)
    with pytest.raises(VsphereUnreachable, match=simulated.address):
        vsphere.virtual_machines()


def test_closed_session_does_not_come_back(vsphere: VsphereSite) -> None:
    vsphere.close()
    with pytest.raises(VsphereUnreachable, match="closed"):
        vsphere.virtual_machines()


FAULTS = [
    (vim.fault.NoPermission(privilegeId="VirtualMachine.State.CreateSnapshot"), PermissionMissing),
    (vim.fault.FileFault(file="[ds] a.vmdk", msg="Unable to access file"), VsphereFault),
    (ConnectionResetError("reset by peer"), VsphereUnreachable),
    (TimeoutError("timed out"), VsphereUnreachable),
    (BadStatusLine("nonsense"), VsphereUnreachable),
    (ExpatError("not well-formed"), VsphereUnreachable),
]


@pytest.mark.parametrize(("foreign", "ours"), FAULTS, ids=lambda one: getattr(one, "__name__", ""))
def test_foreign_errors_become_ours_and_keep_their_cause(
    vsphere: VsphereSite, foreign: Exception, ours: type[VsphereError]
) -> None:
    def fail() -> None:
        raise foreign

    with pytest.raises(ours) as caught:
        vsphere._session.run("do that", fail)
    assert caught.value.__cause__ is foreign
    assert "{" not in str(caught.value)
    if isinstance(caught.value, PermissionMissing):
        assert "VirtualMachine.State.CreateSnapshot" in str(caught.value)


def test_only_what_changes_nothing_is_tried_again(vsphere: VsphereSite) -> None:
    calls: list[str] = []

    def lose(name: str) -> str:
        calls.append(name)
        if calls.count(name) == 1:
            raise ConnectionResetError
        return name

    assert vsphere._session.run("read", lambda: lose("read"), repeatable=True) == "read"
    with pytest.raises(VsphereUnreachable):
        vsphere._session.run("write", lambda: lose("write"))
    assert calls == ["read", "read", "write"]


def test_late_refusal_does_not_take_another_threads_login_away(
    simulated: SimulatedSite, vsphere: VsphereSite, settings: VsphereSettings
) -> None:
    end_session(settings, vsphere)
    simulated.faults.hold_answer("CurrentTime")
    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(
            vsphere._session.run, "tell the time", vsphere._session._instance.CurrentTime
        )
        assert simulated.faults.answer_held.wait(10)
        vsphere.virtual_machines()  # finds the session expired, logs in
        cookie = vsphere._session.stub.cookie
        simulated.faults.release_answers()
        assert late.result(20) is not None
    vsphere.virtual_machines()
    assert vsphere._session.stub.cookie == cookie
    assert vsphere._session._logins == 2
    simulated.faults.assert_all_fired()


def test_calls_of_many_threads_survive_sessions_that_end_all_the_time(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=MIB)])
    done = threading.Event()
    seen: list[str] = []

    def ask() -> None:
        for _ in range(15):
            seen.extend(one.name for one in vsphere.virtual_machines())

    def expire() -> None:
        while not done.wait(0.3):
            simulated.expire_sessions()

    with ThreadPoolExecutor(5) as threads:
        expiring = threads.submit(expire)
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            for one in asking:
                one.result(60)
        finally:
            done.set()
        expiring.result(10)
    assert seen == ["pg"] * 60


def test_sessions_that_end_at_once_do_not_blame_the_password(vsphere: VsphereSite) -> None:
    def refuse() -> None:
        raise vim.fault.NotAuthenticated

    with pytest.raises(SessionLost) as caught:
        vsphere._session.run("do that", refuse)
    assert "password" not in str(caught.value)
    assert vsphere._session._logins == 3


def logins_asked(simulated: SimulatedSite) -> int:
    return simulated.faults.calls("Login")


def test_refused_login_is_not_tried_again_for_a_while(
    simulated: SimulatedSite,
    vsphere: VsphereSite,
    settings: VsphereSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end_session(settings, vsphere)
    vsphere._session.settings = replace(settings, password="old")
    before = logins_asked(simulated)
    problems = []
    for _ in range(4):
        with pytest.raises(LoginFailed) as caught:
            vsphere.virtual_machines()
        problems.append(caught.value.problem)
    assert logins_asked(simulated) == before + 1
    assert "not tried again before 20 min" in problems[-1]
    assert "old" not in str(caught.value)

    monkeypatch.setattr(session, "REFUSED_LOGIN_S", 0.0)
    with pytest.raises(LoginFailed):
        vsphere.virtual_machines()
    assert logins_asked(simulated) == before + 2
    vsphere._session.settings = settings
    assert vsphere.virtual_machines() == []
    assert vsphere._session._refused is None


def test_keep_alive_does_not_log_in_after_a_refusal(
    simulated: SimulatedSite, settings: VsphereSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(session, "REFUSED_LOGIN_S", 0.0)
    with VsphereSite.connect(settings) as vsphere:
        vsphere._session.settings = replace(settings, password="old")
        simulated.expire_sessions()
        with pytest.raises(LoginFailed):
            vsphere.virtual_machines()
        refused = logins_asked(simulated)
        calls = simulated.faults.calls("CurrentTime")
        threading.Event().wait(0.3)  # fifteen times what the keep-alive waits
        assert logins_asked(simulated) == refused
        assert simulated.faults.calls("CurrentTime") <= calls + 1  # one may be under way
