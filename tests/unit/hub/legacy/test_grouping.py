"""Which rows were one backup: told by rows alone, no file is looked at."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from hub.legacy.grouping import Grouped, Grouping, group
from hub.legacy.old_catalog import understand
from hub.legacy.tables import CONTEXTS, DISKS, JOBS, REPOSITORIES, OldTables

Row = dict[str, Any]
NOON = datetime(2025, 10, 8, 12)  # noqa: DTZ001 - as a database gives it


def row(row_id: str, disk: int | None, parent: str | None = None, **more: Any) -> Row:
    """A row of backup_jobs."""
    return {
        "id": row_id,
        "disk_id": disk,
        "vm_name": "web",
        "repository_id": "r1",
        "repository_path": f"/old/{row_id}.qcow2",
        "parent_backup_id": parent,
        "backup_type": "full",
        "status": "completed",
        "created_at": NOON,
    } | more


def increment(row_id: str, disk: int, parent: str | None = None, **more: Any) -> Row:
    return row(row_id, disk, parent, backup_type="incremental", **more)


def parent_row(row_id: str, **more: Any) -> Row:
    return row(row_id, None, **({"repository_path": None} | more))


def disk_row(row_id: int, job: str, disk: int, **more: Any) -> Row:
    """A row of backup_disks."""
    return {
        "id": row_id,
        "backup_job_id": job,
        "disk_index": disk,
        "qcow2_path": f"/old/{job}-{disk}.qcow2",
        "status": "completed",
    } | more


def grouped(
    jobs: Sequence[Row], disks: Sequence[Row] = (), contexts: Sequence[Row] = ()
) -> Grouping:
    def columns(rows: Sequence[Row]) -> frozenset[str]:
        return frozenset(name for each in rows for name in each)

    tables = {JOBS: jobs, DISKS: disks, CONTEXTS: contexts, REPOSITORIES: ()}
    old = understand(OldTables(tables, {name: columns(rows) for name, rows in tables.items()}))
    made = group(old)
    return Grouping(
        made.backups, [*old.left_out, *made.left_out], made.chain_parents, made.lost_parents
    )


def backups(found: Grouping) -> dict[str, list[str]]:
    """Legacy ids by the backup's key."""
    return {each.key: [disk.legacy_id for disk in each.disks] for each in found.backups}


def reasons(found: Grouping) -> dict[str, str]:
    return {ref.row_id: each.reason for each in found.left_out for ref in each.refs}


def later(hours: float) -> dict[str, datetime]:
    return {"created_at": NOON + timedelta(hours=hours)}


class TestByParent:
    def test_rows_that_share_a_parent_without_a_row_are_one_backup(self) -> None:
        found = grouped([row("a", 0, "P"), row("b", 1, "P"), row("c", 0, "Q"), row("d", 1, "Q")])
        assert backups(found) == {"P": ["a", "b"], "Q": ["c", "d"]}
        assert {each.how for each in found.backups} == {Grouped.PARENT}

    def test_rows_of_one_parent_row_are_one_backup_however_far_apart_in_time(self) -> None:
        found = grouped([parent_row("P"), row("a", 0, "P"), row("b", 1, "P", **later(200))])
        assert backups(found) == {"P": ["a", "b"]}
        assert not found.left_out

    def test_rows_of_the_same_second_with_other_parents_are_two_backups(self) -> None:
        found = grouped([row("a", 0, "P"), row("b", 0, "Q"), row("c", 1, "P"), row("d", 1, "Q")])
        assert backups(found) == {"P": ["a", "c"], "Q": ["b", "d"]}

    def test_parent_that_is_the_same_disks_row_is_the_chain_not_the_backup(self) -> None:
        found = grouped([row("f", 0), increment("i", 0, "f"), increment("j", 0, "i")])
        assert backups(found) == {"f": ["f"], "i": ["i"], "j": ["j"]}
        chain = {key: disk.legacy_id for key, disk in found.chain_parents.items()}
        assert chain == {"i": "f", "j": "i"}

    def test_first_disks_row_as_the_parent_of_the_others_is_in_the_backup_itself(self) -> None:
        jobs = [
            row("a0", 0),
            row("a1", 1, "a0"),
            increment("b0", 0, "a0"),
            increment("b1", 1, "b0"),
        ]
        found = grouped(jobs)
        assert backups(found) == {"a0": ["a0", "a1"], "b0": ["b0", "b1"]}
        assert found.chain_parents["b0"].legacy_id == "a0"

    def test_both_meanings_in_one_catalog_are_told_apart(self) -> None:
        ids = [f"backup-web-{n}-disk{d}-x" for n in (100, 200) for d in (0, 1)]
        jobs = [
            parent_row("backup-web-100"),
            parent_row("backup-web-200"),
            row(ids[0], 0, "backup-web-100"),
            row(ids[1], 1, "backup-web-100"),
            increment(ids[2], 0, ids[0]),
            increment(ids[3], 1, ids[1]),
        ]
        found = grouped(jobs)
        assert backups(found) == {"backup-web-100": ids[:2], "backup-web-200": ids[2:]}
        assert found.chain_parents[ids[3]].legacy_id == ids[1]
        assert not found.left_out

    def test_parent_row_with_disk_0_by_default_is_no_disk(self) -> None:
        jobs = [
            row("backup-web-7", 0, repository_path=""),
            row("backup-web-7-disk0-x", 0, "backup-web-7"),
            row("backup-web-7-disk1-x", 1, "backup-web-7"),
        ]
        found = grouped(jobs)
        assert backups(found) == {"backup-web-7": ["backup-web-7-disk0-x", "backup-web-7-disk1-x"]}
        assert not found.left_out

    def test_first_row_of_a_backup_that_has_a_file_is_one_of_its_disks(self) -> None:
        jobs = [row("backup-web-7", 0), row("backup-web-7-disk1-x", 1, "backup-web-7")]
        assert backups(grouped(jobs)) == {"backup-web-7": ["backup-web-7", "backup-web-7-disk1-x"]}

    def test_parent_that_is_gone_and_shared_by_no_other_disk_is_left_out(self) -> None:
        found = grouped(
            [
                row("a0", 0, "P"),
                row("a1", 1, "P"),
                increment("b0", 0, "x0"),
                increment("b1", 1, "x1"),
            ]
        )
        assert backups(found) == {"P": ["a0", "a1"]}
        assert "parent 'x0' is not in the old catalog" in reasons(found)["b0"]
        assert set(reasons(found)) == {"b0", "b1"}

    def test_parent_that_is_another_vms_row_takes_the_whole_backup_out(self) -> None:
        found = grouped([row("a", 0, vm_name="db"), row("b", 0, "a"), row("c", 1, "a")])
        assert not found.backups
        assert set(reasons(found)) == {"a", "b", "c"}
        assert "several VMs: db, web" in reasons(found)["b"]

    def test_disk_of_another_vm_in_the_backup_takes_it_out(self) -> None:
        found = grouped([row("a", 0, "P"), row("b", 1, "P"), row("c", 2, "P", vm_name="db")])
        assert not found.backups and set(reasons(found)) == {"a", "b", "c"}
        assert "several VMs" in reasons(found)["c"]

    def test_disks_in_two_repositories_are_no_backup(self) -> None:
        found = grouped([row("a", 0, "P"), row("b", 1, "P", repository_id="r2")])
        assert not found.backups and set(reasons(found)) == {"a", "b"}
        assert "several repositories: r1, r2" in reasons(found)["a"]

    def test_disk_that_is_there_twice_takes_the_backup_out(self) -> None:
        found = grouped([row("a", 0, "P"), row("b", 1, "P"), row("c", 1, "P")])
        assert not found.backups
        assert reasons(found)["a"].startswith("it has disk 1 twice")

    def test_vm_and_repository_of_the_parent_row_must_be_the_disks(self) -> None:
        found = grouped([parent_row("P", vm_name="db"), row("a", 0, "P"), row("b", 1, "P")])
        assert not found.backups and "is of db" in reasons(found)["a"]


class TestByIds:
    def test_ids_with_the_same_beginning_are_one_backup(self) -> None:
        ids = [f"backup-web-{n}-disk{d}-20251008-190600" for n in (1, 2) for d in (0, 1)]
        found = grouped([row(each, int(each[17])) for each in ids])
        assert backups(found) == {"backup-web-1": ids[:2], "backup-web-2": ids[2:]}
        assert {each.how for each in found.backups} == {Grouped.ID}

    def test_ids_of_two_moments_are_not_taken_for_whole_backups(self) -> None:
        ids = ["backup-web-1-disk0-x", "backup-web-2-disk1-x"]
        found = grouped([row(ids[0], 0), row(ids[1], 1)])
        assert not found.backups
        assert "no id with the same beginning is of disk 1" in reasons(found)[ids[0]]

    def test_layer_below_is_not_taken_for_a_missing_parent(self) -> None:
        """The row has its parent: what is missing is the other disk's row."""
        ids = [f"backup-web-{n}-disk{d}-x" for n in (1, 2) for d in (0, 1)]
        whole = [row(ids[0], 0), row(ids[1], 1)]
        found = grouped([*whole, increment(ids[2], 0, ids[0])])
        assert backups(found) == {"backup-web-1": ids[:2]}
        assert reasons(found)[ids[2]] == (
            f"it is not told which backup it belongs to: its parent {ids[0]!r} is the layer "
            "below it, and no id with the same beginning is of disk 1, which the VM has, too"
        )

    def test_vm_with_disk_in_its_name_is_not_misread(self) -> None:
        more = {"vm_name": "web-1-disk0"}
        ids = [f"backup-web-1-disk0-5-disk{d}-x" for d in (0, 1)]
        found = grouped([row(ids[0], 0, **more), row(ids[1], 1, **more)])
        assert backups(found) == {"backup-web-1-disk0-5": ids}

    def test_id_that_tells_another_disk_than_its_row_tells_nothing(self) -> None:
        found = grouped([row("backup-web-1-disk0-x", 0), row("backup-web-1-disk5-x", 1)])
        assert not found.backups
        assert "only some ids tell" in reasons(found)["backup-web-1-disk0-x"]

    def test_same_ids_in_two_repositories_are_two_backups(self) -> None:
        first = [row(f"backup-web-1-disk{d}-x", d) for d in (0, 1)]
        second = [row(f"backup-web-1-disk{d}-y", d, repository_id="r2") for d in (0, 1)]
        found = grouped([*first, *second])
        assert sorted(backups(found).values()) == [
            [f"backup-web-1-disk{d}-{end}" for d in (0, 1)] for end in "xy"
        ]


class TestOnlyDisk:
    def test_each_row_of_a_vm_with_one_disk_is_a_backup(self) -> None:
        found = grouped([row("a", 0), row("b", 0), row("c", 0, "gone")])
        assert backups(found) == {"a": ["a"], "b": ["b"], "gone": ["c"]}

    def test_row_without_parent_of_a_vm_with_more_disks_is_not_one(self) -> None:
        found = grouped([row("a", 0, "P"), row("b", 1, "P"), row("c", 0)])
        assert backups(found) == {"P": ["a", "b"]}
        why = "it has no parent, and other rows of the VM name theirs"
        assert reasons(found) == {"c": f"it is not told which backup it belongs to: {why}"}


def in_position(**more: Any) -> list[Row]:
    """Two disks, three backups, chained, without any parent of the backup."""
    jobs = []
    for disk in (0, 1):
        for run in range(3):
            parent = f"r{run - 1}d{disk}" if run else None
            made = row if run == 0 else increment
            jobs.append(made(f"r{run}d{disk}", disk, parent, **later(run * 5 + disk)) | more)
    return jobs


def changed(jobs: list[Row], row_id: str, **more: Any) -> list[Row]:
    assert any(each["id"] == row_id for each in jobs)
    return [each | more if each["id"] == row_id else each for each in jobs]


class TestByPosition:
    def test_kth_rows_of_each_disk_are_one_backup_when_all_agree(self) -> None:
        found = grouped(in_position())
        assert sorted(backups(found).values()) == [[f"r{run}d0", f"r{run}d1"] for run in range(3)]
        assert {each.how for each in found.backups} == {Grouped.POSITION}

    @pytest.mark.parametrize(
        ("break_it", "why"),
        [
            (lambda jobs: jobs[:-1], "different numbers of rows: disk 0: 3, disk 1: 2"),
            (lambda jobs: changed(jobs, "r2d1", backup_type="full"), "differ in type or state"),
            (lambda jobs: changed(jobs, "r1d0", **later(6.5)), ""),
            (lambda jobs: changed(jobs, "r1d0", **later(11.5)), "are older than some"),
            (lambda jobs: changed(jobs, "r1d0", created_at=None), "its time of creation"),
            (lambda jobs: changed(jobs, "r1d0", disk_id="first"), "no usable disk index"),
            (
                lambda jobs: changed(jobs, "r1d0", parent_backup_id="r0d1"),
                "other rows of the VM name theirs",
            ),
        ],
        ids=["a row too few", "types", "no window", "older", "no time", "bad index", "a parent"],
    )
    def test_what_does_not_agree_is_left_out(
        self, break_it: Callable[[list[Row]], list[Row]], why: str
    ) -> None:
        found = grouped(break_it(in_position()))
        if not why:
            assert len(found.backups) == 3 and not found.left_out
            return
        assert any(why in reason for reason in reasons(found).values()), reasons(found)
        assert not {"r0d0", "r1d1", "r2d0"} & {
            each for ids in backups(found).values() for each in ids
        }

    def test_order_of_unlinked_rows_with_equal_times_is_not_guessed(self) -> None:
        jobs = [row(f"r{run}d{disk}", disk) for disk in (0, 1) for run in range(2)]
        found = grouped(jobs)
        assert not found.backups
        assert "the order of a disk's rows is not recorded" in reasons(found)["r0d0"]


class TestStates:
    @pytest.mark.parametrize("status", ["running", "pending", "", None, "COMPLETING"])
    def test_backup_with_an_unfinished_disk_is_left_out_whole(self, status: str | None) -> None:
        found = grouped([row("a", 0, "P"), row("b", 1, "P", status=status)])
        assert not found.backups and set(reasons(found)) == {"a", "b"}
        assert not any(each.is_unsuccessful for each in found.left_out)

    def test_backup_whose_own_row_still_runs_is_left_out(self) -> None:
        found = grouped([parent_row("P", status="running"), row("a", 0, "P")])
        assert reasons(found) == {"a": "the backup is running"}

    def test_failed_backups_are_told_as_such(self) -> None:
        found = grouped(
            [
                *(row("a", 0, "P", status="failed"), row("b", 1, "P", status="Failed")),
                *(parent_row("Q", status="cancelled"), row("c", 0, "Q"), row("d", 1, "Q")),
            ]
        )
        assert all(each.is_unsuccessful for each in found.left_out)
        assert reasons(found)["b"] == "the backup is failed"
        assert reasons(found)["c"] == "the backup is cancelled"

    def test_one_failed_disk_of_a_completed_backup_is_a_loss(self) -> None:
        found = grouped([row("a", 0, "P"), row("b", 1, "P", status="failed")])
        assert not found.backups
        assert not any(each.is_unsuccessful for each in found.left_out)

    def test_row_of_a_backup_without_disks_is_listed(self) -> None:
        found = grouped([parent_row("P"), parent_row("Q", status="failed")])
        assert reasons(found) == {
            "P": "it names no disk, and no disk names it",
            "Q": "the backup is failed",
        }


class TestBadValues:
    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            ({"disk_id": "second"}, "its disk_id 'second' is no whole number"),
            ({"disk_id": -1}, "its disk_id '-1' is no whole number"),
            ({"disk_id": 1 << 40}, "is too large"),
            ({"vm_name": None}, "names no VM"),
            ({"repository_id": None}, "names no repository"),
            ({"backup_type": "synthetic"}, "its backup_type 'synthetic' is unknown"),
            ({"repository_path": 3.5}, "its repository_path '3.5' is no text"),
            ({"vm_name": b"\xff"}, "is no text"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_a_value_of_another_kind_takes_its_backup_out(self, bad: Row, why: str) -> None:
        found = grouped([row("a", 0, "P"), row("b", 1, "P") | bad])
        assert not found.backups
        assert set(reasons(found)) == {"a", "b"}
        assert why in reasons(found)["b"] and "backup_jobs b" not in reasons(found)["b"]
        # The other row of the backup is told whose fault it is.
        assert why in reasons(found)["a"]

    def test_values_that_only_tell_are_notes(self) -> None:
        jobs = [row("a", 0, "P", created_at="once", bytes_transferred="many")]
        (backup,) = grouped(jobs).backups
        assert backup.disks[0].notes == (
            "its bytes_transferred 'many' is no whole number",
            "its created_at 'once' is no time",
        )

    def test_two_rows_of_one_id_are_left_out(self) -> None:
        found = grouped([row("a", 0, "P"), row("a", 1, "P")])
        assert not found.backups and "several rows have its id" in reasons(found)["a"]

    def test_names_of_any_script_stay_as_they_are(self) -> None:
        name = "数据库-é-🐘"
        ids = [f"backup-{name}-1-disk{d}-x" for d in (0, 1)]
        found = grouped([row(ids[0], 0, vm_name=name), row(ids[1], 1, vm_name=name)])
        assert backups(found) == {f"backup-{name}-1": ids}

    def test_columns_that_are_missing_are_done_without(self) -> None:
        bare = [{"id": each, "disk_id": 0, "vm_name": "web", "repository_id": "r"} for each in "ab"]
        assert backups(grouped(bare)) == {"a": ["a"], "b": ["b"]}


class TestDisksTable:
    def test_rows_of_backup_disks_belong_to_the_job_they_name(self) -> None:
        found = grouped(
            [parent_row("P"), parent_row("Q", backup_type="incremental", parent_backup_id="P")],
            [disk_row(n, job, n % 2) for n, job in enumerate("PPQQ")],
        )
        assert backups(found) == {"P": ["P/disk-0", "P/disk-1"], "Q": ["Q/disk-0", "Q/disk-1"]}
        assert found.chain_parents["Q/disk-1"].legacy_id == "P/disk-1"

    def test_both_tables_of_one_disk_are_one_disk(self) -> None:
        found = grouped(
            [row("a", 0, "P"), row("b", 1, "P")],
            [
                disk_row(1, "a", 0, qcow2_path="/old/a.qcow2", vmware_disk_key=2000),
                disk_row(2, "b", 1, qcow2_path="/old/b.qcow2", disk_change_id="52/9"),
            ],
        )
        (backup,) = found.backups
        assert [disk.legacy_id for disk in backup.disks] == ["a", "b"]
        assert backup.disks[0].disk_key == 2000
        assert backup.disks[1].change_id == "52/9"
        assert [str(ref) for ref in backup.disks[0].refs] == ["backup_jobs a", "backup_disks 1"]

    def test_rows_beside_the_disks_of_a_parent_are_no_second_disks(self) -> None:
        found = grouped(
            [parent_row("P"), row("a", 0, "P"), row("b", 1, "P")],
            [
                disk_row(1, "P", 0, qcow2_path="/old/a.qcow2"),
                disk_row(2, "P", 1, qcow2_path="/old/b.qcow2"),
            ],
        )
        assert backups(found) == {"P": ["a", "b"]}

    @pytest.mark.parametrize(
        "other", [{"qcow2_path": "/old/other.qcow2"}, {"disk_change_id": "52/other"}], ids=repr
    )
    def test_tables_that_disagree_take_the_backup_out(self, other: Row) -> None:
        jobs = [row("a", 0, "P", change_id="52/1")]
        disks = [disk_row(1, "a", 0, qcow2_path="/old/a.qcow2") | other]
        found = grouped(jobs, disks)
        assert not found.backups and "names another" in reasons(found)["a"]

    def test_row_whose_job_is_gone_is_left_out(self) -> None:
        found = grouped([row("a", 0, "P")], [disk_row(7, "gone", 0)])
        assert backups(found) == {"P": ["a"]}
        assert reasons(found) == {"7": "its job 'gone' is not in the old catalog"}

    def test_single_disk_of_a_job_whose_disk_id_is_0_by_default(self) -> None:
        found = grouped([row("P", 0)], [disk_row(1, "P", 0, qcow2_path="/old/P.qcow2")])
        assert backups(found) == {"P": ["P"]}


class TestContexts:
    def test_rows_of_another_context_of_the_same_name_are_another_vm(self) -> None:
        contexts = [
            {"context_id": each, "vm_name": "web", "repository_id": "r1"} for each in ("c1", "c2")
        ]
        jobs = [
            row("a", 0, "P", vm_backup_context_id="c1"),
            row("b", 1, "P", vm_backup_context_id="c2"),
            row("c", 0, "Q"),
        ]
        found = grouped(jobs, (), contexts)
        assert not found.backups
        assert "several VMs" in reasons(found)["a"]
        assert "several contexts of the old catalog" in reasons(found)["c"]

    def test_context_id_of_another_table_is_no_context(self) -> None:
        contexts = [{"context_id": "c1", "vm_name": "web", "repository_id": "r1"}]
        (backup,) = grouped([row("a", 0, vm_context_id="replication-9")], (), contexts).backups
        assert backup.vm.context_id == "c1"

    def test_row_of_a_context_of_another_name_is_left_out(self) -> None:
        contexts = [{"context_id": "c1", "vm_name": "db", "repository_id": "r1"}]
        found = grouped([row("a", 0, vm_backup_context_id="c1")], (), contexts)
        assert "it names the VM 'web', its context 'db'" in reasons(found)["a"]
