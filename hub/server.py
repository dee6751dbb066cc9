"""The gRPC server: services, options, and the one place that adds the port."""

import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hub.config import ListenAddress
from hub.jobs.parts import Parts
from hub.jobs.sessions import HEARTBEAT_INTERVAL_S
from hub.services.backup_service import BackupService
from hub.services.context_service import ContextService, DiskService
from hub.services.hub_service import HubService
from hub.services.inventory_service import AgentService, InventoryService
from hub.services.repository_service import RepositoryService
from hub.services.restore_service import RestoreService
from hub.services.rule_interceptor import RuleInterceptor
from hub.services.session_service import AgentSessionService
from hub.services.statistics_service import StatisticsService
from hub.services.stream_slots import POOL_THREADS, StreamSlots
from hub.services.upload_service import UploadService
from sendense.v1 import (
    agent_session_pb2,
    agent_session_pb2_grpc,
    backup_pb2,
    backup_pb2_grpc,
    context_pb2,
    context_pb2_grpc,
    hub_pb2,
    hub_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    repository_pb2,
    repository_pb2_grpc,
    restore_pb2,
    restore_pb2_grpc,
    statistics_pb2,
    statistics_pb2_grpc,
    upload_pb2,
    upload_pb2_grpc,
)
from shared.errors import ConfigurationError

MAX_MESSAGE_BYTES: Final = 8 << 20
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Two hubs on one port would share its connections.
    ("grpc.so_reuseport", 0),
    # Peers behind NAT that vanish without a word are noticed within 30 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # This is what gRPC waits for a ping's answer, a minute otherwise.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Peers may do the same.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)
SERVICES: Final = tuple(
    service.full_name
    for file in (
        agent_session_pb2,
        backup_pb2,
        context_pb2,
        hub_pb2,
        inventory_pb2,
        repository_pb2,
        restore_pb2,
        statistics_pb2,
        upload_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
)


class HubServer:
    """Serves the parts over gRPC between `start` and `stop`."""

    def __init__(self, parts: Parts, *, heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S) -> None:
        self._pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="rpc")
        self._server = grpc.server(self._pool, interceptors=[RuleInterceptor()], options=OPTIONS)
        self._health = health.HealthServicer()
        slots = StreamSlots()
        server = self._server
        agent_session_pb2_grpc.add_AgentSessionServiceServicer_to_server(
            AgentSessionService(parts, slots, heartbeat_interval_s), server
        )
        backup_pb2_grpc.add_BackupServiceServicer_to_server(BackupService(parts, slots), server)
        context_pb2_grpc.add_ContextServiceServicer_to_server(ContextService(parts), server)
        context_pb2_grpc.add_DiskServiceServicer_to_server(DiskService(parts), server)
        hub_pb2_grpc.add_HubServiceServicer_to_server(HubService(parts), server)
        inventory_pb2_grpc.add_AgentServiceServicer_to_server(AgentService(parts), server)
        inventory_pb2_grpc.add_InventoryServiceServicer_to_server(InventoryService(parts), server)
        repository_pb2_grpc.add_RepositoryServiceServicer_to_server(
            RepositoryService(parts), server
        )
        restore_pb2_grpc.add_RestoreServiceServicer_to_server(RestoreService(parts, slots), server)
        statistics_pb2_grpc.add_StatisticsServiceServicer_to_server(
            StatisticsService(parts), server
        )
        upload_pb2_grpc.add_UploadServiceServicer_to_server(UploadService(parts, slots), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )

    def start(self, listen: ListenAddress) -> ListenAddress:
        """Listen and serve; the port is the real one in the answer. Raises ConfigurationError."""
        bound = ListenAddress(listen.host, _add_port(self._server, listen))
        self._server.start()
        for service in ("", *SERVICES):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return bound

    def refuse(self) -> None:
        """Tell health checks that the end is near."""
        self._health.enter_graceful_shutdown()

    def stop(self, grace_s: float) -> None:
        """Take no more calls; break off what has not ended in time."""
        self._server.stop(grace_s).wait(grace_s + 2)
        # Threads of broken-off calls end by themselves; nobody waits for them.
        self._pool.shutdown(wait=False, cancel_futures=True)


def _require_free(listen: ListenAddress) -> None:
    """Raises ConfigurationError. gRPC would tell the reason to standard error, in lines of its own."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As gRPC does: connections of a hub that has ended do not hold its port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listen.host, listen.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError("listen", f"{listen} is in use") from error
        raise ConfigurationError(
            "listen", f"cannot listen on {listen}: {error.strerror}"
        ) from error


def _add_port(server: grpc.Server, listen: ListenAddress) -> int:
    """The port the server listens on. Credentials, once there are any, belong here alone."""
    _require_free(listen)
    try:
        port = server.add_insecure_port(str(listen))
    except RuntimeError as error:
        raise ConfigurationError("listen", f"cannot listen on {listen}: {error}") from error
    if port == 0:
        raise ConfigurationError("listen", f"cannot listen on {listen}")
    return port
