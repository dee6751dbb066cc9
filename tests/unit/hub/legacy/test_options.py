"""Options of the command that cannot be taken as they are."""

import pytest

from hub.import_legacy_command import _checked_site, _pairs
from shared.errors import ConfigurationError


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert _pairs(["a=/x=y", "b=n"], "--repository") == {"a": "/x=y", "b": "n"}
    assert _pairs(["a=1", "a=1"], "--vm") == {"a": "1"}


@pytest.mark.parametrize("texts", [["nonsense"], ["=x"], ["x="], ["a=1", "a=2"]], ids=repr)
def test_what_is_no_pair_or_given_twice_is_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="--vm"):
        _pairs(texts, "--vm")


@pytest.mark.parametrize("site", ["\n", "x" * 129])
def test_site_that_could_not_be_kept_is_refused(site: str) -> None:
    with pytest.raises(ConfigurationError, match="--site"):
        _checked_site(site)
