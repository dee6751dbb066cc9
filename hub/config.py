"""The hub's settings: TOML file, overridden by SENDENSE_HUB_* of the environment."""

import ipaddress
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import structlog
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from hub.catalog.catalog_url import has_password
from hub.catalog.engine import Catalog
from hub.catalog.engines import STATEMENT_TIMEOUT_S
from hub.jobs.leases import LEASE_S
from shared.errors import ConfigurationError
from shared.settings import FileSettings, load_settings, source_name, warn_of_unknown_variables
from shared.snapshot_alarms import DEFAULT_AGE_ALARM_H, DEFAULT_COUNT_ALARM

CONFIG_NAME: Final = "hub.toml"
DEFAULT_LISTEN: Final = "127.0.0.1:8443"
PASSWORD_VARIABLE: Final = "SENDENSE_HUB_CATALOG_PASSWORD"
_log = structlog.get_logger(__name__)


class HubSettings(FileSettings):
    """What a hub needs to know."""

    model_config = SettingsConfigDict(env_prefix="SENDENSE_HUB_", extra="forbid")

    # host:port; port 0 takes any free one.
    listen: str = DEFAULT_LISTEN
    # SQLAlchemy URL of the catalog.
    catalog_url: str
    # File with the password alone; relative to the configuration's folder.
    catalog_password_file: Path | None = None
    # From the environment, or what stands in the file; never from the TOML file.
    catalog_password: SecretStr | None = None
    # Folder of the hub's own files.
    state_dir: Path
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # host:port of the Prometheus endpoint; empty: off.
    metrics_listen: str = ""
    # Of a protected VM: snapshots older than this, or more of them, are alarms.
    snapshot_age_alarm_h: Annotated[float, Field(gt=0)] = DEFAULT_AGE_ALARM_H
    snapshot_count_alarm: Annotated[int, Field(ge=0)] = DEFAULT_COUNT_ALARM
    # Jobs that run at a time, at most: in all, into one repository, from one datastore.
    jobs_in_parallel: Annotated[int, Field(ge=1)] = 32
    jobs_per_repository: Annotated[int, Field(ge=1)] = 16
    jobs_per_datastore: Annotated[int, Field(ge=1)] = 4
    # A job of which the agent tells nothing for so long is to be resumed.
    lease_s: Annotated[float, Field(gt=0)] = LEASE_S
    # For how long, after that, its agent is waited for.
    resume_wait_s: Annotated[float, Field(ge=0)] = 1800.0


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen; `host` is a loopback address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def load_hub_settings(path: Path | None) -> HubSettings:
    """Read and check the configuration, the catalog's password included.

    Raises ConfigurationError naming the file and the key; no message holds a password.
    """
    _refuse_password_in(path)
    settings = load_settings(HubSettings, path)
    try:
        loopback_address(settings.listen, key="listen")
        if settings.metrics_listen:
            loopback_address(settings.metrics_listen, key="metrics_listen")
        if settings.catalog_password is None and settings.catalog_password_file is not None:
            file = (path.parent if path is not None else Path()) / settings.catalog_password_file
            password = SecretStr(password_in(file, key="catalog_password_file"))
            settings = settings.model_copy(
                update={"catalog_password_file": file, "catalog_password": password}
            )
        catalog_of(settings).close()
    except ConfigurationError as error:
        raise ConfigurationError(source_name(path), str(error)) from error
    return settings


def catalog_of(settings: HubSettings, *, statement_timeout_s: int = STATEMENT_TIMEOUT_S) -> Catalog:
    """The catalog that loaded settings name, not opened yet. Raises ConfigurationError."""
    password = settings.catalog_password
    return Catalog(
        settings.catalog_url,
        password=None if password is None else password.get_secret_value(),
        statement_timeout_s=statement_timeout_s,
    )


def password_in(file: Path, *, key: str) -> str:
    """The password that is all of a file. Raises ConfigurationError naming `key`."""
    try:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigurationError(key, f"{file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(key, f"{file}: is no UTF-8 text") from None
    if not password:
        raise ConfigurationError(key, f"{file}: the password is empty")
    return password


def warn_of_configuration(settings: HubSettings) -> None:
    """Log what is usable but unwise, or without effect, in settings just loaded."""
    warn_of_unknown_variables(HubSettings)
    if has_password(settings.catalog_url):
        _log.warning(
            "password_in_catalog_url",
            problem="who can read the configuration can read it",
            next_step=f"take it out of catalog_url; name its file as catalog_password_file, "
            f"or set {PASSWORD_VARIABLE}",
        )
    file = settings.catalog_password_file
    if file is None:
        return
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return  # the password came from elsewhere, or was read a moment ago
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning(
            "password_file_readable_by_others",
            file=str(file),
            mode=f"{mode:04o}",
            next_step="chmod 600, as the user of the hub",
        )


def loopback_address(text: str, *, key: str) -> ListenAddress:
    """Parse `host:port` and refuse every host but this machine's loopback.

    Without identities and TLS, whoever reaches the port could read and start
    backups. Raises ConfigurationError naming `key`.
    """
    host, colon, port_text = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port_text.isdecimal() or int(port_text) > 65535:
        raise ConfigurationError(key, f"{text!r} is no host:port")
    if host == "localhost":
        host = "127.0.0.1"
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise ConfigurationError(key, f"{host!r} is no IP address") from error
    if not loopback:
        raise ConfigurationError(
            key,
            f"{host} is not a loopback address: the hub speaks plain text without "
            "authentication and listens on 127.0.0.1 only",
        )
    return ListenAddress(host, int(port_text))


def _refuse_password_in(path: Path | None) -> None:
    """Configuration files get copied, shown and committed; a password must not be in one."""
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return  # load_settings tells
    if "catalog_password" in values:
        raise ConfigurationError(
            str(path),
            "catalog_password: a password does not belong here; put it into a file that only "
            "the hub may read and name it as catalog_password_file, or set "
            f"{PASSWORD_VARIABLE}",
        )
