"""Where old repositories and VMs are for us: as chosen, as recorded, or left out with a hint."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from hub.catalog.legacy import write
from hub.catalog.models import Agent, BackupJob, BackupRepository, VmBackupContext
from hub.jobs.repositories import create_repository
from hub.repository import Repository
from shared.errors import ConfigurationError
from tests.unit.hub.legacy.conftest import Importer, jobs_of, left_out
from tests.unit.hub.legacy.old_system import REPOSITORY, OldSystem, disk_id, group_id


@pytest.fixture
def one(old: OldSystem) -> OldSystem:
    """1 backup of 1 disk, and no word of where its repository is."""
    old.add_context()
    old.add_backups(runs=1, disks=1)
    return old


def add_site(importer: Importer, site: str, address: str) -> None:
    with importer.parts.catalog.write() as session:
        session.add(
            Agent(
                id=f"agent-{site}",
                site=site,
                vsphere_address=address,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
            )
        )


class TestRepository:
    def test_existing_one_with_the_files_is_taken(self, importer: Importer, one: OldSystem) -> None:
        inner = one.folder / "ctx-pgtest1-1"
        aside = inner.rename(one.folder.parent / "aside")
        create_repository(importer.parts, name="default", path=str(one.folder), default=True)
        aside.rename(inner)
        plan = importer.apply()
        assert plan.is_complete and not plan.new_places
        assert plan.contexts[0].place.name == "default"

    def test_chosen_by_name_must_exist(self, importer: Importer, one: OldSystem) -> None:
        with pytest.raises(ConfigurationError, match="there is no repository 'nas'"):
            importer.plan(repositories={REPOSITORY: "nas"})

    def test_choice_for_a_repository_that_no_row_is_in_is_refused(
        self, importer: Importer, one: OldSystem
    ) -> None:
        with pytest.raises(ConfigurationError, match="no row of the old catalog is in 'other'"):
            importer.plan(repositories={"other": str(one.folder)})

    @pytest.mark.parametrize("path", ["/nowhere/at/all", "/"])
    def test_folder_that_cannot_be_one_is_refused(
        self, importer: Importer, one: OldSystem, path: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=r"is no folder|is the root"):
            importer.plan(repositories={REPOSITORY: path})

    @pytest.mark.parametrize("where", ["within", "around"])
    def test_folder_in_or_around_a_repository_is_refused(
        self, importer: Importer, one: OldSystem, where: str
    ) -> None:
        other = one.folder.parent if where == "within" else one.folder / "new"
        repository = Repository.adopt if where == "within" else Repository.create
        repository(other, repository_id="r", name="other")
        with importer.parts.catalog.write() as session:
            now = datetime(2026, 1, 1, tzinfo=UTC)
            session.add(BackupRepository(id="r", name="other", path=str(other), created_at=now))
        with pytest.raises(ConfigurationError, match=f"lies {where.replace('within', 'in')} the"):
            importer.plan(repositories={REPOSITORY: str(one.folder)})

    def test_mark_of_another_catalogs_repository_is_kept_and_taken_over(
        self, importer: Importer, one: OldSystem
    ) -> None:
        Repository.adopt(one.folder, repository_id="repo-left", name="left")
        plan = importer.apply(repositories={REPOSITORY: str(one.folder)})
        assert plan.is_complete
        with importer.parts.catalog.read() as session:
            assert session.scalars(select(BackupRepository.id)).all() == ["repo-left"]

    def test_two_old_repositories_in_one_folder_become_one(
        self, importer: Importer, one: OldSystem
    ) -> None:
        one.add_backups(runs=1, disks=1, vm="db")
        one.jobs[-1]["repository_id"] = "repo-2"
        chosen = {REPOSITORY: str(one.folder), "repo-2": str(one.folder)}
        plan = importer.apply(repositories=chosen)
        assert plan.is_complete and len(plan.contexts) == 2
        with importer.parts.catalog.read() as session:
            assert len(session.scalars(select(BackupRepository)).all()) == 1

    def test_interrupted_import_goes_on_where_it_was(
        self, importer: Importer, one: OldSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one.add_repository()
        one.add_backups(runs=1, disks=1, vm="web")
        disk, inserted = write._disk, []

        def fail_at_the_second_vm(*arguments: object) -> object:
            inserted.append(arguments)
            if len(inserted) == 2:
                raise OSError("the machine is gone")
            return disk(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(write, "_disk", fail_at_the_second_vm)
        with pytest.raises(OSError, match="gone"):
            importer.apply()
        monkeypatch.undo()
        with importer.parts.catalog.read() as session:
            # The first VM's context is whole, of the second there is nothing.
            (context,) = session.scalars(select(VmBackupContext)).all()
            assert (context.vm_name, context.restore_point_count) == ("pgtest1", 1)
            assert len(session.scalars(select(BackupJob)).all()) == 1
        plan = importer.apply()
        assert [len(each.new_jobs) for each in plan.contexts] == [0, 1] and plan.is_complete


class TestSite:
    def test_agent_of_the_old_vcenter_tells_it(self, importer: Importer, one: OldSystem) -> None:
        one.add_repository()
        add_site(importer, "muenchen", "vcenter.example:443")
        add_site(importer, "ulm", "other.example")
        assert importer.plan(site="").contexts[0].site == "muenchen"

    @pytest.mark.parametrize("sites", [[], [("ulm", "other.example")]], ids=["none", "another"])
    def test_vcenter_of_no_agent_is_left_out_with_a_hint(
        self, importer: Importer, one: OldSystem, sites: list[tuple[str, str]]
    ) -> None:
        one.add_repository()
        for site, address in sites:
            add_site(importer, site, address)
        plan = importer.plan(site="")
        assert not plan.contexts
        assert "vcenter.example" in left_out(plan)[disk_id(0, 0)]
        assert "--site" in left_out(plan)[disk_id(0, 0)]

    def test_only_agent_is_the_site_where_no_vcenter_is_recorded(
        self, importer: Importer, one: OldSystem
    ) -> None:
        one.add_repository()
        one.tables["vm_backup_contexts"][0]["vcenter_host"] = None
        assert "name it with --site" in left_out(importer.plan(site=""))[disk_id(0, 0)]
        add_site(importer, "ulm", "vc")
        assert importer.plan(site="").contexts[0].site == "ulm"


class TestVm:
    def test_uuid_of_an_unknown_vm_is_refused(self, importer: Importer, one: OldSystem) -> None:
        with pytest.raises(ConfigurationError, match="has no VM 'pgtest9'"):
            importer.plan(instance_uuids={"pgtest9": "5020"})

    def test_recorded_uuid_is_taken(self, importer: Importer, one: OldSystem) -> None:
        one.add_repository()
        one.columns["vm_backup_contexts"]["instance_uuid"] = "VARCHAR(64)"
        one.tables["vm_backup_contexts"][0]["instance_uuid"] = "5020-ABCD"
        assert importer.plan().contexts[0].instance_uuid == "5020-abcd"

    def test_without_contexts_of_the_old_system_the_import_is_the_same(
        self, importer: Importer, one: OldSystem
    ) -> None:
        one.add_repository()
        del one.columns["vm_backup_contexts"], one.columns["backup_disks"]
        plan = importer.apply()
        assert plan.is_complete and jobs_of(plan) == {group_id(0): [0]}
        with importer.parts.catalog.read() as session:
            (context,) = session.scalars(select(VmBackupContext)).all()
        assert context.instance_uuid.startswith("legacy:") and len(context.instance_uuid) == 47
        assert (context.vm_name, context.vmware_vm_id) == ("pgtest1", "")

    def test_second_catalog_with_the_same_context_id_is_another_vm(
        self, importer: Importer, one: OldSystem
    ) -> None:
        one.add_repository()
        importer.apply()
        one.jobs.clear()
        one.add_backups(runs=1, disks=1, vm="db")
        one.tables["vm_backup_contexts"][0]["vm_name"] = "db"
        plan = importer.plan()
        assert not plan.contexts
        assert "would be that of 'pgtest1'" in left_out(plan)[disk_id(0, 0, "db")]
        assert importer.apply(instance_uuids={"db": "5020-db"}).is_complete


class TestImportedBefore:
    def test_file_of_another_row_is_not_imported_twice(
        self, importer: Importer, one: OldSystem
    ) -> None:
        one.add_repository()
        importer.apply()
        one.row(0, 0)["id"] = "another-id"
        before = importer.dump()
        plan = importer.apply()
        assert "was imported before as" in left_out(plan)["another-id"]
        assert importer.dump() == before

    def test_id_with_another_file_is_left_out(self, importer: Importer, one: OldSystem) -> None:
        one.add_repository()
        importer.apply()
        moved = one.file(0, 0).rename(one.folder / "moved.qcow2")
        one.row(0, 0)["repository_path"] = str(moved)
        before = importer.dump()
        plan = importer.apply()
        assert "was imported before, from another file" in left_out(plan)[disk_id(0, 0)]
        assert importer.dump() == before

    def test_new_disk_of_a_job_that_is_there_is_left_out(
        self, importer: Importer, one: OldSystem
    ) -> None:
        one.add_repository()
        importer.apply()
        layer = one.add_layer(Path(f"{one.folder}/late.qcow2"), 0, 1)
        one.add_row(0, 1, layer, full=True, parent=group_id(0))
        before = importer.dump()
        plan = importer.apply()
        assert "was imported before with other disks" in left_out(plan)[disk_id(0, 1)]
        assert importer.dump() == before
