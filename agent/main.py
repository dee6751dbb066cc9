"""Wiring of the agent: which concrete thing goes where, and in what order it ends."""

import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import grpc
import structlog
from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception,
    stop_when_event_set,
    wait_exponential,
    wait_random,
)
from tenacity.nap import sleep_using_event

from agent.config import AgentSettings
from agent.hub_link import HubLink
from agent.inventory import InventoryReporter
from agent.job_runner import JobRunner
from agent.job_tools import JobTools
from agent.patience import Patience
from agent.pipeline import EncoderPool
from agent.sampling import SampleSettings
from agent.sweeper import Sweeper
from agent.vsphere.settings import VsphereSettings
from agent.vsphere.site import VsphereSite
from sendense.channel import open_channel
from sendense.v1 import agent_session_pb2, inventory_pb2
from shared.errors import SendenseError

# Consolidating a busy disk takes minutes; a service manager may be less patient.
CLEAN_UP_S: Final = 900.0
FAREWELL_S: Final = 5.0
THREAD_END_S: Final = 10.0

_log = structlog.get_logger(__name__)


def agent_version() -> str:
    """Version of the installed package."""
    try:
        return version("sendense-server")
    except PackageNotFoundError:
        return "unknown"


def run_agent(settings: AgentSettings, vsphere: VsphereSettings, stopping: threading.Event) -> bool:
    """Serve until `stopping` is set; then end the jobs and remove their snapshots.

    False when a snapshot of a job of this run is left behind, or its removal did not
    end in time. Raises what `connect_site` raises.
    """
    with ExitStack() as stack:
        site = connect_site(vsphere, stopping)
        if site is None:
            return True
        stack.callback(site.close)
        encoders = stack.enter_context(
            EncoderPool(settings.compress_threads, settings.compression_level)
        )
        runner = JobRunner(settings.jobs_in_parallel)
        stack.callback(runner.close, THREAD_END_S)
        sweeper = Sweeper(site, runner.alive_job_ids)
        stack.callback(sweeper.close, THREAD_END_S)
        inventory = InventoryReporter(site, interval_s=settings.inventory_interval_s)
        stack.callback(inventory.close, THREAD_END_S)

        # Streams that share a connection share its flow control.
        dial: Callable[[], grpc.Channel] = lambda: open_channel(  # noqa: E731
            settings.hub_address, dedicated=True
        )
        link = HubLink(
            settings.hub_address,
            dial,
            _register(settings, site),
            runner,
            JobTools(
                site=site,
                sweeper=sweeper,
                encoders=encoders,
                open_upload_channel=dial,
                disks_in_parallel=settings.disks_in_parallel,
                sampling=SampleSettings(
                    fraction=settings.sample_fraction, least=settings.sample_least
                ),
                patience=Patience(hub_s=settings.hub_wait_s),
            ),
            inventory,
        )
        thread = threading.Thread(target=link.run, name="hub-link", daemon=True)
        thread.start()
        while thread.is_alive() and not stopping.wait(1.0):
            pass
        _log.info("agent_stopping")
        clean = link.stop(CLEAN_UP_S, FAREWELL_S)
        thread.join(THREAD_END_S)
        clean = sweeper.close(THREAD_END_S) and clean
        _log.info("agent_stopped", snapshots_removed=clean)
        if not stopping.is_set():
            raise RuntimeError("the thread of the hub's session died; its traceback is in the log")
        return clean


def connect_site(vsphere: VsphereSettings, stopping: threading.Event) -> VsphereSite | None:
    """Log in, trying again while vSphere cannot be reached; None when told to stop meanwhile.

    Raises LoginFailed, CertificateMismatch and all else that trying again would
    not heal: repeating a wrong password locks the account.
    """
    attempts = Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, SendenseError) and error.retryable
        ),
        wait=wait_exponential(multiplier=1, max=60) + wait_random(0, 1),
        sleep=sleep_using_event(stopping),
        stop=stop_when_event_set(stopping),
        before_sleep=_log_first_failure,
    )
    try:
        site = attempts(VsphereSite.connect, vsphere)
    except RetryError:
        return None
    about = site.about()
    _log.info("vsphere_connected", address=about.address, vsphere=about.full_name)
    return site


def _log_first_failure(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        _log.warning(
            "vsphere_not_reached",
            error=str(state.outcome.exception()),
            next_step="trying again for as long as the agent runs",
        )


def _register(settings: AgentSettings, site: VsphereSite) -> agent_session_pb2.AgentRegister:
    about = site.about()
    return agent_session_pb2.AgentRegister(
        site=settings.site,
        hostname=socket.gethostname(),
        version=agent_version(),
        vsphere=inventory_pb2.VsphereEndpoint(
            address=about.address,
            full_name=about.full_name,
            api_type=about.api_type,
            api_version=about.api_version,
        ),
        run_id=uuid.uuid4().hex,
        keeps_jobs=True,
        jobs_in_parallel=settings.jobs_in_parallel,
    )
