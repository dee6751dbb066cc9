"""One running host of each kind per test process, and what tests do with it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pyVim.connect import Disconnect
from pyVmomi import vim

from tests.contracts.vsphere.calls import finish, read, virtual_machines
from tests.contracts.vsphere.differences import DIFFERENCES
from tests.contracts.vsphere.hosts import KINDS, Host, Kind, running

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What vcsim is known to do otherwise has to fail there: the list may not outlive its truth."""
    for item in items:
        if not item.path.is_relative_to(_HERE) or not isinstance(item, pytest.Function):
            continue
        kind = item.callspec.params.get("host") if hasattr(item, "callspec") else None
        if not isinstance(kind, Kind) or kind.program != "vcsim":
            continue
        without_host = item.name.replace(f"{kind}-", "").replace(f"[{kind}]", "")
        for one in DIFFERENCES:
            if one.test in (item.originalname, without_host) and kind.flavour in one.flavours:
                reason = f"vcsim: {one.what}"
                item.add_marker(pytest.mark.xfail(reason=reason, raises=one.raises, strict=True))


@pytest.fixture(scope="session")
def host_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kind], Host]]:
    """The running host of a kind; started when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def start(kind: Kind) -> Host:
            return stack.enter_context(running(kind, tmp_path_factory.mktemp(str(kind))))

        yield start


@pytest.fixture(params=KINDS, ids=str)
def host(
    request: pytest.FixtureRequest, host_of: Callable[[Kind], Host], tmp_path: Path
) -> Iterator[Host]:
    """A host that tests share; one of its own for a test that may leave vcsim locked up."""
    if request.node.get_closest_marker("xfail") is None:
        yield host_of(request.param)
        return
    with running(request.param, tmp_path) as alone:
        yield replace(alone, shared=False)


@pytest.fixture
def api(host: Host) -> Iterator[Any]:
    """pyVmomi's service instance, logged in; its session ends with the test."""
    instance = host.connect()
    yield instance
    if host.shared:
        Disconnect(instance)


@pytest.fixture
def content(api: Any) -> Any:
    return api.RetrieveContent()


@pytest.fixture
def vm(host: Host, content: Any) -> Iterator[Any]:
    """A VM without snapshots, powered on; it is left as it was found."""
    found = virtual_machines(content)[0]
    name = found.name
    assert read(found, "snapshot") is None
    yield found
    if not host.shared:
        return
    again = host.connect()  # the test may have ended its own session
    clean = vim.VirtualMachine(found._moId, again._stub)
    try:
        finish(clean.RemoveAllSnapshots_Task())
        if clean.runtime.powerState != "poweredOn":
            finish(clean.PowerOnVM_Task())
        if clean.name != name:
            finish(clean.ReconfigVM_Task(vim.vm.ConfigSpec(name=name)))
    finally:
        Disconnect(again)
