"""The check of the protos against the last release, which `make lint` runs: it sees what it is for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toolchain import ROOT

SCRIPT = ROOT / "scripts" / "released_protos.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the protos to change."""
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    return tmp_path


def _check(tree: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, SCRIPT, "check", "--tree", tree],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def _change(tree: Path, file: str, old: str, new: str) -> None:
    proto = tree / "protos" / "sendense" / "v1" / file
    content = proto.read_text()
    assert content.count(old) >= 1, f"{file} has no {old!r} any more"
    proto.write_text(content.replace(old, new, 1))


def test_the_check_passes_for_what_is_there(tree: Path) -> None:
    assert _check(tree) == (0, "")


def test_a_new_field_and_a_new_message_are_compatible(tree: Path) -> None:
    _change(
        tree,
        "backup.proto",
        "message WatchBackupRequest {\n",
        "message Unheard {}\n\nmessage WatchBackupRequest {\n  Unheard unheard = 90;\n",
    )
    assert _check(tree) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("backup.proto", "string vm_name = 3;", "string vm_name = 90;", 'field "3" with name'),
        ("backup.proto", "int32 disk_index = 3;", "string disk_index = 3;", "changed type"),
        ("backup.proto", "  BACKUP_STATUS_FAILED = 4;\n", "", 'enum value "4"'),
        ("backup.proto", "string disk_change_id = 11;", "string change_id = 11;", "changed name"),
        ("context.proto", "  rpc ListDisks(ListDisksRequest) returns (ListDisksResponse);\n", "", "ListDisks"),
    ],
    ids=["renumbered", "retyped", "enum value removed", "renamed in JSON", "rpc removed"],
)  # fmt: skip
def test_a_change_that_breaks_a_peer_is_refused_by_name(
    tree: Path, file: str, old: str, new: str, said: str
) -> None:
    _change(tree, file, old, new)
    status, output = _check(tree)
    assert status == 1, output
    assert "the protos break peers of release" in output
    assert said in output
    assert file in output
