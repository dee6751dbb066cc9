"""Releasing the protos: the image and the tag are of one committed state, and never replaced."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toolchain import ROOT

GIT = ["git", "-c", "user.name=Tests", "-c", "user.email=tests@localhost"]


def _git(tree: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*GIT, *arguments], cwd=tree, check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own with the protos, the image of 0.1.0 and the programs for both."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # a test that a commit hook starts must not write into this one
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "protos" / "sendense", tmp_path / "protos" / "sendense")
    (tmp_path / "protos" / "released").mkdir()
    shutil.copy(ROOT / "protos" / "released" / "0.1.0.binpb", tmp_path / "protos" / "released")
    (tmp_path / "scripts").mkdir()
    for script in ("released_protos.py", "steps.py"):
        shutil.copy(ROOT / "scripts" / script, tmp_path / "scripts")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", "protos", "buf.yaml")
    _git(tmp_path, "commit", "-q", "-m", "protos")
    return tmp_path


def _run(tree: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, tree / "scripts" / "released_protos.py", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_release_keeps_an_image_and_tags_the_commit_it_is_of(tree: Path) -> None:
    status, output = _run(tree, "release", "0.10.0")
    assert status == 0, output
    assert (tree / "protos" / "released" / "0.10.0.binpb").stat().st_size > 0
    assert _git(tree, "rev-parse", "protos-v0.10.0") == _git(tree, "rev-parse", "HEAD")

    # From now on that one is compared with, though 0.9.0 sorts behind it as a text.
    shutil.copy(
        tree / "protos" / "released" / "0.1.0.binpb", tree / "protos" / "released" / "0.9.0.binpb"
    )
    proto = tree / "protos" / "sendense" / "v1" / "backup.proto"
    proto.write_text(proto.read_text().replace("string vm_name = 3;", "string vm_name = 90;", 1))
    status, output = _run(tree, "check")
    assert (status, "peers of release 0.10.0" in output) == (1, True), output


def test_a_release_is_refused_when_it_could_mean_two_things(tree: Path) -> None:
    for version, said in {
        "0.1.0": "0.1.0.binpb is there already",
        "0.0.9": "0.1.0.binpb is there already",
        "1.2": "is no version of the form x.y.z",
        "": "is no version of the form x.y.z",
    }.items():
        status, output = _run(tree, "release", version)
        assert (status, said in output) == (1, True), output
    _git(tree, "tag", "protos-v0.2.0")
    status, output = _run(tree, "release", "0.2.0")
    assert (status, "the tag protos-v0.2.0 is there already" in output) == (1, True), output
    (tree / "protos" / "sendense" / "v1" / "more.proto").write_text('syntax = "proto3";\n')
    status, output = _run(tree, "release", "0.3.0")
    assert (status, "commit the protos first" in output) == (1, True), output
    assert "more.proto" in output

    assert _git(tree, "tag") == "protos-v0.2.0"
    assert [file.name for file in (tree / "protos" / "released").iterdir()] == ["0.1.0.binpb"]


def test_the_check_fails_when_nothing_was_released(tree: Path) -> None:
    (tree / "protos" / "released" / "0.1.0.binpb").unlink()
    status, output = _run(tree, "check")
    assert (status, "has no image of released protos" in output) == (1, True), output
