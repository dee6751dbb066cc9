"""The command on change tracking: how disks were read, samples, distrust, alarms of snapshots."""

from collections.abc import Iterator

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sendense.cli.main import run
from sendense.v1 import backup_pb2, inventory_pb2
from tests.unit.sdk.cli_world import JOB_ID, furnish, job, lines
from tests.unit.sdk.client_hub import ClientHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClientHub]:
    with ClientHub() as hub:
        monkeypatch.setenv("SENDENSE_HUB", hub.address)
        furnish(hub.state)
        yield hub


def test_compared_disk_says_why_and_what_was_not_sent(hub, capsys):
    disk = hub.state.disks[0]
    disk.read_method = backup_pb2.READ_METHOD_COMPARED
    disk.read_reason = "changed block tracking was reset since the last backup"
    disk.bytes_unchanged = 2 << 30
    assert run(["disk", "show", JOB_ID, "0"]) == 0
    facts = lines(capsys.readouterr().out)
    assert {
        "read by compared",
        "because changed block tracking was reset since the last backup",
        "unchanged 2.0 GiB",
    } <= set(facts)
    assert not any(fact.startswith("sample") for fact in facts)


@pytest.mark.parametrize(
    ("missed", "told"),
    [
        (0, "none had changed: with 95 % confidence fewer than 12 of 4000"),
        (3, "; 3 had changed"),
    ],
)
def test_sample_is_told_with_what_it_bounds(hub, capsys, missed, told):
    hub.state.disks[0].sampling.CopyFrom(
        backup_pb2.DiskSampling(
            clusters_sampled=80,
            clusters_drawn_from=4000,
            undetected_clusters_bound=12,
            clusters_missed=missed,
        )
    )
    assert run(["disk", "show", JOB_ID, "0"]) == 0
    out = " ".join(lines(capsys.readouterr().out))
    assert "sample 80 clusters called unchanged were checked" in out
    assert told in out


def test_context_whose_tracking_is_distrusted_says_which_job_found_out(hub, capsys):
    context = hub.state.contexts[0]
    assert run(["context", "show", context.context_id]) == 0
    assert "distrusted" not in capsys.readouterr().out
    context.tracking_distrusted_since.CopyFrom(Timestamp(seconds=1759946885))
    context.tracking_distrusted_job_id = JOB_ID
    assert run(["context", "show", context.context_id]) == 0
    out = " ".join(lines(capsys.readouterr().out))
    assert f"tracking distrusted since 2025-10-08 18:08:05Z: {JOB_ID} found changes" in out


def test_alarms_of_a_vm_stand_in_its_remarks(hub, capsys):
    vm = hub.state.virtual_machines[0]
    vm.alarms.append(inventory_pb2.VmAlarm(code="SNAPSHOT_OLD", message="'before update' is old"))
    assert run(["vm", "list"]) == 0
    assert "'before update' is old (SNAPSHOT_OLD)" in " ".join(lines(capsys.readouterr().out))


@pytest.mark.parametrize("message", ["Hard disk 1 is compared", "is compared"])
def test_warning_names_its_disk_once(hub, capsys, message):
    warning = backup_pb2.BackupWarning(
        code="COMPARED_INSTEAD_OF_TRACKING", message=message, disk_label="Hard disk 1"
    )
    hub.state.backups = [job(warnings=[warning])]
    assert run(["job", "show", JOB_ID]) == 0
    out = " ".join(lines(capsys.readouterr().out))
    assert out.count("Hard disk 1") == 2  # in the warning, and in the table of disks
    assert "(COMPARED_INSTEAD_OF_TRACKING)" in out
