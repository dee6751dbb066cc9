"""`sendense-hub import-legacy` as an administrator runs it: a process over real files and catalogs."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sendense import BackupStatus, BackupType, Client
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.end_to_end.processes import BIN, Agent, Hub
from tests.mariadb_server import private_mariadb
from tests.unit.hub.legacy.old_system import REPOSITORY, OldSystem, disk_id, group_id

pytestmark = pytest.mark.legacy_import
# No agent has registered at the hubs here.
LAB = ("--site", "lab", "--new-site")
UUID = "5020B2C4-0c3e-4f6a-9d1b-7e8f90a1b2c3"


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layers")


def old_system(folder: Path, url: str, layers: Path, runs: int, disks: int) -> OldSystem:
    """Two chains of backups, saved."""
    old = OldSystem(folder / "old files", url, layers)
    old.add_context()
    old.add_repository()
    old.add_backups(runs=runs, disks=disks, fulls=(0, 4))
    old.save()
    return old


@pytest.fixture
def old(tmp_path: Path, layers: Path) -> OldSystem:
    """6 backups of one disk."""
    (tmp_path / "old.db").touch()
    return old_system(tmp_path, f"sqlite:///{tmp_path / 'old.db'}", layers, 6, 1)


@pytest.fixture
def with_21_rows(tmp_path: Path, layers: Path) -> Iterator[OldSystem]:
    """1 context, 21 rows, on a server."""
    with private_mariadb() as server, server.database() as url:
        yield old_system(tmp_path, url, layers, 7, 3)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, layers: Path) -> OldSystem:
    """2 backups of one disk, for what writes nothing."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "old.db").touch()
    return old_system(folder, f"sqlite:///{folder / 'old.db'}", layers, 2, 1)


@pytest.fixture(scope="module")
def dry(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """A hub into which nothing is ever imported."""
    return Hub(tmp_path_factory.mktemp("dry"))


@pytest.fixture
def stopped(tmp_path: Path) -> Hub:
    """A hub that was made, but does not run."""
    return Hub(tmp_path)


def run(
    hub: Hub, old: OldSystem, *options: str, code: int = 0, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """The command; `code` is the exit code it must end with."""
    source = () if environment else ("--from", old.url)
    done = subprocess.run(
        [BIN / "sendense-hub", "import-legacy", "--config", hub.config, *source, *options],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def report(hub: Hub, old: OldSystem, *options: str, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(hub, old, "--json", *options, code=code).stdout)
    return found


@pytest.mark.mariadb
def test_21_rows_are_imported_restored_and_followed_by_a_full(
    stopped: Hub, with_21_rows: OldSystem, site: SimulatedSite, tmp_path: Path, cleanup: ExitStack
) -> None:
    hub, old = stopped, with_21_rows
    files = old.hashes()
    dry = run(hub, old, *LAB)
    assert "7 backups with 21 disks would be imported" in dry.stdout
    assert "--apply" in dry.stdout and "Left out" not in dry.stdout
    assert all(disk_id(run, disk) in dry.stdout for run in range(7) for disk in range(3))
    assert old.hashes() == files

    done = report(hub, old, *LAB, "--apply")
    assert (done["applied"], done["complete"], done["new_jobs"], done["new_disks"]) == (
        *(True, True),
        *(7, 21),
    )
    assert done["contexts"][0]["context_id"] == "ctx-pgtest1-20251006-203401"
    again = report(hub, old, *LAB, "--apply")
    assert (again["new_jobs"], again["imported_before"]) == (0, 7)

    hub.start()
    cleanup.callback(hub.stop)
    vm = site.add_vm("pgtest1", disks=[DiskSpec(capacity_bytes=4 << 20, content=b"new")])
    agent = Agent(tmp_path / "agent", site, hub, name="lab")
    cleanup.callback(lambda: agent.program and agent.stop())
    agent.start()
    with hub.client() as client:
        imported = {job.job_id: job for job in client.list_backups()}
        assert set(imported) == {group_id(run) for run in range(7)}
        assert all(job.HasField("imported_at") for job in imported.values())
        for number, disk in ((0, 0), (3, 1), (6, 2)):
            target = tmp_path / f"{number}-{disk}.raw"
            client.restore_disk(group_id(number), disk, target)
            assert target.read_bytes() == old.content[old.file(number, disk)]
        job = backed_up(client, vm.name)
        assert job.backup_type == BackupType.FULL
        target = tmp_path / "after.raw"
        client.restore_disk(group_id(6), 0, target)
        assert target.read_bytes() == old.content[old.file(6, 0)]
    now = old.hashes()
    assert {name: now[name] for name in files} == files


def backed_up(client: Client, vm: str) -> Any:
    """A completed backup into the imported repository."""
    job = client.start_backup(vm, repository="local-ssd")
    done = client.wait(job.job_id)
    assert done.status == BackupStatus.COMPLETED, done
    return done


def test_rows_that_are_left_out_are_listed_and_end_with_3(stopped: Hub, old: OldSystem) -> None:
    old.file(4, 0).unlink()
    told = run(stopped, old, *LAB, code=3).stdout
    assert "4 backups with 4 disks would be imported" in told
    assert "2 rows are left out" in told and "is not there" in told
    found = report(stopped, old, *LAB, "--apply", code=3)
    assert not found["complete"] and found["new_jobs"] == 4
    assert {row["id"] for row in found["left_out"]} == {disk_id(4, 0), disk_id(5, 0)}
    # Mended, the rest is imported behind it.
    old.add_layer(old.file(4, 0), 4, 0)
    mended = report(stopped, old, *LAB, "--vm", f"pgtest1={UUID}", "--apply")
    assert (mended["new_jobs"], mended["imported_before"]) == (2, 4)


def test_json_tells_what_the_tables_tell(dry: Hub, small: OldSystem) -> None:
    found = report(dry, small, *LAB, "--vm", f"pgtest1={UUID}")
    (context,) = found["contexts"]
    assert (context["vm_name"], context["site"]) == ("pgtest1", "lab")
    assert context["instance_uuid"] == UUID.lower()
    assert found["new_repositories"] == [
        {"name": "local-ssd", "path": str(small.folder), "old_id": REPOSITORY}
    ]
    newest = context["jobs"][-1]
    assert (newest["old_backup"], newest["grouped_by"]) == (group_id(1), "parent")
    assert newest["disks"][0]["builds_on"] == disk_id(0, 0)
    assert found["applied"] is False
    assert [job["job_id"] for job in context["jobs"]] == ["", ""]
    assert [job["planned_job_id"] for job in context["jobs"]] == [group_id(0), group_id(1)]


class TestRefusals:
    def test_running_hub_is_not_disturbed(self, stopped: Hub, old: OldSystem) -> None:
        stopped.start()
        try:
            assert "would be imported" in run(stopped, old, *LAB).stdout
            refused = run(stopped, old, *LAB, "--apply", code=2)
            assert "another hub" in refused.stderr
            assert not (old.folder / "sendense-repository.json").exists()
        finally:
            stopped.stop()

    def test_options_that_fit_nothing_end_with_2(self, dry: Hub, small: OldSystem) -> None:
        refused = run(dry, small, "--repository", "x=/tmp", code=2)
        assert "--repository: no row of the old catalog is in 'x'" in refused.stderr

    def test_site_that_nobody_knows_ends_with_2(self, dry: Hub, small: OldSystem) -> None:
        refused = run(dry, small, "--site", "labb", code=2)
        assert "--site: no agent of a site 'labb' has registered" in refused.stderr
        refused = run(dry, small, *LAB, "--vm", "pgtest1=notauuid", code=2)
        assert "--vm: 'notauuid', for 'pgtest1', is no instance uuid" in refused.stderr

    def test_password_may_come_from_the_environment(self, dry: Hub, small: OldSystem) -> None:
        done = run(dry, small, *LAB, SENDENSE_IMPORT_FROM=small.url)
        assert "would be imported" in done.stdout

    def test_old_catalog_that_is_away_ends_with_1(
        self, dry: Hub, small: OldSystem, tmp_path: Path
    ) -> None:
        url = f"mysql+pymysql://root:secret@localhost/old?unix_socket={tmp_path / 'none'}"
        refused = run(dry, small, code=1, SENDENSE_IMPORT_FROM=url)
        assert "cannot be read" in refused.stderr and "secret" not in refused.stderr

    def test_without_qemu_nothing_is_done(self, dry: Hub, small: OldSystem) -> None:
        refused = run(dry, small, code=1, SENDENSE_IMPORT_FROM=small.url, PATH="/nowhere")
        assert "qemu-utils" in refused.stderr
