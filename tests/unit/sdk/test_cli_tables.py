"""Tables of the command: what stays whole, folds or gives way at which width."""

import io

import pytest
from rich.console import Console

from sendense.cli.jobs import print_jobs
from sendense.cli.tables import Column, number, show_table, words
from sendense.v1.backup_pb2 import Backup, BackupWarning

COLUMNS = (
    "Id",
    words("Name"),
    Column("Took", spare=1),
    number("Sent", spare=2),
    "Created",
)
ROW = (
    "backup-pgtest1-1759946759",
    "a name of several words",
    "2 min 05 s",
    "300 MiB",
    "2025-10-08",
)


def shown(width: int, columns=COLUMNS, row=ROW) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    show_table(console, columns, [row], empty="nothing")
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("width", "left_out"), [(200, []), (90, []), (70, ["Sent"]), (60, ["Took", "Sent"])]
)
def test_spare_columns_give_way_when_the_rest_does_not_fit(width, left_out):
    printed = shown(width)
    headings = [column if isinstance(column, str) else column.heading for column in COLUMNS]
    assert [heading for heading in headings if heading not in printed[0]] == left_out
    assert max(map(len, printed)) <= width


@pytest.mark.parametrize("width", [10, 40, 60, 90, 200])
def test_ids_and_times_stay_whole_at_any_width(width):
    printed = "\n".join(shown(width))
    assert ROW[0] in printed
    assert ROW[4] in printed
    assert "…" not in printed


def test_words_fold_before_anything_is_left_out():
    printed = shown(81)
    assert "Sent" in printed[0]
    assert len(printed) > 3


def test_no_rows_are_said():
    console = Console(file=io.StringIO(), width=80)
    show_table(console, COLUMNS, [], empty="no jobs")
    assert console.file.getvalue() == "no jobs\n"


def test_jobs_fit_100_columns_with_their_warnings(monkeypatch):
    console = Console(file=io.StringIO(), width=100)
    monkeypatch.setattr("sendense.cli.output.out", lambda: console)
    job = Backup(
        job_id="backup-web-frontend-1759946759",
        vm_name="web-frontend",
        site="site-1",
        repository_name="default",
        backup_type=2,
        status=3,
        warnings=[BackupWarning(code="X")],
    )
    job.created_at.FromSeconds(1759946759)
    print_jobs([job])
    heading, _, *rows = console.file.getvalue().splitlines()
    assert heading.split() == ["Job", "VM", "Type", "Status", "Warnings", "Created"]
    (row,) = rows
    assert row.split() == [
        job.job_id,
        "web-frontend",
        "incremental",
        "completed",
        "1",
        "2025-10-08",
        "18:05:59Z",
    ]
    assert len(row.rstrip()) <= 100
