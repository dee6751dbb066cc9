"""Settings from a TOML file, overridden by the environment."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from shared.errors import ConfigurationError

S = TypeVar("S", bound="FileSettings")

# What is wrong with a value, by pydantic's name of it; its context fills the gaps.
_WORDS: Final[Mapping[str, str]] = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "literal_error": "must be {expected}",
    "string_type": "must be text in quotes",
    "path_type": "must be a path in quotes",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "has characters that are not allowed; it must match {pattern}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "model_type": "must be a section",
    "model_attributes_type": "must be a section",
}
_log = structlog.get_logger(__name__)


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

    Raises ConfigurationError naming the file and each key that is wrong, without
    repeating a value: it may be a secret.
    """
    values: dict[str, Any] = {}
    source = source_name(path)
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigurationError(source, "no such configuration file") from error
        except OSError as error:
            raise ConfigurationError(source, f"cannot be read: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(source, f"cannot be read as TOML: {error}") from error
    try:
        return kind(**values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        problems = "; ".join(f"{_place(kind, item)}: {_phrase(item)}" for item in details)
        if path is None:
            problems += "; give --config FILE, or set the variables"
        raise ConfigurationError(source, problems) from None


def source_name(path: Path | None) -> str:
    """What errors call the place of the settings."""
    return str(path) if path is not None else "environment"


def warn_of_unknown_variables(kind: type[FileSettings]) -> list[str]:
    """Log, and return, variables of the program's prefix that set nothing: misspelt, or obsolete."""
    prefix = kind.model_config.get("env_prefix") or ""
    delimiter = kind.model_config.get("env_nested_delimiter")
    unknown = []
    for variable in sorted(os.environ):
        if not variable.upper().startswith(prefix):
            continue
        key = variable[len(prefix) :].lower()
        if delimiter:
            key = key.split(delimiter)[0]
        if key not in kind.model_fields:
            unknown.append(variable)
            _log.warning("environment_variable_unknown", variable=variable, problem="sets nothing")
    return unknown


def _place(kind: type[FileSettings], item: ErrorDetails) -> str:
    """The key, and the variable that set it if it was the environment."""
    parts = [str(part) for part in item["loc"]]
    delimiter = kind.model_config.get("env_nested_delimiter") or "."
    variable = ((kind.model_config.get("env_prefix") or "") + delimiter.join(parts)).upper()
    is_set = any(name.upper() == variable for name in os.environ)
    return ".".join(parts) + (f" (set by {variable})" if is_set else "")


def _phrase(item: ErrorDetails) -> str:
    context = item.get("ctx", {})
    if item["type"] == "value_error":
        return str(context["error"])
    words = _WORDS.get(item["type"])
    return words.format(**context) if words is not None else item["msg"]
