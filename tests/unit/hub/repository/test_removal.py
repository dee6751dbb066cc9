"""Removal touches a job's files and nothing else, whatever lies in their place."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hub.repository import Repository, RepositoryUnusable
from hub.repository.presence import files_problem
from shared.errors import InvalidArgument

JOB = "ctx/backup-1"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository.create(tmp_path / "repo", repository_id="repo-1", name="one")
    for name in ("ctx/backup-1", "ctx/backup-2", "old/disk-0"):
        folder = repository.path / name
        folder.mkdir(parents=True)
        for file in ("disk-0.qcow2", "disk-0.manifest", "job.json"):
            (folder / file).write_text(name)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "disk-0.qcow2").write_text("mine")
    return repository


def everything(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*")}


def test_job_goes_with_its_files_and_its_context_with_the_last_job(repository: Repository) -> None:
    before = everything(repository.path)
    repository.remove_job("ctx", "backup-1")
    left = everything(repository.path)
    assert before - left == {
        JOB,
        *(f"{JOB}/{name}" for name in ("disk-0.qcow2", "disk-0.manifest", "job.json")),
    }
    repository.remove_job("ctx", "backup-1")
    assert everything(repository.path) == left
    repository.remove_job("ctx", "backup-2")
    assert not (repository.path / "ctx").exists()
    repository.remove_job("ctx", "backup-2")


def test_file_goes_and_no_folder(repository: Repository) -> None:
    for name in ("disk-0.qcow2", "disk-0.manifest", "job.json"):
        repository.remove_layer_file(f"old/disk-0/{name}")
        repository.remove_layer_file(f"old/disk-0/{name}")
    assert (repository.path / "old/disk-0").is_dir()
    repository.remove_layer_file("nobody/knows/it.qcow2")


@pytest.mark.parametrize("link", ["ctx", "ctx/backup-1"])
def test_link_on_the_way_is_not_followed(repository: Repository, link: str) -> None:
    outside = repository.path.parent / "outside"
    (outside / "backup-1").mkdir()
    (outside / "backup-1" / "disk-0.qcow2").touch()
    before = everything(outside)
    (repository.path / link).rename(repository.path.parent / "moved")
    (repository.path / link).symlink_to(outside)
    with pytest.raises(RepositoryUnusable):
        repository.remove_job("ctx", "backup-1")
    with pytest.raises(RepositoryUnusable):
        repository.remove_layer_file("ctx/backup-1/disk-0.qcow2")
    assert everything(outside) == before


@pytest.mark.parametrize(
    "path",
    [
        "../outside/disk-0.qcow2",
        "old/../../outside/disk-0.qcow2",
        "/etc/hostname",
        "",
        "old//x",
        ".",
    ],
)
def test_path_that_leads_elsewhere_is_refused(repository: Repository, path: str) -> None:
    before = everything(repository.path.parent)
    with pytest.raises(InvalidArgument):
        repository.remove_layer_file(path)
    assert everything(repository.path.parent) == before


def test_link_in_place_of_a_layer_is_left(repository: Repository) -> None:
    layer = repository.path / "old/disk-0/disk-0.qcow2"
    layer.unlink()
    layer.symlink_to(repository.path.parent / "outside" / "disk-0.qcow2")
    with pytest.raises(RepositoryUnusable, match="symbolic link"):
        repository.remove_layer_file("old/disk-0/disk-0.qcow2")
    assert layer.is_symlink()


@pytest.mark.parametrize(
    ("remove", "problem"),
    [
        (lambda repository: repository.remove_layer_file("old/disk-0"), "no regular file"),
        (lambda repository: repository.remove_job("old/disk-0", "x"), "slash"),
        (lambda repository: repository.remove_job("plain", "x"), "is no folder"),
        (lambda repository: repository.remove_job("ctx", "plain"), "is no folder"),
    ],
    ids=["folder-as-file", "nested", "file-as-context", "file-as-job"],
)
def test_what_is_not_what_was_meant_is_left(
    repository: Repository, remove: Callable[[Repository], None], problem: str
) -> None:
    (repository.path / "plain").touch()
    (repository.path / "ctx" / "plain").touch()
    before = everything(repository.path)
    with pytest.raises((RepositoryUnusable, InvalidArgument), match=problem):
        remove(repository)
    assert everything(repository.path) == before


def test_repository_that_is_not_mounted_is_no_empty_one(repository: Repository) -> None:
    (repository.path / "sendense-repository.json").unlink()
    before = everything(repository.path)
    for remove in (
        lambda: repository.remove_job("ctx", "backup-1"),
        lambda: repository.remove_job("gone", "gone"),
        lambda: repository.remove_layer_file("old/disk-0/disk-0.qcow2"),
    ):
        with pytest.raises(RepositoryUnusable, match="mounted"):
            remove()
    assert everything(repository.path) == before


def test_folder_that_two_remove_at_once_is_gone_for_both(repository: Repository) -> None:
    for round_ in range(20):
        folder = repository.path / "ctx" / f"backup-{round_ + 10}"
        (folder / "deep" / "deeper").mkdir(parents=True)
        for number in range(30):
            (folder / "deep" / f"file-{number}").touch()
        barrier = threading.Barrier(3)

        def remove(job_id: str, together: threading.Barrier) -> bool:
            together.wait(30)
            repository.remove_job("ctx", job_id)
            return (repository.path / "ctx" / job_id).exists()

        with ThreadPoolExecutor(3) as pool:
            left = [pool.submit(remove, folder.name, barrier) for _ in range(3)]
            assert [one.result(30) for one in left] == [False] * 3


def test_layer_without_its_files_is_told_of(repository: Repository) -> None:
    def problem(layer: str, *, has_manifest: bool = True) -> str:
        return files_problem(repository.path, layer, has_manifest=has_manifest)

    folder = repository.path / JOB
    assert problem(f"{JOB}/disk-0.qcow2") == ""
    (folder / "disk-0.manifest").unlink()
    assert problem(f"{JOB}/disk-0.qcow2") == "its manifest is missing"
    assert problem(f"{JOB}/disk-0.qcow2", has_manifest=False) == ""
    (folder / "disk-0.qcow2").unlink()
    assert problem(f"{JOB}/disk-0.qcow2") == "its file is missing"
    (folder / "disk-0.qcow2").mkdir()
    assert problem(f"{JOB}/disk-0.qcow2") == "its file is no regular file"
    assert (
        problem(f"{JOB}/job.json/disk-0.qcow2") == "its file cannot be looked at: Not a directory"
    )
