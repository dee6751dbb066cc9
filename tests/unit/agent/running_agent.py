"""The agent's own wiring in a thread, between a recording hub and a simulated site."""

import threading
from typing import Any

from agent.config import AgentSettings
from agent.main import run_agent
from agent.vsphere.settings import VsphereSettings
from sendense.v1 import agent_session_pb2, backup_pb2
from simulator.machines import SimulatedVm
from tests.unit.agent.recording_hub import DEADLINE_S, HubSession, RecordingHub

FULL = backup_pb2.BACKUP_TYPE_FULL
INCREMENTAL = backup_pb2.BACKUP_TYPE_INCREMENTAL
COMPARED = "compared"


class RunningAgent:
    """A context manager; leaving stops the agent and passes on what it raised."""

    def __init__(self, hub: RecordingHub, vsphere: VsphereSettings, **settings: Any) -> None:
        self._settings = AgentSettings(
            site=vsphere.site,
            hub_address=hub.address,
            vsphere={"address": vsphere.address, "user": vsphere.user},
            compress_threads=2,
            **settings,
        )
        self._vsphere = vsphere
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent")
        self.clean: bool | None = None
        self.error: Exception | None = None

    def _run(self) -> None:
        try:
            self.clean = run_agent(self._settings, self._vsphere, self._stopping)
        except Exception as error:  # noqa: BLE001 - raised in the test's thread
            self.error = error

    def stop(self) -> None:
        """As SIGTERM does; returns when the agent has ended."""
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the agent does not stop"
        if self.error is not None:
            raise self.error

    def __enter__(self) -> "RunningAgent":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


def start_job(session: HubSession, vm: SimulatedVm, job_id: str, *, quiesce: bool = False) -> None:
    session.command(
        start_job=agent_session_pb2.StartJob(
            job_id=job_id,
            vmware_vm_id=vm.moid,
            instance_uuid=vm.instance_uuid,
            vm_name=vm.name,
            quiesce=quiesce,
        )
    )


def resume_job(session: HubSession, vm: SimulatedVm, opened: agent_session_pb2.JobOpened) -> None:
    """Have a job resumed that was opened so."""
    session.command(
        resume_job=agent_session_pb2.ResumeJob(
            start=agent_session_pb2.StartJob(
                job_id=opened.job_id,
                vmware_vm_id=vm.moid,
                instance_uuid=vm.instance_uuid,
                vm_name=vm.name,
            ),
            snapshot=opened.snapshot,
            disks=opened.disks,
        )
    )


def send_plan(session: HubSession, job_id: str, *bases: str | None) -> None:
    """One base change id per disk, by index; None: a full; COMPARED: no use of tracking."""
    session.command(
        job_plan=agent_session_pb2.JobPlan(
            job_id=job_id,
            disks=[
                agent_session_pb2.DiskPlan(
                    disk_index=index,
                    backup_type=INCREMENTAL if base else FULL,
                    base_change_id=base if base and base != COMPARED else "",
                    read_method=_read_method(base),
                )
                for index, base in enumerate(bases)
            ],
        )
    )


def _read_method(base: str | None) -> backup_pb2.ReadMethod:
    if base is None:
        return backup_pb2.READ_METHOD_ALLOCATED
    if base == COMPARED:
        return backup_pb2.READ_METHOD_COMPARED
    return backup_pb2.READ_METHOD_CHANGED


def back_up(session: HubSession, vm: SimulatedVm, job_id: str, *bases: str | None) -> Any:
    """Run a whole job; returns its JobOpened. The job must succeed without a warning."""
    start_job(session, vm, job_id)
    opened = session.event("job_opened")
    send_plan(session, job_id, *bases)
    uploaded = session.event("job_uploaded")
    assert uploaded.job_id == job_id
    assert list(uploaded.warnings) == []
    return opened


__all__ = [
    "COMPARED",
    "DEADLINE_S",
    "RunningAgent",
    "back_up",
    "resume_job",
    "send_plan",
    "start_job",
]
