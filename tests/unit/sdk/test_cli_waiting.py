"""The command on what waits and what resumed: places in the queue, agents that are away, the
report of the hub's start."""

from collections.abc import Iterator

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sendense.cli import text
from sendense.cli.main import run
from sendense.v1 import backup_pb2, hub_pb2
from tests.unit.sdk.cli_world import JOB_ID, furnish, job, lines
from tests.unit.sdk.client_hub import ClientHub

WAITS = "the end of one of the 32 jobs that this hub runs at a time"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClientHub]:
    with ClientHub() as hub:
        monkeypatch.setenv("SENDENSE_HUB", hub.address)
        furnish(hub.state)
        yield hub


def queued(position: int = 3) -> backup_pb2.Backup:
    return backup_pb2.Backup(
        job_id=JOB_ID, vm_name="pgtest1", status=1, queue_position=position, waiting_for=WAITS
    )


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (12, "12th"),
        (13, "13th"),
        (21, "21st"),
        (102, "102nd"),
        (111, "111th"),
    ],
)
def test_place_is_an_ordinal(number: int, told: str) -> None:
    assert text.ordinal(number) == told


def test_queued_job_shows_its_place_and_what_it_waits_for(hub, capsys):
    hub.state.backups = [queued()]
    assert run(["job", "show", JOB_ID]) == 0
    assert f"status queued (3rd), waits for {WAITS}" in lines(capsys.readouterr().out)
    assert run(["job", "list"]) == 0
    assert "queued (3rd)" in capsys.readouterr().out


def test_watch_tells_every_change_of_place_once(hub, capsys):
    hub.state.watches = [[queued(3), queued(2), queued(2), job(2), job()]]
    assert run(["job", "watch", JOB_ID]) == 0
    told = capsys.readouterr().err
    assert told.count("queued (3rd), waits for") == told.count("queued (2nd), waits for") == 1


def test_running_job_says_that_its_agent_is_away(hub, capsys):
    hub.state.backups = [job(2, waiting_for="the agent of 'site-1', away since noon")]
    assert run(["job", "show", JOB_ID]) == 0
    shown = lines(capsys.readouterr().out)
    assert "status running, waits for the agent of 'site-1', away since noon" in shown


def test_resumed_disk_tells_how_often_and_what_was_sent_again(hub, capsys):
    hub.state.disks[0].resume_count = 2
    hub.state.disks[0].bytes_resent = 3 << 20
    assert run(["disk", "show", JOB_ID, "0"]) == 0
    assert "resumed 2, 3.0 MiB sent again" in lines(capsys.readouterr().out)


def test_report_of_the_start_tells_decisions_and_what_was_cut(hub, capsys):
    hub.state.recovery = hub_pb2.RecoveryReportResponse(
        started_at=Timestamp(seconds=1759946759),
        finished_at=Timestamp(seconds=1759946760),
        jobs=[
            hub_pb2.RecoveredJob(
                job_id=JOB_ID,
                vm_name="pgtest1",
                decision=hub_pb2.RECOVERY_DECISION_WAITS_FOR_AGENT,
                reason="its agent has it",
                disks=[
                    hub_pb2.RecoveredDisk(
                        disk_index=1,
                        layer=hub_pb2.RECOVERED_LAYER_REOPENED,
                        durable_frames=9,
                        durable_payload_bytes=6 << 20,
                        layer_bytes_cut=1 << 20,
                    )
                ],
            )
        ],
        removed_paths=["default: ctx/job/disk-0.qcow2.partial"],
        removed_count=1,
        problems=["repository second is away"],
    )
    assert run(["hub", "recovery"]) == 0
    out = capsys.readouterr().out
    for told in (
        "waits for agent",
        "1 reopened behind",
        "6.0 MiB",
        "1.0 MiB cut",
        "repository second is away",
        "removed default: ctx/job/disk-0.qcow2.partial",
    ):
        assert told in " ".join(out.split()), out
