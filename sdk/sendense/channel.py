"""Where a connection to the hub is made: the one place that will know credentials."""

import json
import re
from typing import Final

import grpc
from grpc.experimental import ChannelOptions

from sendense.errors import InvalidArgument

DEFAULT_PORT: Final = 8443
MAX_MESSAGE_BYTES: Final = 8 << 20
KEEPALIVE_INTERVAL_S: Final = 30
KEEPALIVE_TIMEOUT_S: Final = 15

_ADDRESS = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})$")

# RPCs that change nothing when repeated: reads, switches, and starts by their request id. Not
# deletions: repeated, one that was done is answered with "not found".
_REPEATABLE: Final = {
    "BackupService": (
        "StartBackup",
        "GetBackup",
        "ListBackups",
        "WatchBackup",
        "CancelBackup",
        "RetryBackup",
    ),
    "ContextService": ("GetContext", "ListContexts"),
    "DiskService": ("GetDisk", "ListDisks", "GetChain", "GetChangeId"),
    "RepositoryService": (
        "GetRepository",
        "ListRepositories",
        "TestRepository",
        "SetDefaultRepository",
        "DisableRepository",
        "EnableRepository",
    ),
    "AgentService": ("ListAgents", "GetAgent", "DrainAgent", "ResumeAgent"),
    "InventoryService": ("ListVirtualMachines",),
    "StatisticsService": ("GetStatistics",),
    "RestoreService": ("RestoreDisk",),
}


def with_port(address: str) -> str:
    """The address of a hub; one that is only a name, IPv4 or [IPv6] gets the usual port."""
    if address and (":" not in address or address.endswith("]")):
        return f"{address}:{DEFAULT_PORT}"
    return address


def open_channel(address: str, *, dedicated: bool = False) -> grpc.Channel:
    """A channel to the hub at "host:port", in plain text; it connects when first used.

    `dedicated` gives the channel a connection of its own even when the process
    has others to the same hub: bulk streams must not share flow control.
    Raises InvalidArgument when `address` is not "host:port".
    """
    match = _ADDRESS.match(address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise InvalidArgument(f"hub address {address!r} is not of the form host:port")
    return grpc.insecure_channel(address, options=_options(dedicated))


def _options(dedicated: bool) -> list[tuple[str, int | str]]:
    return [
        # The thread that reads a stream of a dedicated channel receives its messages itself;
        # handing each over from another thread costs a tenth of a restore's time.
        (ChannelOptions.SingleThreadedUnaryStream, int(dedicated)),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # A peer that died without a word is noticed while a call is open.
        ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
        # This is what gRPC waits for a ping's answer, a minute otherwise.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 5000),
        # A proxy of the environment is meant for the internet, not for a hub.
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", int(dedicated)),
        ("grpc.service_config", _SERVICE_CONFIG),
    ]


def _service_config() -> str:
    names = [
        {"service": f"sendense.v1.{service}", "method": method}
        for service, methods in _REPEATABLE.items()
        for method in methods
    ]
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": retry}]})


_SERVICE_CONFIG: Final = _service_config()
