"""The list of vcsim's differences names tests that exist."""

from pathlib import Path

import pytest

from tests.contracts.vsphere.differences import DIFFERENCES

pytestmark = pytest.mark.hostile


@pytest.mark.parametrize("name", [one.test for one in DIFFERENCES])
def test_difference_is_that_of_a_test(name: str) -> None:
    function = name.partition("[")[0]
    sources = Path(__file__).parent.glob("test_*.py")
    assert any(f"def {function}(" in source.read_text() for source in sources)
