"""Settings from a TOML file, overridden by the environment."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from shared.errors import ConfigurationError

S = TypeVar("S", bound="FileSettings")


class FileSettings(BaseSettings):
    """Base of a program's settings: environment first, then the TOML file's values."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load_settings(kind: type[S], path: Path | None) -> S:
    """Read `path` (TOML; None: environment alone) into `kind`.

    Raises ConfigurationError naming the file and each key that is wrong.
    """
    values: dict[str, Any] = {}
    source = str(path) if path else "environment"
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigurationError(source, "no such configuration file") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(source, f"cannot be read as TOML: {error}") from error
    try:
        return kind(**values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors()
        )
        raise ConfigurationError(source, problems) from error
