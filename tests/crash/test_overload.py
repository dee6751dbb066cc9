"""More jobs than may run: 500 at once, of 20 agents, at a hub that is a process of its own.

The agents speak the protocol and no more, so that the hub is what is loaded.
"""

import queue
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from sendense import Client, DayStatistics
from sendense.v1 import agent_session_pb2 as session_pb
from sendense.v1 import backup_pb2 as pb
from sendense.v1 import inventory_pb2
from sendense.v1.backup_pb2_grpc import BackupServiceStub
from tests.end_to_end.processes import Hub, wait_for
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm

pytestmark = [pytest.mark.crash, pytest.mark.timeout(180)]

AGENTS: Final = 20
VMS: Final = 25  # of each
DATASTORES: Final = 5  # of each
JOBS: Final = AGENTS * VMS
CONTENT: Final = "A.BC"
REPOSITORIES: Final = ("default", "second")
# Each of them holds something back, for the ones above are no multiples of the ones below.
OF_HUB, OF_REPOSITORY, OF_AGENT, OF_DATASTORE = 12, 8, 3, 1
HUB_MIB: Final = 400
MIB: Final = 1 << 20


@dataclass
class Vm(FakeVm):
    """On one of its site's datastores."""

    datastore: str = ""

    def message(self) -> inventory_pb2.VirtualMachine:
        message = super().message()
        for disk in message.disks:
            disk.file_name = f"[{self.datastore}] {self.name}/{self.name}.vmdk"
        return message


def repository_of(vm: str) -> str:
    return REPOSITORIES[int(vm.rpartition("-")[2]) % len(REPOSITORIES)]


@dataclass
class Count:
    """What runs at the agents, and the most that ever ran at a time; thread-safe."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: Counter[tuple[str, ...]] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    handed_out: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)

    def begin(self, job_id: str, keys: list[tuple[str, ...]]) -> None:
        with self.lock:
            self.handed_out[job_id] += 1
            self.running.update(keys)
            for key in keys:
                self.most[key[0]] = max(self.most[key[0]], self.running[key])

    def end(self, keys: list[tuple[str, ...]]) -> None:
        with self.lock:
            self.running.subtract(keys)


class Site:
    """An agent that runs each job in a thread of its own, once `gate` is open."""

    def __init__(self, address: str, number: int, count: Count, gate: threading.Event) -> None:
        self.name = f"site-{number:02}"
        self._count, self._gate = count, gate
        self._plans: dict[str, queue.Queue[session_pb.JobPlan]] = defaultdict(queue.Queue)
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._held: set[str] = set()
        self._vms = {
            f"uuid-{number}-{one}": Vm(
                f"vm-{number}-{one}",
                f"vm-{one}",
                f"uuid-{number}-{one}",
                [FakeDisk(CONTENT)],
                datastore=f"datastore-{one % DATASTORES}",
            )
            for one in range(VMS)
        }
        self.agent = FakeAgent(
            address, self.name, self._vms.values(), jobs_in_parallel=OF_AGENT
        ).connect()
        self._ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def vm_names(self) -> list[str]:
        return [vm.name for vm in self._vms.values()]

    def _listen(self) -> None:
        try:
            while True:
                command = self._next()
                kind = command.WhichOneof("command")
                if kind == "start_job":
                    self._begin(command.start_job)
                elif kind == "job_plan":
                    self._plans[command.job_plan.job_id].put(command.job_plan)
                elif kind == "job_closed":
                    with self._count.lock:
                        self._count.closed[command.job_closed.job_id] += 1
                        self._held.discard(command.job_closed.job_id)
                else:
                    raise AssertionError(f"unexpected: {command}")
        except BaseException as error:  # noqa: BLE001 - told by the test's thread
            if not self._ended:
                self.errors.append(error)

    def _next(self) -> session_pb.SessionResponse:
        while True:
            try:
                return self.agent.next()
            except queue.Empty:  # it has nothing to do for long
                with self._count.lock:
                    job_ids = sorted(self._held)
                self.agent.send(heartbeat=session_pb.AgentHeartbeat(job_ids=job_ids))

    def _begin(self, start: session_pb.StartJob) -> None:
        vm = self._vms[start.instance_uuid]
        keys: list[tuple[str, ...]] = [
            ("hub",),
            ("repository", repository_of(vm.name)),
            ("agent", self.name),
            ("datastore", self.name, vm.datastore),
        ]
        self._count.begin(start.job_id, keys)
        with self._count.lock:
            self._held.add(start.job_id)
        thread = threading.Thread(target=self._run, args=(start.job_id, vm, keys), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, job_id: str, vm: Vm, keys: list[tuple[str, ...]]) -> None:
        try:
            assert self._gate.wait(60)
            self.agent.open_job(job_id, vm.disks)
            plan = self._plans[job_id].get(timeout=60)
            for disk in plan.disks:
                self.agent.upload(job_id, disk.disk_index, CONTENT)
            # Before the hub hears of the end: it gives the place away at once.
            self._count.end(keys)
            self.agent.send(job_uploaded=session_pb.JobUploaded(job_id=job_id))
        except BaseException as error:  # noqa: BLE001 - told by the test's thread
            self.errors.append(error)

    def close(self) -> None:
        self._ended = True
        self.agent.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    with hub.config.open("a") as config:
        config.write(
            f"\njobs_in_parallel = {OF_HUB}\njobs_per_repository = {OF_REPOSITORY}\n"
            f"jobs_per_datastore = {OF_DATASTORE}\n"
        )
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()


def high_water_mib(pid: int) -> float:
    """The most memory that the process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def queued(backups: BackupServiceStub) -> list[pb.Backup]:
    """All queued jobs, of one list, in their order."""
    listed = backups.ListBackups(pb.ListBackupsRequest(page_size=1000), timeout=30).backups
    assert len(listed) == JOBS
    waiting = [one for one in listed if one.queue_position]
    return sorted(waiting, key=lambda one: one.queue_position)


def places(backups: BackupServiceStub) -> list[int]:
    return [one.queue_position for one in queued(backups)]


def start_all(backups: BackupServiceStub, names: list[str]) -> list[pb.Backup]:
    def start(name: str) -> pb.Backup:
        request = pb.StartBackupRequest(vm=name, repository=repository_of(name))
        answer: Any = backups.StartBackup(request, timeout=60)
        return answer.backup

    with ThreadPoolExecutor(8) as callers:
        return list(callers.map(start, names))


def test_500_jobs_of_20_agents_run_within_limits_each_once(hub: Hub, tmp_path: Path) -> None:
    count, gate = Count(), threading.Event()
    with ExitStack() as cleanup:
        client = cleanup.enter_context(Client(hub.address))
        client.create_repository("second", str(tmp_path / "second"))
        sites = []
        for number in range(AGENTS):
            sites.append(Site(hub.address, number, count, gate))
            cleanup.callback(sites[-1].close)
        backups = BackupServiceStub(cleanup.enter_context(grpc.insecure_channel(hub.address)))
        started = start_all(backups, [name for site in sites for name in site.vm_names])
        assert len({job.job_id for job in started}) == JOBS

        # As many as may run were handed out; all others have places without a gap.
        wait_for("the first jobs", lambda: count.running[("hub",)] == OF_HUB)
        waiting = queued(backups)
        assert [one.queue_position for one in waiting] == list(range(1, JOBS - OF_HUB + 1))
        assert all("the end of one of the 12 jobs" in one.waiting_for for one in waiting)

        gate.set()
        seen: list[int] = []

        def all_ended() -> bool:
            errors = [error for site in sites for error in site.errors]
            assert not errors, errors
            now = places(backups)
            assert now == list(range(1, len(now) + 1))
            seen.append(len(now))
            return client.get_statistics(days=1).now.jobs_running == 0

        wait_for("the end of all jobs", all_ended, 120, pause_s=0.5)
        wait_for("that all jobs are closed", lambda: sum(count.closed.values()) >= JOBS)

        ids = {job.job_id for job in started}
        assert count.handed_out == Counter(ids)
        assert count.closed == Counter(ids)
        assert any(0 < waiting < JOBS - OF_HUB for waiting in seen), seen
        assert count.most["hub"] == OF_HUB
        assert count.most["repository"] <= OF_REPOSITORY
        assert count.most["agent"] <= OF_AGENT
        assert count.most["datastore"] == OF_DATASTORE
        _assert_counted(client)
        assert hub.program is not None
        used = high_water_mib(hub.program.process.pid)
        assert used < HUB_MIB, f"the hub used {used:.0f} MiB"


def _assert_counted(client: Client) -> None:
    found = client.get_statistics(days=2)
    total: DayStatistics = found.total
    assert (total.jobs, total.jobs_completed, total.jobs_full) == (JOBS, JOBS, JOBS)
    assert (found.now.contexts, found.now.restore_points) == (JOBS, JOBS)
    contexts = list(client.list_contexts())
    assert len(contexts) == JOBS
    for one in contexts:
        assert one.total_backups_run == one.successful_backups == one.restore_point_count == 1
        assert one.failed_backups == 0
    assert sum(one.bytes_stored for one in contexts) == found.now.bytes_stored
