"""The public govc command against the same hosts: a second client, which is not pyVmomi."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from pyVmomi import vim

from tests.contracts.vsphere.calls import disks_of, read, snapshot_of
from tests.contracts.vsphere.hosts import Host, govmomi_version
from tests.toolchain import tool

pytestmark = pytest.mark.hostile

_COMMAND_S: Final = 60
Govc = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def govc(host: Host, tmp_path: Path) -> Govc:
    """Runs govc with the host's login; its session files stay in the test's folder."""
    certificate = tmp_path / "host.pem"
    certificate.write_text(host.certificate)
    # govc looks at the name in the certificate too, and vcsim's is made for 127.0.0.1.
    trust = (
        {"GOVC_TLS_CA_CERTS": str(certificate)}
        if host.kind.program == "simulator"
        else {"GOVC_INSECURE": "true"}
    )
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ.get("PATH", os.defpath),
        "GOVC_URL": f"https://{host.address}/sdk",
        "GOVC_USERNAME": host.user,
        "GOVC_PASSWORD": host.password,
        **trust,
    }

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tool("govc"), *arguments],
            env=environment | changes,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )

    return run


def said(result: subprocess.CompletedProcess[str]) -> str:
    """Its output. It ended well and complained about nothing."""
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def fields(text: str) -> dict[str, str]:
    """`Name:   value` lines."""
    found = [line.partition(":") for line in text.splitlines() if ":" in line]
    return {name.strip(): value.strip() for name, _, value in found}


def test_govc_is_the_pinned_one(govc: Govc) -> None:
    assert said(govc("version")).strip() == f"govc {govmomi_version().removeprefix('v')}"


def test_about_tells_the_product(host: Host, content: Any, govc: Govc) -> None:
    told = fields(said(govc("about")))
    assert told["FullName"] == content.about.fullName
    assert told["API type"] == host.api_type
    assert told["API version"] == content.about.apiVersion
    assert told["Build"] == content.about.build


def test_login_with_a_wrong_password_fails(govc: Govc) -> None:
    refused = govc("ls", GOVC_PASSWORD="wrong")
    assert refused.returncode == 1
    assert "login" in refused.stderr.lower()


def test_ls_walks_the_inventory(content: Any, vm: Any, govc: Govc) -> None:
    top = f"/{content.rootFolder.childEntity[0].name}"
    assert set(said(govc("ls")).splitlines()) == {
        f"{top}/{one}" for one in ("vm", "host", "datastore", "network")
    }
    assert f"{top}/vm/{vm.name}" in said(govc("ls", "vm")).splitlines()
    assert f"{top}/vm/{vm.name} (VirtualMachine)" in said(govc("ls", "-l", "vm")).splitlines()
    assert said(govc("ls", "datastore")).split() == [f"{top}/datastore/{vm.datastore[0].name}"]
    assert said(govc("ls", "no-such-folder")) == ""


@pytest.mark.parametrize("by", ["name", "uuid", "path"])
def test_vm_info_tells_of_a_vm(content: Any, vm: Any, govc: Govc, by: str) -> None:
    path = f"/{content.rootFolder.childEntity[0].name}/vm/{vm.name}"
    ways = {"name": [vm.name], "uuid": ["-vm.uuid", vm.config.uuid], "path": [path]}
    told = fields(said(govc("vm.info", *ways[by])))
    assert told["Name"] == vm.name
    assert told["Path"] == path
    assert told["UUID"] == vm.config.uuid
    assert told["Power state"] == "poweredOn"
    assert told["Memory"] == f"{vm.config.hardware.memoryMB}MB"
    assert told["Host"] == vm.runtime.host.name


def test_vm_info_shows_what_it_uses(vm: Any, govc: Govc) -> None:
    told = fields(said(govc("vm.info", "-r", "-t", vm.name)))
    assert told["Storage"] == vm.datastore[0].name
    assert re.fullmatch(r"[\d.]+\w?B", told["Storage committed"])


def test_vm_info_reads_every_property(vm: Any, govc: Govc) -> None:
    (told,) = json.loads(said(govc("vm.info", "-json", vm.name)))["virtualMachines"]
    assert told["self"] == {"type": "VirtualMachine", "value": vm._moId}
    assert told["parent"] == {"type": "Folder", "value": vm.parent._moId}
    assert told["config"]["uuid"] == vm.config.uuid
    assert told["runtime"]["host"]["value"] == vm.runtime.host._moId
    seen = {
        one["key"]: one["capacityInBytes"]
        for one in told["config"]["hardware"]["device"]
        if "capacityInBytes" in one
    }
    assert seen == {one.key: one.capacityInBytes for one in disks_of(vm.config.hardware.device)}


def test_vm_info_of_no_vm_is_empty(govc: Govc) -> None:
    assert said(govc("vm.info", "no such vm")) == ""


def test_snapshots_are_created_shown_and_removed(vm: Any, govc: Govc) -> None:
    of_vm = ("-vm", vm.name)
    said(govc("snapshot.create", *of_vm, "-m=false", "-q=false", "-d", "the first", "one"))
    said(govc("snapshot.create", *of_vm, "-m=false", "two words"))
    (root,) = vm.snapshot.rootSnapshotList
    assert (root.name, root.description) == ("one", "the first")
    assert [one.name for one in root.childSnapshotList] == ["two words"]
    tree = [line.strip() for line in said(govc("snapshot.tree", *of_vm)).splitlines()]
    assert tree == ["one", "two words", "."]
    shown = said(govc("snapshot.tree", *of_vm, "-f", "-i", "-d"))
    assert f"[{root.snapshot._moId}]" in shown
    assert "one - the first" in shown
    assert "one/two words" in shown
    said(govc("snapshot.remove", *of_vm, "one"))
    tree = [line.strip() for line in said(govc("snapshot.tree", *of_vm)).splitlines()]
    assert tree == ["two words", "."]
    said(govc("snapshot.remove", *of_vm, root.childSnapshotList[0].snapshot._moId))
    assert read(vm, "snapshot") is None
    assert said(govc("snapshot.tree", *of_vm)) == ""


def test_snapshot_create_without_options_takes_memory_too(vm: Any, govc: Govc) -> None:
    said(govc("snapshot.create", "-vm", vm.name, "warm"))
    assert vm.snapshot.rootSnapshotList[0].state == "poweredOn"


@pytest.mark.parametrize("children", [False, True], ids=["alone", "with-children"])
def test_snapshot_remove_takes_children_when_asked(vm: Any, govc: Govc, children: bool) -> None:
    snapshot_of(vm, "one")
    snapshot_of(vm, "two")
    option = ["-r"] if children else []
    said(govc("snapshot.remove", "-vm", vm.name, *option, "one"))
    assert (read(vm, "snapshot") is None) is children


def test_snapshot_remove_takes_all(vm: Any, govc: Govc) -> None:
    snapshot_of(vm, "one")
    snapshot_of(vm, "two")
    said(govc("snapshot.remove", "-vm", vm.name, "*"))
    assert read(vm, "snapshot") is None


def test_snapshot_remove_of_an_unknown_one_fails(vm: Any, govc: Govc) -> None:
    snapshot_of(vm, "one")
    refused = govc("snapshot.remove", "-vm", vm.name, "another")
    assert refused.returncode == 1
    assert '"another" not found' in refused.stderr
    assert isinstance(vm.snapshot.currentSnapshot, vim.vm.Snapshot)


def test_snapshot_tree_tells_sizes(vm: Any, govc: Govc) -> None:
    snapshot_of(vm, "one")
    first, current = said(govc("snapshot.tree", "-vm", vm.name, "-s")).splitlines()
    assert re.fullmatch(r"\[[\d.]+\w?B\] +one", first.strip())
    assert current.strip().endswith(".")
