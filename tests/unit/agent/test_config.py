from pathlib import Path

import pytest

from agent.config import load_config
from shared.errors import ConfigurationError

SECRET = "correct horse"
MINIMAL = """
site = "paris"
hub_address = "127.0.0.1:8443"
[vsphere]
address = "esxi.example:443"
user = "root"
password_file = "password"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "password").write_text(SECRET + "\n")
    path = tmp_path / "agent.toml"
    path.write_text(MINIMAL)
    return path


def test_minimal_configuration_has_defaults_and_reads_the_password_beside_it(config: Path) -> None:
    settings, vsphere = load_config(config)
    assert (settings.site, settings.hub_address) == ("paris", "127.0.0.1:8443")
    assert (settings.jobs_in_parallel, settings.disks_in_parallel) == (2, 2)
    assert settings.compress_threads >= 1
    assert (settings.sample_fraction, settings.sample_least) == (0.001, 64)
    assert (vsphere.password, vsphere.site, vsphere.transport) == (SECRET, "paris", "nbdssl")
    assert SECRET not in repr(vsphere) + repr(settings)
    assert (vsphere.nfc_connections_per_host, vsphere.nfc_buffers_mib_per_host) == (8, 32)
    assert (vsphere.snapshot_age_alarm_h, vsphere.snapshot_count_alarm) == (72, 3)


def test_budget_and_alarms_of_the_file_reach_the_site(config: Path) -> None:
    keys = {
        "nfc_connections_per_host": 3,
        "nfc_buffers_mib_per_host": 12,
        "snapshot_age_alarm_h": 1.5,
        "snapshot_count_alarm": 0,
        "sample_fraction": 0.1,
        "sample_least": 7,
    }
    config.write_text("".join(f"{key} = {value}\n" for key, value in keys.items()) + MINIMAL)
    settings, vsphere = load_config(config)
    assert {key: getattr(settings, key) for key in keys} == keys
    of_site = {key: value for key, value in keys.items() if not key.startswith("sample")}
    assert {key: getattr(vsphere, key) for key in of_site} == of_site


def test_environment_overrides_the_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENDENSE_AGENT_SITE", "rome")
    monkeypatch.setenv("SENDENSE_AGENT_VSPHERE__TRANSPORT", "nbd")
    monkeypatch.setenv("SENDENSE_AGENT_VSPHERE__PASSWORD", "from the environment")
    settings, vsphere = load_config(config)
    assert settings.site == "rome"
    assert (vsphere.transport, vsphere.address) == ("nbd", "esxi.example:443")
    assert vsphere.password == "from the environment"
    assert "from the environment" not in repr(settings)


def test_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SITE": "rome",
        "HUB_ADDRESS": "hub:8443",
        "VSPHERE__ADDRESS": "esxi",
        "VSPHERE__USER": "root",
        "VSPHERE__PASSWORD": SECRET,
    }.items():
        monkeypatch.setenv(f"SENDENSE_AGENT_{name}", value)
    settings, vsphere = load_config(None)
    assert (settings.site, vsphere.password) == ("rome", SECRET)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("user =", "usr ="), "vsphere.usr: unknown key"),
        (("user =", "usr ="), "vsphere.user: is missing"),
        (('site = "paris"', 'site = "paris"\nquicker = true'), "quicker: unknown key"),
        (('site = "paris"', 'site = "a b"'), "site: must be 1 to 64 letters, digits"),
        (('site = "paris"\n', ""), "site: is missing"),
        (('"root"', '""'), "vsphere.user: must not be empty"),
        (("8443", "port"), "hub_address"),
        (
            ('site = "paris"', 'site = "paris"\njobs_in_parallel = 0'),
            "jobs_in_parallel: must be 1 or more",
        ),
        (
            ('site = "paris"', 'site = "paris"\nnfc_buffers_mib_per_host = 1'),
            "nfc_buffers_mib_per_host: must be 2 or more",
        ),
        (
            ('site = "paris"', 'site = "paris"\nnfc_connections_per_host = 0'),
            "nfc_connections_per_host: must be 1 or more",
        ),
        (
            ('site = "paris"', 'site = "paris"\nsample_fraction = 0.11'),
            "sample_fraction: must be 0.1 or less",
        ),
        (('site = "paris"', 'site = "paris"\nsample_least = 0'), "sample_least: must be"),
        (('site = "paris"', 'site = "paris"\nlog_level = "loud"'), "log_level: must be 'debug'"),
        (('"password"', '"elsewhere"'), "vsphere.password_file"),
        (('password_file = "password"', ""), "vsphere.password_file"),
        (('user = "root"', 'user = "root"\ncertificate_sha256 = "12"'), "certificate_sha256"),
        (('user = "root"', 'user = "root"\nca_file = "none.pem"'), "vsphere.ca_file"),
        (('user = "root"', 'user = "root"\ntransport = "hotadd"'), "vsphere.transport"),
        (("esxi.example:443", "esxi.example:0"), "vsphere.address"),
        (("[vsphere]", "[vsphere"), "TOML"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_key_is_named_with_its_file(config: Path, change: tuple[str, str], told: str) -> None:
    assert change[0] in MINIMAL
    config.write_text(MINIMAL.replace(*change))
    with pytest.raises(ConfigurationError) as caught:
        load_config(config)
    assert str(config) in str(caught.value)
    assert told in str(caught.value)


def test_password_in_the_file_is_refused_without_repeating_it(config: Path) -> None:
    config.write_text(MINIMAL + f'password = "{SECRET}"\n')
    with pytest.raises(ConfigurationError, match="password_file") as caught:
        load_config(config)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_unusable_password_file_is_refused(config: Path, content: bytes) -> None:
    (config.parent / "password").write_bytes(content)
    with pytest.raises(ConfigurationError, match="password"):
        load_config(config)


def test_broken_variable_is_refused_without_its_value(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENDENSE_AGENT_VSPHERE", f"{{password: {SECRET}")
    with pytest.raises(ConfigurationError, match="vsphere") as caught:
        load_config(config)
    assert SECRET not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"agent\.toml"):
        load_config(tmp_path / "agent.toml")
