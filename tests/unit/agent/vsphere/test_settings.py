import pytest

from agent.vsphere.settings import VsphereSettings
from shared.errors import ConfigurationError


def settings(address: str = "esx", fingerprint: str | None = None) -> VsphereSettings:
    return VsphereSettings(
        address=address,
        user="root",
        password="hunter2",
        certificate_sha256=fingerprint,
        ca_file=None,
        transport="nbdssl",
        site="paris",
    )


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("esx-1.example", ("esx-1.example", 443)),
        ("127.0.0.2:8989", ("127.0.0.2", 8989)),
        ("[2001:db8::1]:444", ("2001:db8::1", 444)),
        ("[2001:db8::1]", ("2001:db8::1", 443)),
        ("2001:db8::1", ("2001:db8::1", 443)),
    ],
)
def test_address_is_split(address: str, expected: tuple[str, int]) -> None:
    assert settings(address).host_and_port() == expected


@pytest.mark.parametrize("address", ["", ":443", "esx:0", "esx:70000", "esx:x", "https://esx"])
def test_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"vsphere\.address"):
        settings(address).host_and_port()


def test_fingerprint_is_normalised() -> None:
    assert settings(fingerprint=":".join(["AB"] * 32)).pinned_fingerprint() == "ab" * 32
    assert settings(fingerprint="").pinned_fingerprint() is None


@pytest.mark.parametrize("fingerprint", ["ab" * 20, "zz" * 32, "ab"])
def test_fingerprint_that_is_none_is_refused(fingerprint: str) -> None:
    with pytest.raises(ConfigurationError, match="certificate_sha256"):
        settings(fingerprint=fingerprint).pinned_fingerprint()


def test_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(settings())
