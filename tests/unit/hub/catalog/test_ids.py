import re
from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.catalog.ids import candidates, slug
from hub.catalog.models import ID_CHARS

AT = datetime(2025, 10, 8, 12, 5, 59, tzinfo=UTC)


@given(st.text())
@settings(deadline=None)
def test_slug_is_safe_for_any_name(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", slug(name)) or slug(name)[0] in "_"
    assert re.fullmatch(r"[a-z0-9._-]{1,64}", slug(name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pgtest1", "pgtest1"),
        ("PG Test/1", "pg-test-1"),
        ("Büro", "buro"),
        ("数据库", "vm"),
        ("../../etc", "etc"),
        ("", "vm"),
        ("db-disk-0", "db-disk-0"),
    ],
)
def test_slug_of_odd_names(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_ids_look_as_people_know_them() -> None:
    seconds = int(AT.timestamp())
    assert list(islice(candidates("backup", "pgtest1", AT), 3)) == [
        f"backup-pgtest1-{seconds}",
        f"backup-pgtest1-{seconds}-2",
        f"backup-pgtest1-{seconds}-3",
    ]


def test_id_of_the_longest_name_fits_its_column() -> None:
    assert all(len(i) <= ID_CHARS for i in islice(candidates("ctx-backup", "x" * 500, AT), 20))
