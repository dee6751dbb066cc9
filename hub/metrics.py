"""Numbers for Prometheus, in a registry of their own."""

import errno
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from shared.errors import ConfigurationError


class Metrics:
    """Counts what the hub does. Thread-safe."""

    def __init__(self) -> None:
        self._server: WSGIServer | None = None
        self.registry = CollectorRegistry()
        self.jobs_started = Counter(
            "sendense_hub_jobs_started", "Backup jobs started", registry=self.registry
        )
        self.jobs_ended = Counter(
            "sendense_hub_jobs_ended", "Backup jobs ended", ["status"], registry=self.registry
        )
        self.jobs_deleted = Counter(
            "sendense_hub_jobs_deleted", "Backup jobs deleted", registry=self.registry
        )
        self.removals_pending = Gauge(
            "sendense_hub_removals_pending",
            "Folders and files of deleted or unsuccessful jobs that are still to be removed",
            registry=self.registry,
        )
        self.bytes_received = Counter(
            "sendense_hub_upload_payload_bytes",
            "Cluster payload received from agents",
            registry=self.registry,
        )
        self.uploads_resumed = Counter(
            "sendense_hub_uploads_resumed",
            "Uploads of disks that went on after they had broken off",
            registry=self.registry,
        )
        self.bytes_resent = Counter(
            "sendense_hub_upload_payload_resent_bytes",
            "Cluster payload that agents sent again after an upload had broken off",
            registry=self.registry,
        )
        self.leases_over = Counter(
            "sendense_hub_job_leases_over",
            "Times that an agent told nothing of a job for longer than a lease",
            registry=self.registry,
        )
        self.bytes_restored = Counter(
            "sendense_hub_restore_payload_bytes",
            "Cluster payload sent to restores",
            registry=self.registry,
        )
        self.agents_connected = Gauge(
            "sendense_hub_agents_connected", "Agents with a session", registry=self.registry
        )

    def serve(self, host: str, port: int) -> None:
        """Answer scrapes over HTTP, until `stop`.

        Raises ConfigurationError when the address cannot be listened on.
        """
        try:
            self._server, _ = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            raise ConfigurationError(
                "metrics_listen",
                f"{host}:{port} is in use"
                if in_use
                else f"cannot listen on {host}:{port}: {error.strerror}",
            ) from error

    def stop(self) -> None:
        """End the answering, if it was begun. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
