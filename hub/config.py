"""The hub's settings: TOML file, overridden by SENDENSE_HUB_* of the environment."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic_settings import SettingsConfigDict

from shared.errors import ConfigurationError
from shared.settings import FileSettings, load_settings, source_name

CONFIG_NAME: Final = "hub.toml"
DEFAULT_LISTEN: Final = "127.0.0.1:8443"


class HubSettings(FileSettings):
    """What a hub needs to know."""

    model_config = SettingsConfigDict(env_prefix="SENDENSE_HUB_", extra="forbid")

    # host:port; port 0 takes any free one.
    listen: str = DEFAULT_LISTEN
    # SQLAlchemy URL of the catalog.
    catalog_url: str
    # Folder of the hub's own files.
    state_dir: Path
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # host:port of the Prometheus endpoint; empty: off.
    metrics_listen: str = ""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen; `host` is a loopback address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def load_hub_settings(path: Path | None) -> HubSettings:
    """Read and check the configuration. Raises ConfigurationError naming the file and the key."""
    settings = load_settings(HubSettings, path)
    try:
        loopback_address(settings.listen, key="listen")
        if settings.metrics_listen:
            loopback_address(settings.metrics_listen, key="metrics_listen")
    except ConfigurationError as error:
        raise ConfigurationError(source_name(path), str(error)) from error
    return settings


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
