"""What a hub finds when it starts again."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from hub.config import HubSettings
from hub.main import Hub
from sendense.v1 import backup_pb2 as pb
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm, raw_bytes
from tests.unit.hub.running_hub import RunningHub


@contextmanager
def running(settings: HubSettings) -> Iterator[RunningHub]:
    with Hub(settings) as hub, grpc.insecure_channel(str(hub.address)) as channel:
        yield RunningHub(hub, channel)


def test_restart_without_a_layer_keeps_what_is_left_of_its_restore_point(
    settings: HubSettings,
) -> None:
    with running(settings) as hub, FakeAgent(hub.address, "lab", [FakeVm()]) as agent:
        agent.connect()
        job = hub.start()
        agent.expect("start_job")
        agent.run_job(job.job_id, [FakeDisk("AB")])
        done = hub.wait(job.job_id)
        files = hub.files()
        layer = hub.repository_folder() / done.disks[0].qcow2_path
    away = layer.rename(layer.parents[3] / "away.qcow2")
    with running(settings):
        pass
    away.rename(layer)
    with running(settings) as hub:
        assert hub.files() == files
        assert hub.get(job.job_id).status == pb.BACKUP_STATUS_COMPLETED
        assert hub.restored(job.job_id) == raw_bytes("AB")
