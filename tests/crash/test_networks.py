"""Connections that break, slow down, vanish or overtake each other: the same job completes."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sendense import Backup
from tests.crash.children import unchanged
from tests.crash.fail_points import Trap
from tests.crash.proof import MOST_RESENT_BYTES, assert_nothing_is_left, assert_restores
from tests.crash.proxied import WAYS, Proxied, Way, proxied_installation
from tests.crash.proxy import Proxy
from tests.crash.summary import Tally
from tests.end_to_end.processes import wait_for
from tests.model.disks import CLUSTER, Image
from tests.model.guest import Act, GuestVm

DISK_BYTES: Final = 16 << 20
WRITTEN_BYTES: Final = 4 << 20
# More than the agent has read when it has sent two frames.
NFC_BYTES: Final = 64 << 20
PART_BYTES: Final = 32 << 20
FAULTS: Final = ("reset", "closed", "slow", "vanished", "overtaken")
# Where the agent is held while the fault is made.
PLANNING: Final = Trap("agent.plan.received", does="hold")
_FAULTS: Final = "faults of connections"
UPLOADING: Final = Trap("agent.upload.frame_sent", 2, "hold")
DELAY_S: Final = 0.005
# What may be on its way between a disk's reader and a hub that takes nothing: the window
# of 64 MiB, gRPC's and the sockets' buffers, what waits to be sent.
MOST_ON_THE_WAY_BYTES: Final = 160 << 20
MOST_MEMORY_BYTES: Final = 512 << 20


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[Proxied]:
    with proxied_installation(tmp_path / "installation") as made:
        yield made


def add_guest(proxied: Proxied, disks: int = 2, written: int = WRITTEN_BYTES) -> GuestVm:
    guest = GuestVm(proxied.there.site.add_vm("victim"))
    for index in range(disks):
        guest.add_disk(max(DISK_BYTES, written))
        for start_of_part in range(0, written, PART_BYTES):
            length = min(PART_BYTES, written - start_of_part)
            first = start_of_part // CLUSTER
            guest.act(Act("write", index, first, 0, length, seed=index + start_of_part))
    return guest


def start(proxied: Proxied) -> None:
    proxied.there.start_hub()
    proxied.there.start_agent()


def break_way(proxied: Proxied, way: Way, fault: str) -> None:
    """Make the fault, let the agent go on, and heal the way once the fault has been felt."""
    there, proxy = proxied.there, proxied.ways[way]
    sessions = there.agent.log.count("hub_connected")
    match fault:
        case "reset" | "closed":
            proxy.cut(reset=fault == "reset")
            there.agent.release()
        case "slow":
            proxy.delay(DELAY_S)
            there.agent.release()
        case "vanished":
            proxy.blackhole()
            there.agent.release()
            if way == "hub":
                wait_for("the agent notices", lambda: lost_sessions(proxied) > 0)
            else:
                wait_for("something is lost", lambda: proxy.lost)
            proxy.heal()
        case "overtaken":
            proxy.hold()
            accepted = proxy.accepted
            there.agent.release()
            if way == "hub":
                wait_for(
                    "another session", lambda: there.agent.log.count("hub_connected") > sessions
                )
            else:
                wait_for("another connection", lambda: proxy.accepted > accepted)
            proxy.heal()


def lost_sessions(proxied: Proxied) -> int:
    return proxied.there.agent.log.count("hub_session_lost")


def prove(proxied: Proxied, job: Backup, moment: dict[str, Image]) -> None:
    assert_restores(proxied.there, job, [moment])
    assert_nothing_is_left(proxied.there)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", WAYS)
def test_job_completes_when_a_connection_fails_in_mid_upload(
    proxied: Proxied, tally: Tally, way: Way, fault: str
) -> None:
    tally.count(_FAULTS)
    guest = add_guest(proxied, disks=1, written=NFC_BYTES) if way == "nfc" else add_guest(proxied)
    start(proxied)
    proxied.there.agent.arm(UPLOADING)
    job_id = proxied.there.order(guest.vm)
    proxied.there.agent.wait_reached(UPLOADING.point)
    assert proxied.ways[way].open_links > 0
    break_way(proxied, way, fault)
    prove(proxied, proxied.there.wait_ended(job_id), guest.images())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", ["hub", "api"])
def test_increment_completes_when_a_connection_fails_while_it_is_planned(
    proxied: Proxied, tally: Tally, way: Way, fault: str
) -> None:
    tally.count(_FAULTS)
    guest = add_guest(proxied)
    start(proxied)
    full = proxied.there.completed(guest.vm)
    guest.act(Act("write", 0, 30, 512, WRITTEN_BYTES, seed=8))
    proxied.there.agent.arm(PLANNING)
    job_id = proxied.there.order(guest.vm)
    proxied.there.agent.wait_reached(PLANNING.point)
    break_way(proxied, way, fault)
    job = proxied.there.wait_ended(job_id)
    prove(proxied, job, guest.images())
    assert {disk.base_job_id for disk in job.disks} == {full.job_id}


@pytest.mark.parametrize("fault", FAULTS)
def test_agent_comes_back_when_its_session_fails(
    proxied: Proxied, tally: Tally, fault: str
) -> None:
    tally.count(_FAULTS)
    guest = add_guest(proxied, disks=1)
    start(proxied)
    break_way(proxied, "hub", fault)
    if fault != "slow":
        wait_for("the session is lost", lambda: lost_sessions(proxied) > 0)
    proxied.there.wait_agent()
    prove(proxied, proxied.there.completed(guest.vm), guest.images())


def test_at_most_64_mib_of_a_disk_are_sent_again_when_the_connection_breaks(
    tmp_path: Path, tally: Tally
) -> None:
    """Counted by the hub, and by the bytes that went through the connection."""
    with proxied_installation(tmp_path / "installation", small_steps=False) as proxied:
        there, proxy = proxied.there, proxied.ways["hub"]
        guest = add_guest(proxied, disks=1, written=160 << 20)
        start(proxied)
        before = proxy.bytes("up")
        there.agent.arm(Trap(UPLOADING.point, 30, "hold"))
        job_id = there.order(guest.vm)
        there.agent.wait_reached(UPLOADING.point)
        proxy.cut()
        there.agent.arm(Trap(UPLOADING.point, 30, "hold"))
        there.agent.wait_reached(UPLOADING.point)
        there.hub.kill()
        there.agent.release()
        there.start_hub()
        job = there.wait_ended(job_id)
        prove(proxied, job, guest.images())
        (disk,) = job.disks
        went = proxy.bytes("up") - before
        assert disk.resume_count >= 2
        assert disk.bytes_resent <= 2 * MOST_RESENT_BYTES
        assert went <= disk.bytes_transferred + 2 * MOST_RESENT_BYTES + (8 << 20)
        tally.most("payload bytes sent again for a large disk, after two breaks", disk.bytes_resent)
        tally.most(
            "bytes on the connection beyond a large disk's, after two breaks",
            went - disk.bytes_transferred,
        )


def test_slow_hub_slows_the_agent_down_through_flow_control(tmp_path: Path, tally: Tally) -> None:
    """The agent stops reading the disk; what it holds of it is bounded."""
    with proxied_installation(tmp_path / "installation") as proxied:
        there, proxy = proxied.there, proxied.ways["nfc"]
        guest = add_guest(proxied, disks=1, written=192 << 20)
        start(proxied)
        there.hub.arm(Trap("hub.layer.appended", 2, "hold"))
        job_id = there.order(guest.vm)
        there.hub.wait_reached("hub.layer.appended")
        wait_for("the agent reads no more", unchanged(lambda: proxy.bytes("down")))
        assert proxy.bytes("down") < MOST_ON_THE_WAY_BYTES
        most = int(there.agent.status("VmHWM").split()[0]) << 10
        tally.most("bytes of memory of an agent whose hub takes nothing", most)
        assert most < MOST_MEMORY_BYTES
        there.hub.release()
        prove(proxied, there.wait_ended(job_id), guest.images())


def test_proxy_moves_bytes_and_breaks_connections_as_told() -> None:
    """The tests' own tool: what it does is what a peer sees."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = server.getsockname()
        with Proxy(lambda: place) as proxy:
            client = socket.create_connection((proxy.host, proxy.port), 5)
            peer, _ = server.accept()
            client.sendall(b"a" * CLUSTER)
            received = 0
            while received < CLUSTER:
                received += len(peer.recv(CLUSTER))
            wait_for("the count", lambda: proxy.bytes("up") == CLUSTER)
            proxy.hold()
            client.sendall(b"held")
            other = socket.create_connection((proxy.host, proxy.port), 5)
            other_peer, _ = server.accept()
            other.sendall(b"overtakes")
            assert other_peer.recv(100) == b"overtakes"
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(100)
            peer.setblocking(True)
            proxy.heal()
            assert peer.recv(100) == b"held"
            proxy.blackhole()
            client.sendall(b"lost")
            wait_for("the loss", lambda: proxy.lost)
            proxy.heal()
            client.settimeout(5)
            with pytest.raises(ConnectionResetError):
                client.recv(100)
            proxy.cut(reset=False)
            assert other.recv(100) == b""
            for one in (client, peer, other, other_peer):
                one.close()
