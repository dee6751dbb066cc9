"""Every call that docs/api.md shows, made with the real grpcurl against a live hub."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from sendense import Client
from simulator.control import ControlServer
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.api_page.check import Outcome, page_problems
from tests.api_page.contract import HEALTH_CHECK, INTERNAL_SERVICES
from tests.api_page.page import parse
from tests.api_page.walk import Shell, walk
from tests.end_to_end.processes import BIN, Agent, Hub, wait_for
from tests.toolchain import tool

pytestmark = [pytest.mark.grpcurl, pytest.mark.timeout(300)]

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "api.md"
MIB: Final = 1 << 20
GIB: Final = 1 << 30
# Two days' statistics are looked at: the page's jobs are all of one day.
LAST_OF_DAY_S: Final = 60


@pytest.fixture
def demo_site(tmp_path: Path) -> Iterator[SimulatedSite]:
    """The VMs of `make demo-up`, with less in their disks."""
    folder = tmp_path / "site"
    folder.mkdir()
    with SimulatedSite(folder) as site:
        content = random.Random(7).randbytes(6 * MIB)
        site.add_vm(
            "pgtest1",
            [DiskSpec(102 * GIB, content=content), DiskSpec(5 * GIB, content=content[: 2 * MIB])],
        )
        site.add_vm("web-frontend", [DiskSpec(16 * GIB), DiskSpec(8 * GIB, controller=1)])
        site.add_vm(
            "Build Server (old)",
            [DiskSpec(20 * GIB), DiskSpec(4 * GIB, mode="independent_persistent")],
            power_state="poweredOff",
        )
        yield site


@pytest.fixture
def demo_agent(tmp_path: Path, demo_site: SimulatedSite, hub: Hub, cleanup: ExitStack) -> Agent:
    # The inventory is reported once: what later calls show of it does not depend on their time.
    agent = Agent(
        tmp_path / "agent", demo_site, hub, name="demo", more="inventory_interval_s = 3600"
    )
    cleanup.callback(lambda: agent.program and agent.stop())
    agent.start()
    return agent


@pytest.fixture
def shell(tmp_path: Path, demo_site: SimulatedSite, hub: Hub, cleanup: ExitStack) -> Shell:
    control = ControlServer(tmp_path / "control.sock", demo_site)
    control.start()
    cleanup.callback(control.close)
    return _shell(tmp_path, hub, control.path)


def _shell(folder: Path, hub: Hub, control: Path) -> Shell:
    # The page names programs as they are in a checkout.
    (folder / ".venv").mkdir(exist_ok=True)
    (folder / ".venv" / "bin").symlink_to(BIN)
    given = {"SENDENSE_HUB": hub.address, "SENDENSE_SIMULATOR_CONTROL": str(control)}
    return Shell(folder, [tool("grpcurl").parent], given)


def _with_slow_snapshots(shell: Shell, site: SimulatedSite) -> Callable[..., Outcome]:
    """What starts a job answers before its snapshot is taken, as on hosts that take their time."""

    def run(command: str, kept: Mapping[str, str]) -> Outcome:
        if "/StartBackup" in command or "/RetryBackup" in command:
            site.faults.hold_tasks("CreateSnapshot_Task")
        try:
            return shell(command, kept)
        finally:
            site.faults.release_tasks()

    return run


def test_every_call_of_the_page_answers_in_the_shape_that_it_shows(
    demo_site: SimulatedSite, demo_agent: Agent, client: Client, shell: Shell
) -> None:
    wait_for("a day that does not end soon", _far_from_midnight, LAST_OF_DAY_S * 2)

    def stop_agent() -> None:
        assert demo_agent.stop() == 0
        wait_for("the session's end", lambda: not client.get_agent("demo").connected)

    directions: dict[str, Callable[[], None]] = {"the agent is stopped": stop_agent}
    page = parse(PAGE.read_text())
    problems, outcomes = walk(
        page, _with_slow_snapshots(shell, demo_site), lambda words: directions[words]()
    )
    assert not problems, "\n" + "\n".join(map(str, problems))
    assert len(outcomes) == len(page.calls)
    assert not page_problems(page)


@pytest.fixture(scope="module")
def empty_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Of a hub that has heard of nothing yet."""
    tool("grpcurl")  # before a hub is started in vain
    folder = tmp_path_factory.mktemp("empty")
    hub = Hub(folder)
    try:
        hub.start()
        yield _shell(folder, hub, folder / "no-control.sock")
    finally:
        hub.stop()


def test_a_page_whose_calls_have_gone_bad_is_caught(empty_shell: Shell) -> None:
    """What only a hub can tell: fields of requests, rules, methods that are there no more."""
    good = _one_call(
        """-d '{"page_size": 1}' $SENDENSE_HUB sendense.v1.BackupService/ListBackups""", "{}"
    )
    assert walk(parse(good), empty_shell, pytest.fail)[0] == []
    for bad in (
        good.replace("page_size", "pages"),
        good.replace("ListBackups", "ListJobs"),
        good.replace('"page_size": 1', '"page_size": -1'),
        good.replace("$SENDENSE_HUB", "$JOB"),
    ):
        assert walk(parse(bad), empty_shell, pytest.fail)[0], bad


def test_the_page_has_a_call_of_every_rpc_that_the_hub_serves(empty_shell: Shell) -> None:
    def listed(what: str = "") -> list[str]:
        answer = empty_shell(f"grpcurl -plaintext $SENDENSE_HUB list {what}", {})
        assert answer.exit_code == 0, answer.stderr
        return answer.stdout.split()

    services = {name for name in listed() if name.startswith("sendense.")}
    assert services > INTERNAL_SERVICES
    served = {
        tuple(method.rsplit(".", 1))
        for service in services - INTERNAL_SERVICES
        for method in listed(service)
    }
    shown = {call.method for call in parse(PAGE.read_text()).calls if call.method}
    assert shown == served | {HEALTH_CHECK}


def _far_from_midnight() -> bool:
    now = datetime.now(UTC)
    return (now + timedelta(seconds=LAST_OF_DAY_S)).date() == now.date()


def _one_call(call: str, answer: str) -> str:
    return f"## One\n```sh\ngrpcurl -plaintext {call}\n```\n```json\n{answer}\n```\n"
