"""A host whose certificate changes while the agent runs: on 127.0.0.2, where checks are real."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.vsphere import session
from agent.vsphere.errors import CertificateMismatch, SnapshotMaybeLeft
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite

pytestmark = pytest.mark.hostile

MIB = 1 << 20


def plain(fingerprint: str) -> str:
    return fingerprint.replace(":", "").lower()


@pytest.fixture(params=["pinned", "authority"])
def trusting(
    request: pytest.FixtureRequest,
    simulated: SimulatedSite,
    settings: VsphereSettings,
    tmp_path: Path,
) -> VsphereSettings:
    assert settings.address.startswith("127.0.0.2:")
    if request.param == "pinned":
        return settings
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(simulated.certificate_pem)
    return replace(settings, certificate_sha256=None, ca_file=ca_file)


def test_changed_certificate_is_told_with_both_fingerprints_and_nothing_is_sent(
    simulated: SimulatedSite, trusting: VsphereSettings
) -> None:
    with VsphereSite.connect(trusting) as vsphere:
        assert vsphere.virtual_machines() == []
        old = simulated.certificate_sha256
        new = simulated.change_certificate()
        simulated.expire_sessions()
        logins, views = (
            simulated.faults.calls(method) for method in ("Login", "CreateContainerView")
        )
        for _ in range(3):
            with pytest.raises(CertificateMismatch) as caught:
                vsphere.virtual_machines()
        assert plain(new) in plain(str(caught.value))
        expected = old if trusting.certificate_sha256 else str(trusting.ca_file)
        assert plain(expected) in plain(caught.value.expected)
        assert "certificate_sha256" in str(caught.value)
        assert not caught.value.retryable
        # Neither the password nor a cookie went to whoever answers there now.
        assert simulated.faults.calls("Login") == logins
        assert simulated.faults.calls("CreateContainerView") == views


def test_keep_alive_does_not_log_in_at_a_host_with_another_certificate(
    simulated: SimulatedSite, settings: VsphereSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "KEEP_ALIVE_S", 0.02)
    told = threading.Event()
    with capture_logs() as logs, VsphereSite.connect(settings):
        logins = simulated.faults.calls("Login")
        simulated.change_certificate()
        simulated.expire_sessions()

        def failures() -> list[str]:
            return [
                str(line["code"]) for line in logs if line["event"] == "vsphere_keep_alive_failed"
            ]

        for _ in range(1000):
            if failures().count("VSPHERE_CERTIFICATE_MISMATCH") >= 3:
                break
            told.wait(0.02)
        assert failures().count("VSPHERE_CERTIFICATE_MISMATCH") >= 3
        assert simulated.faults.calls("Login") == logins


def test_certificate_that_changes_during_a_task_ends_the_wait_and_tells_of_the_snapshot(
    simulated: SimulatedSite, vsphere: VsphereSite
) -> None:
    vm = simulated.add_vm("pg", disks=[DiskSpec(capacity_bytes=MIB)], change_tracking_enabled=True)
    stalled = simulated.faults.set("task-stall", vm="pg", method="CreateSnapshot_Task")
    with ThreadPoolExecutor(1) as threads:
        taking = threads.submit(
            vsphere.take_snapshot,
            job_id="job-1",
            vm_moref=vm.moid,
            instance_uuid=vm.instance_uuid,
            quiesce=False,
            owner="agent-1",
        )
        try:
            assert stalled.wait_fired(timeout_s=20)
            new = simulated.change_certificate()
            with pytest.raises(SnapshotMaybeLeft) as caught:
                taking.result(60)
        finally:
            simulated.faults.clear()
    assert isinstance(caught.value.__cause__, CertificateMismatch)
    assert plain(new) in plain(str(caught.value))
    assert "sendense-job-1" in str(caught.value)


def test_new_certificate_that_is_pinned_is_trusted(
    simulated: SimulatedSite, settings: VsphereSettings
) -> None:
    new = simulated.change_certificate()
    with pytest.raises(CertificateMismatch):
        VsphereSite.connect(settings)
    with VsphereSite.connect(replace(settings, certificate_sha256=new)) as vsphere:
        assert vsphere.virtual_machines() == []
