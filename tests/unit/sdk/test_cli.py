"""The `sendense` command in this process: what it prints, asks and returns."""

import json
import re
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from sendense import Client, NotFound
from sendense.cli.failures import ExitCode
from sendense.cli.main import run
from sendense.clusters import CLUSTER_BYTES
from sendense.v1 import backup_pb2, context_pb2, inventory_pb2, repository_pb2
from shared.errors import InvalidArgument as RefusedField
from tests.unit.sdk.cli_world import JOB_ID, furnish, job, lines
from tests.unit.sdk.client_hub import ClientHub, draw, refused, stored

Status = grpc.StatusCode


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClientHub]:
    with ClientHub() as hub:
        monkeypatch.setenv("SENDENSE_HUB", hub.address)
        furnish(hub.state)
        yield hub


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "vm list",
            ["pgtest1 site-1 vm-12 on 1 1.0 GiB off none agent away; Hard disk 2: independent"],
        ),
        (
            "job list",
            [
                f"{JOB_ID} pgtest1 site-1 default incremental completed 2025-10-08 18:05:59Z "
                "2 min 05 s 3.0 GiB 300 MiB 301 MiB"
            ],
        ),
        (
            f"job show {JOB_ID}",
            ["status completed", "took 2 min 05 s", "read 3.0 GiB of 3.0 GiB", "sent 300 MiB"],
        ),
        ("context list", ["ctx-1 pgtest1 4 3 1 0 0 B incremental"]),
        ("context show ctx-1", ["backups 4 run, 3 completed, 1 failed"]),
        (
            f"disk list --job {JOB_ID}",
            [f"{JOB_ID} 0 2000 Hard disk 1 102 GiB incremental completed 3.0 GiB 300 MiB 0 B"],
        ),
        (
            f"disk list {JOB_ID}",
            [f"{JOB_ID} 0 2000 Hard disk 1 102 GiB incremental completed 3.0 GiB 300 MiB 0 B"],
        ),
        (f"disk show {JOB_ID} 0", ["base backup-pgtest1-1", "change id 52 de c0/12"]),
        ("repository list", ["default default /srv/backups 0 0 0 B 256 GiB 1.0 TiB"]),
        ("repository show default", ["path /srv/backups", "free 256 GiB of 1.0 TiB"]),
        ("repository create second /srv/second", ["repository second", "path /srv/second"]),
        ("agent list", ["site-1 yes VMware ESXi 8.0.3 at 10.0.0.5 5 0"]),
        ("agent show site-1", ["connected yes", "vSphere VMware ESXi 8.0.3"]),
        (
            f"job cancel {JOB_ID}",
            [
                "nothing to cancel, the job had ended already: "
                f"{JOB_ID}: completed in 2 min 05 s, incremental, 3.0 GiB read, 300 MiB sent, 301 MiB stored"
            ],
        ),
        ("backup start pgtest1", ["backup-pgtest1-1"]),
    ],
)
def test_people_get_the_facts(hub, capsys, command, expected):
    assert run(command.split()) == ExitCode.OK
    printed = lines(capsys.readouterr().out)
    assert [line for line in expected if line not in printed] == []


@pytest.mark.parametrize(
    ("command", "kind", "name"),
    [
        ("vm list", inventory_pb2.ListVirtualMachinesResponse, "virtual_machines"),
        ("job list", backup_pb2.ListBackupsResponse, "backups"),
        ("context list", context_pb2.ListContextsResponse, "contexts"),
        (f"disk list --job {JOB_ID}", context_pb2.ListDisksResponse, "disks"),
        ("repository list", repository_pb2.ListRepositoriesResponse, "repositories"),
        ("agent list", inventory_pb2.ListAgentsResponse, "agents"),
    ],
)
@pytest.mark.parametrize("place", ["before", "after"])
def test_lists_are_one_json_document(hub, capsys, command, kind, name, place):
    words = command.split()
    assert run(["--json", *words] if place == "before" else [*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(getattr(ParseDict(document, kind()), name)) == getattr(hub.state, name)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (f"job show {JOB_ID}", lambda hub: hub.state.backups[0]),
        ("context show ctx-1", lambda hub: hub.state.contexts[0]),
        (
            f"disk show {JOB_ID} 0",
            lambda hub: context_pb2.GetDiskResponse(disk=hub.state.disks[0], chain=hub.state.disks),
        ),
        ("repository show default", lambda hub: hub.state.repositories[0]),
        ("repository create second /srv/2", lambda hub: hub.state.repositories[1]),
        ("agent show site-1", lambda hub: hub.state.agents[0]),
        (f"job cancel {JOB_ID}", lambda hub: hub.state.backups[0]),
        ("backup start pgtest1", lambda hub: hub.state.backups[0]),
    ],
)
def test_single_things_are_one_json_document(hub, capsys, command, expected):
    assert run([*command.split(), "--json"]) == 0
    message = expected(hub)
    assert ParseDict(json.loads(capsys.readouterr().out), type(message)()) == message


def test_json_keeps_the_names_and_zeros_of_the_protos(hub, capsys):
    assert run(["job", "show", JOB_ID, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["bytes_read"] == str(3 << 30)
    assert document["disks"][0]["bytes_stored"] == "0"
    assert document["status"] == "BACKUP_STATUS_COMPLETED"
    assert document["created_at"] == "2025-10-08T18:05:59Z"


def test_backup_start_asks_for_what_was_typed(hub):
    words = "backup start pgtest1 --site s1 --repository r1 --type full --quiesce"
    assert run(words.split()) == 0
    (request,) = hub.state.requests("StartBackup")
    assert (request.vm, request.site, request.repository) == ("pgtest1", "s1", "r1")
    assert request.backup_type == backup_pb2.BACKUP_TYPE_FULL
    assert request.quiesce


def test_job_list_filters_and_stops_at_its_limit(hub, capsys):
    hub.state.backups = [backup_pb2.Backup(job_id=f"job-{n}") for n in range(500)]
    words = "job list --vm pgtest1 --status failed --repository r1 --limit 3 --json"
    assert run(words.split()) == 0
    assert len(json.loads(capsys.readouterr().out)["backups"]) == 3
    (request,) = hub.state.requests("ListBackups")
    assert (request.vm_name, request.repository) == ("pgtest1", "r1")
    assert request.status == backup_pb2.BACKUP_STATUS_FAILED


@pytest.mark.parametrize(("status", "code"), [(3, 0), (4, 1), (5, 1)])
@pytest.mark.parametrize("command", ["backup start pgtest1 --wait", f"job watch {JOB_ID}"])
def test_following_ends_with_the_job(hub, capsys, command, status, code):
    error = backup_pb2.BackupError(reason="DISK_FULL", message="no space") if status > 3 else None
    warning = backup_pb2.BackupWarning(code="DISK_SKIPPED", message="left out", disk_label="D2")
    last = job(status, error=error, warnings=[warning])
    hub.state.watches = [[job(1), job(2, warnings=[warning]), last]]
    assert run(command.split()) == code
    out, err = capsys.readouterr()
    assert out == ""
    printed = lines(err)
    assert printed.count("warning: D2: left out (DISK_SKIPPED)") == 1
    assert any(
        line.startswith("disk 0 (Hard disk 1): 3.0 GiB of 3.0 GiB (100 %)") for line in printed
    )
    assert ("no space (DISK_FULL)" in printed[-1]) == (status > 3)


def test_watch_prints_a_json_line_for_every_state(hub, capsys):
    hub.state.watches = [[job(1), job(2), job(4)]]
    assert run(["job", "watch", JOB_ID, "--json"]) == 1
    out, err = capsys.readouterr()
    states = [ParseDict(json.loads(line), backup_pb2.Backup()) for line in out.splitlines()]
    assert states == [job(1), job(2), job(4)]
    assert err == ""


def test_backup_start_wait_prints_the_last_state_as_json(hub, capsys):
    hub.state.watches = [[job(1), job(3)]]
    assert run(["backup", "start", "pgtest1", "--wait", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert ParseDict(document, backup_pb2.Backup()) == job(3)


@pytest.mark.parametrize("file_format", ["raw", "qcow2"])
def test_restore_writes_the_disk(hub, capsys, tmp_path, file_format):
    hub.state.restore = lambda: stored(draw("AB.1"), job_id=JOB_ID)
    target = tmp_path / "disk"
    words = ["restore", JOB_ID, "0", "--output", str(target), "--format", file_format]
    assert run([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["path"] == str(target)
    assert (document["capacity_bytes"], document["cluster_count"]) == (str(4 * 65536), "3")
    assert int(document["payload_bytes"]) > 65536
    assert target.read_bytes()[:4] == (b"QFI\xfb" if file_format == "qcow2" else b"A0-#")
    assert "disk 0 (Hard disk 1): 192 KiB of 192 KiB (100 %)" in err


def test_restore_of_an_imported_disk_says_what_could_not_be_checked(hub, capsys, tmp_path):
    hub.state.restore = lambda: stored(draw("AB.1"), job_id=JOB_ID, imported=True)
    target = tmp_path / "disk"
    assert run(["restore", JOB_ID, "0", "--output", str(target)]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"digest [0-9a-f]{16}… as the hub read it\n", out)
    told = lines(err)
    assert told[0].startswith("disk 0 (Hard disk 1): 192 KiB, ")
    assert told[-1].startswith("remark: an imported backup has no digests of its own")
    assert run(["restore", JOB_ID, "0", "--output", str(target), "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["imported"] is True


def test_restore_replaces_a_file_only_by_force(hub, capsys, tmp_path):
    hub.state.restore = lambda: stored(draw("A"), job_id=JOB_ID)
    target = tmp_path / "disk.raw"
    target.write_bytes(b"precious")
    words = ["restore", JOB_ID, "0", "-o", str(target)]
    assert run(words) == ExitCode.REFUSED
    assert target.read_bytes() == b"precious"
    assert capsys.readouterr().err == (
        f"error: {target} exists; use --force to replace it (TARGET_EXISTS)\n"
    )
    assert run([*words, "--force"]) == 0
    assert target.read_bytes() == draw("A")
    assert re.search(r"digest [0-9a-f]{16}… as backed up", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (refused("no such job"), ExitCode.NOT_FOUND),
        (refused("x", status=Status.ALREADY_EXISTS, code="BACKUP_RUNNING"), ExitCode.REFUSED),
        (refused("x", status=Status.FAILED_PRECONDITION, code="VM_AMBIGUOUS"), ExitCode.REFUSED),
        (refused("x", status=Status.RESOURCE_EXHAUSTED, code="FULL"), ExitCode.REFUSED),
        (refused("x", status=Status.UNAVAILABLE, code="AGENT_AWAY"), ExitCode.REFUSED),
        (refused("x", status=Status.DATA_LOSS, code="LAYER_DAMAGED"), ExitCode.DATA_DAMAGED),
        (RefusedField("vm", "empty"), ExitCode.USAGE),
        (Status.UNAVAILABLE, ExitCode.HUB_UNREACHABLE),
        (Status.INTERNAL, ExitCode.FAILED),
    ],
)
def test_errors_have_exit_codes_and_reasons(hub, capsys, failure, code):
    hub.state.failures["StartBackup"] = [failure] * 4
    assert run(["backup", "start", "pgtest1"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+ \([A-Z_]+\)\n", err)


def test_errors_are_json_when_json_was_asked_for(hub, capsys):
    failure = refused("job nope does not exist")
    hub.state.failures["GetBackup"] = [failure]
    assert run(["job", "show", "nope", "--json"]) == ExitCode.NOT_FOUND
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err) == {
        "error": {
            "reason": "JOB_NOT_FOUND",
            "message": "job nope does not exist",
            "metadata": {"sentence": "job nope does not exist"},
            "exit_code": 4,
        }
    }


@pytest.mark.parametrize(
    "words",
    [
        "nonsense",
        "job",
        "job show",
        "job list --status odd",
        "job list --limit 0",
        "backup start pgtest1 --type odd",
        "restore job-1 0",
        "restore job-1 first --output x",
        "restore job-1 2147483648 --output x",
        "disk show job-1 2147483648",
        "disk change-id pgtest1 99999999999",
        "job show \udcff",
        "job list --since 2026-01-02 --until 2026-01-01",
        "restore job-1 -1 --output x",
        "disk list",
        "disk list --job a --context b",
        "disk list a --job b",
        "restore job-1 0 --output -",
        "--hub no/where: job list",
    ],
)
def test_wrong_usage_is_told_in_a_line(hub, capsys, words):
    assert run(words.split()) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+ \((USAGE|INVALID_ARGUMENT)\)\n", err)
    assert ".;" not in err
    assert "Value error" not in err
    assert run([*words.split(), "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().err)["error"]["exit_code"] == 2
    assert hub.state.seen == []


def test_hub_option_is_taken_anywhere_and_beats_the_environment(hub, capsys, monkeypatch):
    monkeypatch.setenv("SENDENSE_HUB", "127.0.0.1:1")
    assert run(["--hub", hub.address, "agent", "list"]) == 0
    assert run(["agent", "list", "--hub", hub.address]) == 0
    assert run(["agent", "list"]) == ExitCode.HUB_UNREACHABLE
    assert capsys.readouterr().err == (
        "error: the hub cannot be reached at 127.0.0.1:1: connection refused; "
        "is the hub running? (HUB_UNAVAILABLE)\n"
    )


def test_names_from_a_guest_cannot_command_the_terminal(hub, capsys):
    hub.state.virtual_machines[0].name = "\x1b[2Jevil[bold]\n"
    assert run(["vm", "list"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[2Jevil[bold]\\n" in out


def test_state_of_a_newer_hub_is_shown_as_its_number(hub, capsys):
    hub.state.backups = [job(99)]
    assert run(["job", "show", JOB_ID]) == 0
    assert "status 99" in lines(capsys.readouterr().out)


def test_nothing_to_list_is_said(capsys, monkeypatch):
    with ClientHub() as hub:
        monkeypatch.setenv("SENDENSE_HUB", hub.address)
        for words in ("vm list", "job list", "context list", "repository list", "agent list"):
            assert run(words.split()) == 0
            assert re.fullmatch(r"no \w+\n", capsys.readouterr().out)


def test_defects_are_told_without_a_traceback(hub, capsys, monkeypatch):
    def broken(self: object, **_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("sendense.Client.list_agents", broken)
    assert run(["agent", "list"]) == ExitCode.FAILED
    err = capsys.readouterr().err
    assert err == "error: unexpected ZeroDivisionError: oops (INTERNAL)\n"


@pytest.mark.parametrize("count", [1, 2])
def test_warnings_of_a_completed_job_are_counted_wherever_it_is_told_of(hub, capsys, count):
    warnings = [backup_pb2.BackupWarning(code="DISK_SKIPPED", message="left out")] * count
    told = "completed, 1 warning" if count == 1 else "completed, 2 warnings"
    hub.state.backups = [job(warnings=warnings)]
    for command in ("job list", "context show ctx-1"):
        assert run(command.split()) == 0
        rows = lines(capsys.readouterr().out)
        assert any(" Status Warnings Created " in row for row in rows)
        assert any(f" completed {count} 2025-" in row for row in rows)
    assert run(["job", "show", JOB_ID]) == 0
    assert f"status {told}" in lines(capsys.readouterr().out)
    hub.state.watches = [[job(2), job(warnings=warnings)]]
    assert run(["job", "watch", JOB_ID]) == 0
    assert lines(capsys.readouterr().err)[-1].startswith(f"{JOB_ID}: {told}, in 2 min 05 s, ")


def test_cancelled_job_says_so_once_and_has_no_time_left(hub, capsys):
    error = backup_pb2.BackupError(reason="CANCELLED", message="cancelled: too slow")
    last = job(5, error=error)
    last.disks[0].bytes_read = 2 << 30
    before = job(2)
    before.disks[0].bytes_read = 1 << 30
    hub.state.watches = [[before, last]]
    assert run(["job", "watch", JOB_ID]) == 1
    told = lines(capsys.readouterr().err)
    assert told[-1] == f"{JOB_ID}: cancelled: too slow"
    assert told[-2].startswith("disk 0 (Hard disk 1): 2.0 GiB of 3.0 GiB (66 %)")
    assert "left" not in told[-2]
    hub.state.backups = [last]
    assert run(["job", "show", JOB_ID]) == 0
    assert {"status cancelled", "error too slow"} <= set(lines(capsys.readouterr().out))


def test_disks_of_a_shown_job_do_not_repeat_its_id(hub, capsys):
    assert run(["job", "show", JOB_ID]) == 0
    assert capsys.readouterr().out.count(JOB_ID) == 1


def test_job_cancel_of_a_live_job_says_that_it_was_asked_to_end(hub, capsys):
    hub.state.backups = [job(2)]
    assert run(["job", "cancel", JOB_ID]) == 0
    assert capsys.readouterr().out == f"{JOB_ID}: asked to end\n"


@pytest.mark.parametrize(
    ("address", "asked"),
    [("127.0.0.1", "127.0.0.1:8443"), ("[::1]", "[::1]:8443"), ("hub.lan:1", "hub.lan:1")],
)
def test_hub_without_a_port_gets_the_usual_one(monkeypatch, capsys, address, asked):
    def reveal(client: Client) -> list[object]:
        raise NotFound(client.address)

    monkeypatch.setattr("sendense.Client.list_agents", reveal)
    assert run(["--hub", address, "agent", "list"]) == ExitCode.NOT_FOUND
    assert f"error: {asked} (" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["", "-"])
def test_output_that_names_no_file_is_refused_before_the_hub_is_asked(hub, capsys, output):
    assert run(["restore", JOB_ID, "0", "--output", output]) == ExitCode.USAGE
    assert "file" in capsys.readouterr().err
    assert hub.state.seen == []


def test_disk_that_does_not_fit_is_told_in_sizes(hub, capsys, tmp_path):
    parts = stored(draw("A1"), capacity_bytes=200 << 40, job_id=JOB_ID)
    parts[0].header.cluster_count = (200 << 40) // CLUSTER_BYTES
    hub.state.restore = lambda: parts
    target = tmp_path / "disk.raw"
    assert run(["restore", JOB_ID, "0", "-o", str(target)]) == ExitCode.REFUSED
    assert re.fullmatch(
        rf"error: {target} needs 200 TiB, its file system has [0-9.]+ [KMGTP]iB free "
        r"\(TARGET_NO_SPACE\)\n",
        capsys.readouterr().err,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["", "job", "job list", "restore", "disk show"])
def test_short_help_option_works_everywhere(capsys, words):
    assert run([*words.split(), "-h"]) == 0
    assert (
        capsys.readouterr().out.lstrip().startswith(f"Usage: sendense{' ' * bool(words)}{words} ")
    )
