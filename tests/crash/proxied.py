"""An installation all of whose connections go through proxies."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hub.server import OPTIONS
from simulator.site import SimulatedSite
from tests.crash.installation import SMALL_STEPS, Installation, installation
from tests.crash.proxy import Proxy

Way = Literal["hub", "api", "nfc"]
WAYS: Final[tuple[Way, ...]] = ("hub", "api", "nfc")
# A peer that vanished without a word is noticed within two seconds, not within thirty.
_SHORT_OPTIONS: Final = {
    "grpc.keepalive_time_ms": 1000,
    "grpc.keepalive_timeout_ms": 1000,
    "grpc.http2.ping_timeout_ms": 1000,
}
_OF_HUB: Final[dict[str, object]] = {
    "hub.server.OPTIONS": tuple((key, _SHORT_OPTIONS.get(key, value)) for key, value in OPTIONS)
}
_OF_AGENT: Final[dict[str, object]] = {
    "sendense.channel.KEEPALIVE_INTERVAL_S": 1,
    "sendense.channel.KEEPALIVE_TIMEOUT_S": 1,
}


class _ProxiedSite(SimulatedSite):
    """Tickets name the proxy as where the NFC service is."""

    nfc_proxy: Proxy | None = None

    @property
    def nfc_port(self) -> int:
        return super().nfc_port if self.nfc_proxy is None else self.nfc_proxy.port


@dataclass(frozen=True)
class Proxied:
    """The installation, not started yet, and the ways between its parts."""

    there: Installation
    ways: dict[Way, Proxy]


@contextmanager
def proxied_installation(folder: Path, *, small_steps: bool = True) -> Iterator[Proxied]:
    """A site, a hub and an agent; agent and hub, agent and host are joined by proxies."""
    folder.mkdir(parents=True, exist_ok=True)
    site = _ProxiedSite(folder / "site")
    host, _, api_port = site.address.rpartition(":")
    nfc_port = site.nfc_port
    with ExitStack() as stack:
        there = stack.enter_context(
            installation(
                folder,
                site=site,
                hub_constants=_OF_HUB | (SMALL_STEPS if small_steps else {}),
                agent_constants=_OF_AGENT,
            )
        )

        def hub_place() -> tuple[str, int]:
            name, _, port = there.hub_address.rpartition(":")
            return name, int(port)

        ways: dict[Way, Proxy] = {
            "hub": stack.enter_context(Proxy(hub_place)),
            "api": stack.enter_context(Proxy(lambda: (host, int(api_port)), host=host)),
            "nfc": stack.enter_context(Proxy(lambda: (host, nfc_port), host=host)),
        }
        site.nfc_proxy = ways["nfc"]
        there.hub_seen_at = ways["hub"].address
        there.site_seen_at = ways["api"].address
        # Before the proxies: their pumps end with the connections.
        stack.callback(there.close)
        yield Proxied(there, ways)
