"""Commands of the administration: what they show, send and return."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from sendense.cli import times
from sendense.cli.failures import ExitCode
from sendense.cli.main import run
from sendense.v1 import (
    backup_pb2,
    context_pb2,
    inventory_pb2,
    repository_pb2,
    statistics_pb2,
)
from shared.errors import InvalidArgument, InvalidRequest
from tests.unit.sdk.cli_world import JOB_ID, furnish, job, lines
from tests.unit.sdk.client_hub import ClientHub, refused

DAY = 1759881600  # 2025-10-08


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClientHub]:
    with ClientHub() as hub:
        monkeypatch.setenv("SENDENSE_HUB", hub.address)
        furnish(hub.state)
        hub.state.chain = context_pb2.GetChainResponse(
            bytes_stored=400 << 20,
            layers=[
                context_pb2.ChainLayer(
                    job_id=JOB_ID,
                    backup_type=2,
                    created_at=Timestamp(seconds=1759946759),
                    qcow2_path="ctx-1/job-2/disk-0.qcow2",
                    bytes_stored=100 << 20,
                    capacity_bytes=102 << 30,
                ),
                context_pb2.ChainLayer(
                    job_id="backup-pgtest1-1",
                    backup_type=1,
                    qcow2_path="ctx-1/job-1/disk-0.qcow2",
                    bytes_stored=300 << 20,
                    problem="the file is missing",
                ),
            ],
        )
        hub.state.change_id = context_pb2.GetChangeIdResponse(
            disk_change_id="52 de c0/12",
            context_id="ctx-1",
            job_id=JOB_ID,
            disk_id=7,
            vmware_disk_key=2000,
            disk_uuid="6000C29e-1",
            completed_at=Timestamp(seconds=1759946885),
        )
        hub.state.checks = [
            repository_pb2.RepositoryCheck(name="mark", passed=True, message="it is this hub's"),
            repository_pb2.RepositoryCheck(name="write", passed=False, message="read-only"),
        ]
        hub.state.statistics = statistics_pb2.GetStatisticsResponse(
            now=statistics_pb2.CurrentTotals(
                repositories=2,
                agents=3,
                agents_connected=1,
                virtual_machines=9,
                virtual_machines_not_protected=4,
                contexts=6,
                restore_points=21,
                jobs_running=1,
                bytes_stored=5 << 30,
            ),
            total=statistics_pb2.DayStatistics(
                jobs=3,
                jobs_completed=2,
                jobs_failed=1,
                bytes_read=4 << 30,
                bytes_read_per_second=200 << 20,
            ),
            days=[
                statistics_pb2.DayStatistics(day=Timestamp(seconds=DAY)),
                statistics_pb2.DayStatistics(
                    day=Timestamp(seconds=DAY + 86400),
                    jobs=3,
                    jobs_completed=2,
                    jobs_failed=1,
                    jobs_full=1,
                    bytes_read=4 << 30,
                    bytes_transferred=1 << 30,
                    bytes_stored=1 << 30,
                    bytes_read_per_second=200 << 20,
                ),
            ],
        )
        yield hub


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            f"disk chain {JOB_ID} 0",
            [
                f"{JOB_ID} 0 incremental 2025-10-08 18:05:59Z 102 GiB 100 MiB ctx-1/job-2/disk-0.qcow2",
                "backup-pgtest1-1 0 full 0 B 300 MiB ctx-1/job-1/disk-0.qcow2 the file is missing",
                "2 layers, 400 MiB stored, 1 problem",
            ],
        ),
        (
            "disk change-id pgtest1 0",
            [
                "change id 52 de c0/12",
                "context ctx-1",
                f"job {JOB_ID}",
                "VMware key 2000",
                "uuid 6000C29e-1",
                "completed 2025-10-08 18:08:05Z",
            ],
        ),
        (
            "statistics",
            [
                "repositories 2",
                "agents 3, 1 connected",
                "VMs 9, 4 not protected",
                "contexts 6",
                "restore points 21",
                "running jobs 1",
                "stored 5.0 GiB",
                "2025-10-08 0 0 0 0 0 0 B 0 B 0 B",
                "2025-10-09 3 2 1 0 1 4.0 GiB 1.0 GiB 1.0 GiB 200 MiB/s",
                "2 days 3 2 1 0 0 4.0 GiB 0 B 0 B 200 MiB/s",
            ],
        ),
        ("repository disable default", ["repository default", "state default, disabled"]),
        ("repository enable default", ["state default"]),
        ("repository rename default first", ["repository first", "id repo-1"]),
        ("repository set-default default", ["state default"]),
        ("agent drain site-1", ["connected yes, draining"]),
        ("agent resume site-1", ["connected yes"]),
        ("agent remove site-1 --yes", ["site-1: removed"]),
        ("repository delete default --yes", ["default: deleted"]),
        (f"job retry {JOB_ID}", [f"{JOB_ID}-again"]),
        (f"job delete {JOB_ID} --yes", [f"{JOB_ID}: deleted"]),
        ("context delete ctx-1 --yes", [f"{JOB_ID}: deleted"]),
    ],
)
def test_people_get_the_facts(hub, capsys, command, expected):
    assert run(command.split()) == 0
    printed = lines(capsys.readouterr().out)
    assert [line for line in expected if line not in printed] == []


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (f"disk chain {JOB_ID} 0", lambda hub: hub.state.chain),
        ("disk change-id pgtest1 0", lambda hub: hub.state.change_id),
        ("statistics", lambda hub: hub.state.statistics),
        (f"job retry {JOB_ID}", lambda hub: hub.state.backups[0]),
        ("agent drain site-1", lambda hub: hub.state.agents[0]),
        ("repository disable default", lambda hub: hub.state.repositories[0]),
        (
            f"job delete {JOB_ID} --yes",
            lambda hub: backup_pb2.DeletedBackups(job_ids=[JOB_ID], bytes_stored=301 << 20),
        ),
    ],
)
def test_json_is_the_message(hub, capsys, command, answer):
    assert run([*command.split(), "--json"]) == 0
    message = answer(hub)
    assert ParseDict(json.loads(capsys.readouterr().out), type(message)()) == message


@pytest.mark.parametrize("as_json", [False, True])
def test_repository_that_fails_a_check_is_shown_and_exit_code_1(hub, capsys, as_json):
    assert run(["repository", "test", "default", *["--json"] * as_json]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert err == ""
    if as_json:
        answer = ParseDict(json.loads(out), repository_pb2.TestRepositoryResponse())
        assert list(answer.checks) == hub.state.checks
        assert not answer.passed
    else:
        assert {"mark yes it is this hub's", "write no read-only"} <= set(lines(out))
    del hub.state.checks[1]
    assert run(["repository", "test", "default"]) == ExitCode.OK


def test_repositories_are_listed_with_their_use(hub, capsys):
    item = hub.state.repositories[0]
    item.disabled, item.is_default = True, False
    item.context_count, item.restore_point_count, item.bytes_stored = 2, 11, 3 << 30
    assert run(["repository", "list"]) == 0
    assert "default disabled /srv/backups 2 11 3.0 GiB 256 GiB 1.0 TiB" in lines(
        capsys.readouterr().out
    )
    assert run(["repository", "show", "default"]) == 0
    assert {"state disabled", "VMs 2", "restore points 11", "stored 3.0 GiB"} <= set(
        lines(capsys.readouterr().out)
    )


@pytest.mark.parametrize(
    ("option", "asked"),
    [
        ([], inventory_pb2.PROTECTION_UNSPECIFIED),
        (["--protected"], inventory_pb2.PROTECTION_PROTECTED),
        (["--not-protected"], inventory_pb2.PROTECTION_NOT_PROTECTED),
    ],
)
def test_vms_are_listed_by_protection_with_their_last_backup(hub, capsys, option, asked):
    vm = hub.state.virtual_machines[0]
    vm.is_protected = True
    vm.last_backup_at.FromSeconds(1759946885)
    assert run(["vm", "list", *option]) == 0
    (request,) = hub.state.requests("ListVirtualMachines")
    assert request.protection == asked
    out = capsys.readouterr().out
    assert "Last backup" in out
    assert "2025-10-08 18:08:05Z" in out


def test_job_list_sends_every_filter(hub, capsys):
    words = (
        "job list --vm pgtest1 --context ctx-1 --repository r1 --status completed --type full "
        "--since 2025-10-08 --until 2025-10-09T02:00+02:00 --oldest-first --limit 3 --json"
    )
    assert run(words.split()) == 0
    assert hub.state.requests("ListBackups") == [
        backup_pb2.ListBackupsRequest(
            vm_name="pgtest1",
            context_id="ctx-1",
            repository="r1",
            status=backup_pb2.BACKUP_STATUS_COMPLETED,
            backup_type=backup_pb2.BACKUP_TYPE_FULL,
            created_after=Timestamp(seconds=DAY),
            created_before=Timestamp(seconds=DAY + 86400),
            order=backup_pb2.BACKUP_ORDER_OLDEST_FIRST,
            page_size=200,
        )
    ]


@pytest.mark.parametrize(
    ("typed", "ago"),
    [
        ("7d", timedelta(days=7)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("2w", timedelta(weeks=2)),
        ("5s", timedelta(seconds=5)),
    ],
)
def test_times_may_be_how_long_ago(typed, ago):
    before = datetime.now(UTC)
    moment = times.moment(typed)
    assert before - ago <= moment <= datetime.now(UTC) - ago


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2025-10-08", datetime(2025, 10, 8, tzinfo=UTC)),
        ("2025-10-08T18:05", datetime(2025, 10, 8, 18, 5, tzinfo=UTC)),
        ("2025-10-08 18:05:59Z", datetime(2025, 10, 8, 18, 5, 59, tzinfo=UTC)),
        ("2025-10-08T18:05+02:00", datetime(2025, 10, 8, 16, 5, tzinfo=UTC)),
    ],
)
def test_times_without_a_zone_are_utc(typed, meant):
    assert times.moment(typed) == meant


@pytest.mark.parametrize(
    "typed", ["", "yesterday", "7y", "0001-01-01T00:00+14:00", "-7d", "2025-13-01", "999999w", "d"]
)
def test_times_that_are_none_are_refused_before_the_hub_is_asked(hub, capsys, typed):
    assert run(["job", "list", "--since", typed]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "7d, 12h" in err
    assert hub.state.seen == []


def test_several_refused_fields_are_a_line_each(hub, capsys):
    wrong = [InvalidArgument("vm", "is needed"), InvalidArgument("site", "is too long")]
    hub.state.failures["StartBackup"] = [InvalidRequest(wrong)] * 2
    assert run(["backup", "start", "x"]) == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "error: 2 values cannot be used (INVALID_ARGUMENT)\n  vm: is needed\n  site: is too long\n"
    )
    assert run(["backup", "start", "x", "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().err)["error"] == {
        "reason": "INVALID_ARGUMENT",
        "message": "vm: is needed; site: is too long",
        "metadata": {"fields": "vm,site"},
        "exit_code": 2,
        "violations": [
            {"field": "vm", "problem": "is needed"},
            {"field": "site", "problem": "is too long"},
        ],
    }


def test_one_refused_field_is_the_line_of_the_error(hub, capsys):
    hub.state.failures["StartBackup"] = [InvalidArgument("vm", "is needed")]
    assert run(["backup", "start", "x"]) == ExitCode.USAGE
    assert capsys.readouterr().err == "error: vm: is needed (INVALID_ARGUMENT)\n"


@pytest.mark.parametrize("status", [3, 4])
def test_retried_job_is_followed_to_its_end(hub, capsys, status):
    hub.state.watches = [[job(2), job(status)]]
    assert run(["job", "retry", JOB_ID, "--wait"]) == (0 if status == 3 else 1)
    assert f"{JOB_ID}-again: started" in lines(capsys.readouterr().err)


@pytest.mark.parametrize(
    "words",
    [
        f"job delete {JOB_ID}",
        f"job delete {JOB_ID} --cascade",
        "context delete ctx-1",
        "repository delete default",
        "agent remove site-1",
    ],
)
@pytest.mark.parametrize("stdin", ["pipe", "none"])
def test_deleting_without_a_terminal_needs_yes(hub, capsys, monkeypatch, words, stdin):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n") if stdin == "pipe" else None)
    assert run(words.split()) == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "error: nobody can be asked, since standard input is no terminal: "
        "give --yes to go ahead (CONFIRMATION_NEEDED)\n"
    )
    assert hub.state.seen == []


def test_job_with_dependants_is_deleted_only_with_them(hub, capsys):
    hub.state.dependants = "job-2,job-3"
    assert run(["job", "delete", JOB_ID, "--yes"]) == ExitCode.REFUSED
    assert "(JOB_HAS_DEPENDANTS)" in capsys.readouterr().err
    assert run(["job", "delete", JOB_ID, "--yes", "--cascade"]) == 0
    out, err = capsys.readouterr()
    assert lines(out) == ["job-3: deleted", "job-2: deleted", f"{JOB_ID}: deleted"]
    assert lines(err) == ["3 backups deleted, 301 MiB"]


def test_files_that_could_not_be_removed_are_told(hub, capsys):
    hub.state.pending = [JOB_ID]
    assert run(["job", "delete", JOB_ID, "--yes"]) == 0
    assert lines(capsys.readouterr().err)[-1] == (
        f"files that could not be removed now: of {JOB_ID}; the hub tries again"
    )


def test_imported_jobs_and_disks_leave_blank_what_nobody_knows(hub, capsys):
    full = job(imported_at=Timestamp(seconds=1759946759))
    for item in (full, full.disks[0]):
        item.bytes_planned = item.bytes_read = item.bytes_transferred = 0
    full.disks[0].vmware_disk_key, full.disks[0].root_digest = 0, ""
    hub.state.backups, hub.state.disks = [full], [full.disks[0]]
    hub.state.change_id.vmware_disk_key = 0
    for command, row in (
        ("job list", "completed 2025-10-08 18:05:59Z 2 min 05 s 301 MiB"),
        (f"disk list {JOB_ID}", f"{JOB_ID} 0 Hard disk 1 102 GiB incremental completed 0 B"),
        (f"job cancel {JOB_ID}", "completed in 2 min 05 s, incremental, 301 MiB stored"),
    ):
        assert run(command.split()) == 0
        assert lines(capsys.readouterr().out)[-1].endswith(row)
    for command in (f"job show {JOB_ID}", f"disk show {JOB_ID} 0", "disk change-id pgtest1 0"):
        assert run(command.split()) == 0
        names = {line.split()[0] for line in lines(capsys.readouterr().out)}
        assert not names & {"read", "sent", "VMware"}


@pytest.mark.parametrize("default", [True, False])
def test_disabling_the_default_repository_says_what_that_means(hub, capsys, default):
    hub.state.repositories[0].is_default = default
    assert run(["repository", "disable", "default"]) == 0
    out, err = capsys.readouterr()
    assert "disabled" in out
    remark = (
        "remark: it is the default: backups that name no repository are refused until another "
        "one is (sendense repository set-default)\n"
    )
    assert err == (remark if default else "")


def test_period_that_ends_before_it_begins_is_told_in_the_options_of_the_command(hub, capsys):
    assert run(["job", "list", "--since", "2026-01-02", "--until", "2026-01-02"]) == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "error: Invalid value: --since must be before --until; "
        "see 'sendense job list --help' (USAGE)\n"
    )
    assert hub.state.seen == []


def test_imported_and_retried_jobs_say_so(hub, capsys):
    shown = job(retry_of_job_id="job-0", imported_at=Timestamp(seconds=1759946759))
    hub.state.backups = [shown]
    assert run(["job", "show", JOB_ID]) == 0
    assert {"retry of job-0", "imported 2025-10-08 18:05:59Z"} <= set(
        lines(capsys.readouterr().out)
    )


def test_refusals_of_the_administration_are_exit_code_5(hub, capsys):
    hub.state.failures["DrainAgent"] = [refused("no such agent", code="AGENT_NOT_FOUND")]
    assert run(["agent", "drain", "site-9"]) == ExitCode.NOT_FOUND
    hub.state.failures["DeleteRepository"] = [
        refused("x", status=grpc.StatusCode.FAILED_PRECONDITION, code="REPOSITORY_NOT_EMPTY")
    ]
    assert run(["repository", "delete", "default", "--yes"]) == ExitCode.REFUSED
    assert "(REPOSITORY_NOT_EMPTY)" in capsys.readouterr().err
