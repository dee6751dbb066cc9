"""Settings: TOML, overridden by the environment, with errors that name the key."""

from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from shared.errors import ConfigurationError
from shared.settings import FileSettings, load_settings, warn_of_unknown_variables


class _Settings(FileSettings):
    model_config = SettingsConfigDict(env_prefix="SENDENSE_TEST_", extra="forbid")

    listen: str = "127.0.0.1:1"
    workers: int = 2


def test_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.toml"
    path.write_text('listen = "127.0.0.1:5"\nworkers = 3\n')
    monkeypatch.setenv("SENDENSE_TEST_WORKERS", "7")
    settings = load_settings(_Settings, path)
    assert (settings.listen, settings.workers) == ("127.0.0.1:5", 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("workers = 'many'", "workers: must be a whole number"),
        ("workers = 1.5", "workers: must be a whole number"),
        ("listen = 3", "listen: must be text in quotes"),
        ("wrokers = 3", "wrokers: unknown key"),
        ("workers = ", "TOML"),
        ("\x00", "TOML"),
    ],
)
def test_a_wrong_file_is_refused_naming_file_and_key(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_Settings, path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused_naming_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such configuration file"):
        load_settings(_Settings, tmp_path / "none.toml")


def test_a_wrong_variable_is_named_without_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.toml"
    path.write_text("")
    monkeypatch.setenv("SENDENSE_TEST_WORKERS", "secret")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(_Settings, path)
    assert "workers (set by SENDENSE_TEST_WORKERS): must be a whole number" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_variables_that_set_nothing_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENSE_TEST_WORKERS", "3")
    monkeypatch.setenv("SENDENSE_TEST_WROKERS", "3")
    monkeypatch.setenv("SENDENSE_TESTS", "3")
    assert warn_of_unknown_variables(_Settings) == ["SENDENSE_TEST_WROKERS"]
