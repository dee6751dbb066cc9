"""Many threads that write to one catalog."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select, update

from hub.catalog.engine import Catalog
from hub.catalog.models import BackupRepository
from hub.errors import CatalogUnavailable

WRITERS = 16
WRITES = 25
WAIT_S = 60


def add_one(catalog: Catalog) -> None:
    with catalog.write() as session:
        row = session.scalars(
            select(BackupRepository).where(BackupRepository.name == "default").with_for_update()
        ).one()
        row.path = str(int(row.path) + 1)


def test_no_write_of_many_threads_is_lost(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.execute(update(BackupRepository).values(path="0"))
    with ThreadPoolExecutor(WRITERS) as pool:
        writes = [pool.submit(add_one, catalog) for _ in range(WRITERS * WRITES)]
        for write in writes:
            write.result(WAIT_S)
    with catalog.read() as session:
        paths = {row.name: row.path for row in session.scalars(select(BackupRepository))}
    assert paths == {"default": str(WRITERS * WRITES), "other": "0"}


def test_failed_write_lets_the_next_one_in(catalog: Catalog) -> None:
    with catalog.write() as session:
        session.execute(update(BackupRepository).values(path="0"))
    with pytest.raises(RuntimeError), catalog.write() as session:
        session.execute(update(BackupRepository).values(path="9"))
        raise RuntimeError
    with ThreadPoolExecutor(1) as pool:
        pool.submit(add_one, catalog).result(WAIT_S)
    with catalog.read() as session:
        assert "9" not in session.scalars(select(BackupRepository.path)).all()


def test_write_that_waits_too_long_for_another_thread_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.catalog.engine.LOCK_TIMEOUT_S", 0.05)
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.upgrade()
    with (
        catalog.write(),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(CatalogUnavailable, match="another transaction does not end"),
    ):
        pool.submit(add_one, catalog).result(WAIT_S)
    with catalog.write() as session:
        assert session.scalars(select(BackupRepository)).all() == []
    catalog.close()
