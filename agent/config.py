"""The agent's settings: a TOML file, overridden by SENDENSE_AGENT_* of the environment."""

import stat
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import SettingsConfigDict, SettingsError

from agent.patience import Patience
from agent.pipeline import DEFAULT_THREADS
from agent.vsphere.settings import (
    DEFAULT_NFC_BUFFERS_MIB,
    DEFAULT_NFC_CONNECTIONS,
    VsphereSettings,
)
from sendense.channel import open_channel
from sendense.codec import DEFAULT_LEVEL
from sendense.errors import InvalidArgument
from shared.errors import ConfigurationError
from shared.settings import (
    FileSettings,
    load_settings,
    source_name,
    warn_of_unknown_variables,
)
from shared.site_names import checked_site_name
from shared.snapshot_alarms import DEFAULT_AGE_ALARM_H, DEFAULT_COUNT_ALARM

DEFAULT_SAMPLE_FRACTION = 0.001
DEFAULT_SAMPLE_LEAST = 64

PASSWORD_VARIABLE = "SENDENSE_AGENT_VSPHERE__PASSWORD"

_log = structlog.get_logger(__name__)


Name = Annotated[str, AfterValidator(checked_site_name)]


class VsphereSection(BaseModel):
    """`[vsphere]`: where the site's vSphere is and whom to trust."""

    model_config = ConfigDict(extra="forbid")

    address: Annotated[str, Field(min_length=1)]
    user: Annotated[str, Field(min_length=1)]
    password_file: Path | None = None
    password: SecretStr | None = None  # from the environment alone
    certificate_sha256: str | None = None
    ca_file: Path | None = None
    transport: Literal["nbdssl", "nbd"] = "nbdssl"


class AgentSettings(FileSettings):
    """Everything the agent is told by its owner."""

    model_config = SettingsConfigDict(
        env_prefix="SENDENSE_AGENT_", env_nested_delimiter="__", extra="forbid"
    )

    site: Name
    hub_address: str
    vsphere: VsphereSection
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    jobs_in_parallel: Annotated[int, Field(ge=1, le=64)] = 2
    disks_in_parallel: Annotated[int, Field(ge=1, le=64)] = 2  # of one job
    compress_threads: Annotated[int, Field(ge=1, le=256)] = DEFAULT_THREADS
    compression_level: Annotated[int, Field(ge=1, le=19)] = DEFAULT_LEVEL
    # Without the hub, or while nothing more of a disk becomes durable there, a job goes on
    # or waits for so long; its snapshot stands, and grows, until then.
    hub_wait_s: Annotated[float, Field(gt=0)] = Patience.hub_s
    inventory_interval_s: Annotated[float, Field(gt=0)] = 60.0
    # Of the clusters that change tracking calls unchanged, read and compared at each increment:
    # before its upload begins, with what is drawn kept in memory.
    sample_fraction: Annotated[float, Field(ge=0, le=0.1)] = DEFAULT_SAMPLE_FRACTION
    sample_least: Annotated[int, Field(ge=1, le=1 << 20)] = DEFAULT_SAMPLE_LEAST
    # A VM's snapshots that are not the agent's: older, or more, than this is told at each job.
    snapshot_age_alarm_h: Annotated[float, Field(gt=0)] = DEFAULT_AGE_ALARM_H
    snapshot_count_alarm: Annotated[int, Field(ge=0)] = DEFAULT_COUNT_ALARM
    # Of one ESXi host, for all jobs together; vCenter documents 52 connections a host,
    # and a host has about 48 MiB of buffers for all its clients.
    nfc_connections_per_host: Annotated[int, Field(ge=1, le=52)] = DEFAULT_NFC_CONNECTIONS
    nfc_buffers_mib_per_host: Annotated[int, Field(ge=2, le=48)] = DEFAULT_NFC_BUFFERS_MIB


def load_config(path: Path | None) -> tuple[AgentSettings, VsphereSettings]:
    """Read and check the configuration, password included.

    Paths in it are relative to the file's folder. Raises ConfigurationError
    naming the file and the key; no message holds the password.
    """
    source = source_name(path)
    _refuse_password_in(path)
    try:
        settings = load_settings(AgentSettings, path)
    except SettingsError as error:
        # pydantic's cause would quote the variable's value.
        raise ConfigurationError(source, str(error)) from None
    try:
        open_channel(settings.hub_address).close()
    except InvalidArgument as error:
        raise ConfigurationError(source, f"hub_address: {error}") from error
    section = settings.vsphere
    folder = path.parent if path is not None else Path()
    vsphere = VsphereSettings(
        address=section.address,
        user=section.user,
        password=_password(section, folder, source),
        certificate_sha256=section.certificate_sha256,
        ca_file=folder / section.ca_file if section.ca_file is not None else None,
        transport=section.transport,
        site=settings.site,
        nfc_connections_per_host=settings.nfc_connections_per_host,
        nfc_buffers_mib_per_host=settings.nfc_buffers_mib_per_host,
        snapshot_age_alarm_h=settings.snapshot_age_alarm_h,
        snapshot_count_alarm=settings.snapshot_count_alarm,
    )
    try:
        vsphere.host_and_port()
        vsphere.pinned_fingerprint()
    except ConfigurationError as error:
        raise ConfigurationError(source, f"{error.source}: {error.problem}") from error
    if vsphere.ca_file is not None and not vsphere.ca_file.is_file():
        raise ConfigurationError(source, f"vsphere.ca_file: no such file: {vsphere.ca_file}")
    return settings, vsphere


def warn_of_configuration(settings: AgentSettings, path: Path | None) -> None:
    """Log what is usable but unwise, or without effect, in the configuration just loaded."""
    warn_of_unknown_variables(AgentSettings)
    section = settings.vsphere
    if section.password is not None or section.password_file is None:
        return
    file = (path.parent if path is not None else Path()) / section.password_file
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return  # it was there a moment ago; only its readers are asked for here
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning(
            "password_file_readable_by_others",
            file=str(file),
            mode=f"{mode:04o}",
            next_step="chmod 600, as the user of the agent",
        )


def _refuse_password_in(path: Path | None) -> None:
    """Configuration files get copied, shown and committed; a password must not be in one."""
    if path is None:
        return
    try:
        section = tomllib.loads(path.read_text(encoding="utf-8")).get("vsphere")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return  # load_settings tells
    if isinstance(section, dict) and "password" in section:
        raise ConfigurationError(
            str(path),
            "vsphere.password: a password does not belong here; put it into a file that only "
            f"the agent may read and name it as vsphere.password_file, or set {PASSWORD_VARIABLE}",
        )


def _password(section: VsphereSection, folder: Path, source: str) -> str:
    if section.password is not None:
        password = section.password.get_secret_value()
        where = PASSWORD_VARIABLE
    elif section.password_file is not None:
        path = folder / section.password_file
        where = f"vsphere.password_file: {path}"
        try:
            password = path.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigurationError(source, f"{where}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ConfigurationError(source, f"{where}: is no UTF-8 text") from None
    else:
        raise ConfigurationError(
            source, f"vsphere.password_file: missing; name a file or set {PASSWORD_VARIABLE}"
        )
    if not password:
        raise ConfigurationError(source, f"{where}: the password is empty")
    return password
