"""The hosts that the suite judges: the simulator, and vcsim of govmomi, each in two flavours.

Both listen on 127.0.0.2: pyVmomi switches certificate checks off for 127.0.0.1.
"""

import json
import re
import selectors
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pyVim.connect import SmartConnect
from pyVmomi import SoapStubAdapter, vim

from simulator.behaviour import Behaviour
from simulator.disks.disk import DiskSpec
from simulator.site import SimulatedSite
from tests.toolchain import ROOT, tool

CALL_S: Final = 20
_START_S: Final = 30
_STOP_S: Final = 10
_MIB: Final = 1 << 20
_GO_MOD: Final = ROOT / "tests" / "contracts" / "govmomi" / "go.mod"

Program = Literal["simulator", "vcsim"]
Flavour = Literal["esxi", "vcenter"]


def govmomi_version() -> str:
    """The pinned version of govmomi: that of vcsim and govc, as `v0.52.0`."""
    match = re.search(r"github\.com/vmware/govmomi (v\S+)", _GO_MOD.read_text())
    assert match is not None
    return match[1]


@dataclass(frozen=True)
class Kind:
    """What to start."""

    program: Program
    flavour: Flavour

    def __str__(self) -> str:
        version = f"-{govmomi_version()}" if self.program == "vcsim" else ""
        return f"{self.program}{version}-{self.flavour}"


KINDS: Final = tuple(
    Kind(program, flavour) for program in ("simulator", "vcsim") for flavour in ("esxi", "vcenter")
)


@dataclass(frozen=True)
class Host:
    """A running host, and the login that it takes. It has two VMs at least, powered on."""

    kind: Kind
    address: str  # host:port
    certificate: str  # PEM
    user: str
    password: str
    version: str  # of the program
    shared: bool = True  # by many tests: leave it as it was

    @property
    def api_type(self) -> str:
        return "HostAgent" if self.kind.flavour == "esxi" else "VirtualCenter"

    def tls(self) -> ssl.SSLContext:
        """Trusts this certificate and no other, whatever name it bears."""
        context = ssl.create_default_context(cadata=self.certificate)
        context.check_hostname = False  # vcsim's is made for another name
        return context

    def connect(self, **changes: Any) -> Any:
        """pyVmomi's service instance, logged in."""
        name, _, port = self.address.partition(":")
        options = {
            "host": name,
            "port": int(port),
            "user": self.user,
            "pwd": self.password,
            "sslContext": self.tls(),
            "httpConnectionTimeout": CALL_S,
        }
        return SmartConnect(**{**options, **changes})

    def stranger(self) -> Any:
        """A service instance that nobody logged in to."""
        name, _, port = self.address.partition(":")
        stub = SoapStubAdapter(
            host=name,
            port=int(port),
            version="vim.version.version10",
            sslContext=self.tls(),
            httpConnectionTimeout=CALL_S,
        )
        return vim.ServiceInstance("ServiceInstance", stub)


@contextmanager
def running(kind: Kind, folder: Path) -> Iterator[Host]:
    """Start that host; `folder` is for its files."""
    start = _vcsim if kind.program == "vcsim" else _simulator
    with start(kind, folder) as host:
        yield host


@contextmanager
def _simulator(kind: Kind, folder: Path) -> Iterator[Host]:
    with SimulatedSite(folder / "site", behaviour=Behaviour(flavour=kind.flavour)) as site:
        site.add_vm("first", [DiskSpec(16 * _MIB), DiskSpec(8 * _MIB, controller=1)])
        site.add_vm("second", [DiskSpec(4 * _MIB)])
        version = "simulator"
        yield Host(kind, site.address, site.certificate_pem, site.user, site.password, version)


@contextmanager
def _vcsim(kind: Kind, folder: Path) -> Iterator[Host]:
    command = [tool("vcsim"), "-vm=2", f"-esx={'true' if kind.flavour == 'esxi' else 'false'}"]
    with (folder / "vcsim.log").open("w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(_START_S) else ""
        assert line, f"vcsim did not start: {(folder / 'vcsim.log').read_text()}"
        yield Host(kind, **json.loads(line))
    finally:
        process.stdin.close()  # its sign to end
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)
        process.stdout.close()
