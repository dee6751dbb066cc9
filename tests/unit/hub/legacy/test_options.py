"""Options of the command that cannot be taken as they are."""

import pytest

from hub.import_legacy_command import (
    _checked_site,
    _instance_uuids,
    _pairs,
    _require_known_site,
)
from hub.legacy.known import KnownCatalog, KnownContext, KnownSite
from shared.errors import ConfigurationError

UUID = "5020B2C4-0c3e-4f6a-9d1b-7e8f90a1b2c3"


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert _pairs(["a=/x=y", "b=n"], "--repository") == {"a": "/x=y", "b": "n"}
    assert _pairs(["a=1", "a=1"], "--vm") == {"a": "1"}


@pytest.mark.parametrize("texts", [["nonsense"], ["=x"], ["x="], ["a=1", "a=2"]], ids=repr)
def test_what_is_no_pair_or_given_twice_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="--vm"):
        _pairs(texts, "--vm")


@pytest.mark.parametrize(
    "text", ["notauuid", UUID.replace("-", ""), f"{{{UUID}}}", f"{UUID}0", "ü"]
)
def test_what_is_no_instance_uuid_is_refused(text: str) -> None:
    assert _instance_uuids([f"a={UUID}"]) == {"a": UUID}
    with pytest.raises(ConfigurationError, match=r"--vm: .*for 'b', is no instance uuid like"):
        _instance_uuids([f"a={UUID}", f"b={text}"])


@pytest.mark.parametrize("site", ["\n", "x" * 65, "two words", "-lab", "lab\n", "s/1", "süd"])
def test_site_that_no_agent_could_have_is_refused(site: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--site: .*must be 1 to 64 letters"):
        _checked_site(site)


@pytest.mark.parametrize("site", ["", "lab", "Lab_2.b-c", "x" * 64])
def test_site_that_an_agent_could_have_is_taken(site: str) -> None:
    assert _checked_site(site) == site


def test_site_without_agent_and_backups_is_refused_with_those_known() -> None:
    context = KnownContext("ctx-1", "dr", "uuid-1", "repo-1", "web", "vm-1")
    known = KnownCatalog([], [KnownSite("lab", "vcenter.example")], {"ctx-1": context}, {})
    for site in ("", "lab", "dr"):
        _require_known_site(known, site)
    with pytest.raises(ConfigurationError, match=r"'labb' has registered \(known are dr, lab\)"):
        _require_known_site(known, "labb")
    with pytest.raises(ConfigurationError, match=r"none is known yet\): .*--new-site"):
        _require_known_site(KnownCatalog([], [], {}, {}), "lab")
