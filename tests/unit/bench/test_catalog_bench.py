"""The catalog's benchmark, with few rows: what it writes, and that it was measured."""

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.catalog import __main__ as program
from bench.catalog import report
from bench.catalog.completions import WRITERS
from bench.catalog.estate import NOW, make_estate
from bench.catalog.history import DISK_COLUMNS, JOB_COLUMNS, History
from bench.catalog.latency import latency_of, measure
from tools.paths import system_program

ROWS = 2000


@pytest.fixture(autouse=True)
def collected_again() -> Iterator[None]:
    """What the benchmark kept from the collector is this process's garbage, too."""
    yield
    gc.unfreeze()


def _require(engine: str) -> None:
    if engine != "mariadb":
        return
    try:
        system_program("mariadbd")
        system_program("mariadb-install-db")
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@pytest.mark.parametrize("engine", ["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def test_small_run_writes_what_it_measured(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _require(engine)
    # No test judges time.
    monkeypatch.setattr(report, "PAGE_P99_MS_AT_MOST", 1e9)
    results, folder = tmp_path / "catalog.json", tmp_path / "f"
    options = ["--rows", str(ROWS), "--engine", engine, "--folder", str(folder)]
    assert program.main([*options, "--results", str(results)]) == 0, capsys.readouterr().out
    found = json.loads(results.read_text())
    assert found["disk_rows"] == ROWS
    assert set(found["engines"]) == {engine}
    measured = found["engines"][engine]
    rows = measured["rows"]
    assert ROWS <= rows["disks"] < ROWS + 10
    assert rows["contexts"] < rows["jobs"] < rows["disks"]
    assert measured["version"]
    assert measured["settings"]
    lists = {(page["list"], page["filters"], page["position"]) for page in measured["pages"]}
    assert len(lists) == len(measured["pages"]) > 100
    assert {page["list"] for page in measured["pages"]} == {
        "jobs",
        "contexts",
        "disks",
        "repositories",
    }
    assert {page["position"] for page in measured["pages"]} == {"first", "deep"}
    for page in [*measured["pages"], *measured["longest_pages"]]:
        assert page["samples"] > 0
        assert 0 < page["p50_ms"] <= page["p99_ms"] <= page["worst_ms"]
    by_filters = {page["filters"]: page for page in measured["pages"] if page["list"] == "jobs"}
    assert by_filters["status=completed"]["mean_rows"] == 100
    assert by_filters["status=running, of which there is none"]["mean_rows"] == 0
    for run, writers in (("one_writer", 1), ("concurrent_writers", WRITERS)):
        completed = measured["completions"][run]
        assert (completed["writers"], completed["jobs"] > 0) == (writers, True)
        assert completed["samples"] == completed["jobs"] < completed["disks"]
        assert completed["per_second"] > 0
    assert 0 < measured["change_id"]["p50_ms"] <= found["change_id_p99_ms"][engine]
    for latency in measured["statistics_30_days"].values():
        assert latency["p50_ms"] > 0
    worst = max(page["p99_ms"] for page in measured["pages"])
    assert found["page_p99_ms"] == {engine: worst}
    assert found["machine"]["cores"] >= 1
    assert not folder.exists()


def test_page_that_takes_too_long_fails_the_run(tmp_path: Path) -> None:
    latency = {"p50_ms": 1.0, "p99_ms": 50.1}
    engine: dict[str, Any] = {
        "pages": [{"p50_ms": 1.0, "p99_ms": 2.0}, latency],
        "change_id": latency,
        "completions": {"one_writer": {"writers": 1, "per_second": 100.0}},
    }
    found = report.document(ROWS, {"sqlite": engine})
    assert found["page_p99_ms"] == {"sqlite": 50.1}
    assert not report.within_limits(found)
    latency["p99_ms"] = 50.0
    assert report.within_limits(report.document(ROWS, {"sqlite": engine}))


def test_percentiles_are_values_that_were_measured() -> None:
    found = latency_of([number / 1e3 for number in range(200, 0, -1)])
    assert (found.samples, found.p50_ms, found.p99_ms, found.worst_ms) == (200, 100, 198, 200)
    calls: list[int] = []
    latency, mean = measure(lambda: calls.append(1) or 5, 4)
    assert (latency.samples, mean, len(calls)) == (4, 5, 6)


def test_history_is_of_the_estate_and_the_same_every_time() -> None:
    days = [list(History(make_estate(ROWS), ROWS).days()) for _ in range(2)]
    assert days[0] == days[1]
    jobs = [dict(zip(JOB_COLUMNS, row, strict=True)) for day in days[0] for row in day.jobs]
    disks = [dict(zip(DISK_COLUMNS, row, strict=True)) for day in days[0] for row in day.disks]
    assert len({job["id"] for job in jobs}) == len(jobs)
    assert [job["created_at"] for job in jobs] == sorted(str(job["created_at"]) for job in jobs)
    assert str(jobs[-1]["created_at"]) < str(NOW)
    assert {job["status"] for job in jobs} == {"completed", "failed", "cancelled"}
    assert {job["backup_type"] for job in jobs} == {"full", "incremental"}
    by_id = {disk["id"]: disk for disk in disks}
    increments = [disk for disk in disks if disk["base_disk_id"] is not None]
    assert len(increments) > len(disks) / 2
    for disk in increments:
        base = by_id[disk["base_disk_id"]]
        assert base["vm_backup_context_id"] == disk["vm_backup_context_id"]
        assert (base["disk_index"], base["status"]) == (disk["disk_index"], "completed")
