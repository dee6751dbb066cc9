"""One hub a catalog, also when connections are lost and servers restart."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError, ResourceClosedError
from structlog.testing import capture_logs
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from hub.catalog import hub_lock
from hub.catalog.engine import Catalog
from hub.catalog.hub_lock import CatalogTaken, HubLock
from hub.errors import CatalogUnavailable
from tests.mariadb_server import MariadbServer
from tests.unit.hub.catalog.engines import on_mariadb, on_sqlite

WAIT_S = 30
WAITING = "SELECT id FROM information_schema.processlist WHERE state = 'User lock'"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A lock that somebody holds is not waited for."""
    monkeypatch.setattr(hub_lock, "WAIT_S", 0)
    return


@pytest.fixture
def catalog(empty_catalog: Callable[[], Catalog]) -> Catalog:
    """Without a schema: the lock needs none."""
    return empty_catalog()


def until(true: Callable[[], object]) -> None:
    Retrying(
        retry=retry_if_result(lambda found: not found),
        stop=stop_after_delay(WAIT_S),
        wait=wait_fixed(0.02),
    )(true)


def test_second_hub_is_refused_until_the_first_one_has_ended(
    catalog: Catalog, at_once: None
) -> None:
    again = Catalog(catalog.url.render_as_string(hide_password=False))
    with HubLock(catalog):
        for _ in range(2):
            with pytest.raises(CatalogTaken, match="another sendense-hub") as refused:
                HubLock(again).__enter__()
            assert str(catalog) in str(refused.value)
        assert HubLock(again).is_held_elsewhere()
        # Asking has taken nothing.
        with pytest.raises(CatalogTaken), HubLock(again):
            pass
    assert not HubLock(catalog).is_held_elsewhere()
    with HubLock(again) as lock:
        assert lock.taken is None
    again.close()


def test_hub_waits_a_moment_for_one_that_is_ending(catalog: Catalog) -> None:
    leaving = threading.Event()
    held = threading.Event()

    def first() -> None:
        with HubLock(catalog):
            held.set()
            leaving.wait(WAIT_S)

    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(first)
        assert held.wait(WAIT_S)
        threading.Timer(0.3, leaving.set).start()
        with HubLock(catalog):
            ended.result(WAIT_S)


def test_other_catalogs_have_other_locks(empty_catalog: Callable[[], Catalog]) -> None:
    with HubLock(empty_catalog()), HubLock(empty_catalog()) as second:
        assert second.taken is None


@on_sqlite
def test_file_has_one_lock_whichever_path_leads_to_it(
    catalog: Catalog, tmp_path: Path, at_once: None
) -> None:
    (tmp_path / "link").symlink_to(catalog.file)
    (tmp_path / "folder").symlink_to(tmp_path)
    with HubLock(catalog):
        for other in (tmp_path / "link", tmp_path / "folder" / catalog.file.name):
            with pytest.raises(CatalogTaken), HubLock(Catalog(f"sqlite:///{other}")):
                pass


@on_sqlite
def test_folder_that_is_not_there_is_an_unusable_catalog(catalog: Catalog, tmp_path: Path) -> None:
    missing = Catalog(f"sqlite:///{tmp_path}/none/catalog.db")
    with pytest.raises(CatalogUnavailable, match="No such file"), HubLock(missing):
        pass


@on_mariadb
def test_lock_is_taken_again_when_its_connection_was_killed(
    catalog: Catalog, mariadb: MariadbServer
) -> None:
    with HubLock(catalog, check_interval_s=0.05) as lock:
        before = holder(mariadb, catalog)
        mariadb.run("KILL CONNECTION %s", before)
        until(lambda: holder(mariadb, catalog) not in (None, before))
        assert lock.taken is None
    until(lambda: holder(mariadb, catalog) is None)


@on_mariadb
def test_lock_is_taken_again_when_the_server_crashed_and_came_back(
    catalog: Catalog, mariadb: MariadbServer
) -> None:
    with HubLock(catalog, check_interval_s=0.05) as lock:
        mariadb.kill()
        mariadb.start()
        until(lambda: holder(mariadb, catalog))
        assert lock.taken is None


@on_mariadb
def test_hub_whose_catalog_another_one_took_meanwhile_is_told(
    catalog: Catalog, mariadb: MariadbServer
) -> None:
    told = threading.Event()
    other = HubLock(Catalog(catalog.url.render_as_string(hide_password=False)))
    with (
        HubLock(catalog, told.set, check_interval_s=0.05) as lock,
        ThreadPoolExecutor(1) as pool,
    ):
        before = holder(mariadb, catalog)
        waiting = pool.submit(other.__enter__)
        # The one that waits is given it at once, before its owner comes again.
        until(lambda: mariadb.run(WAITING))
        mariadb.run("KILL CONNECTION %s", before)
        waiting.result(WAIT_S)
        try:
            assert told.wait(WAIT_S)
            assert lock.taken is not None
            assert "another sendense-hub" in str(lock.taken)
            assert holder(mariadb, catalog) not in (None, before)
        finally:
            other.__exit__(None, None, None)


def test_hub_that_cannot_know_whose_the_catalog_is_is_told(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()

    def keep(lock: object) -> None:
        raise LookupError("no such thing")

    for kind in (hub_lock._FileLock, hub_lock._ServerLock):
        monkeypatch.setattr(kind, "keep", keep)
    with capture_logs() as logs, HubLock(catalog, told.set, check_interval_s=0.05) as lock:
        assert told.wait(WAIT_S)
        assert lock.taken is not None
        assert "cannot be found out: no such thing" in str(lock.taken)
    assert [line["event"] for line in logs] == ["catalog_lock_unknown"]
    assert not HubLock(catalog).is_held_elsewhere()


@on_mariadb
@pytest.mark.parametrize(
    "error", [ProgrammingError("SELECT", {}, Exception()), ResourceClosedError()]
)
def test_lock_is_taken_again_after_an_error_of_its_connection_that_nobody_foresaw(
    catalog: Catalog, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real, armed, raised = hub_lock._ServerLock._is_held, threading.Event(), threading.Event()

    def is_held(lock: hub_lock._ServerLock, connection: Connection) -> bool:
        if armed.is_set() and not raised.is_set():
            raised.set()
            raise error
        return real(lock, connection)

    monkeypatch.setattr(hub_lock._ServerLock, "_is_held", is_held)
    with HubLock(catalog, check_interval_s=0.05) as lock:
        before = holder(mariadb, catalog)
        armed.set()
        assert raised.wait(WAIT_S)
        until(lambda: holder(mariadb, catalog) not in (None, before))
        assert lock.taken is None


@on_mariadb
def test_connection_that_the_network_lost_does_not_keep_its_own_hub_out(
    catalog: Catalog, mariadb: MariadbServer, at_once: None
) -> None:
    lock = hub_lock._ServerLock(catalog)
    lock.acquire()
    ghost = lock._connection
    before = holder(mariadb, catalog)
    lock._connection = None  # for this side it is gone; the server knows nothing of it
    try:
        until(lambda: _kept(lock))
        assert holder(mariadb, catalog) not in (None, before)
    finally:
        lock.release()
        assert ghost is not None
        ghost.invalidate()
        ghost.close()


@on_mariadb
def test_server_that_is_away_is_an_unusable_catalog(
    catalog: Catalog, mariadb: MariadbServer
) -> None:
    mariadb.stop()
    try:
        with pytest.raises(CatalogUnavailable, match="cannot be reached"), HubLock(catalog):
            pass
        with pytest.raises(CatalogUnavailable, match="cannot be reached"):
            HubLock(catalog).is_held_elsewhere()
    finally:
        mariadb.start()


def holder(server: MariadbServer, catalog: Catalog) -> int | None:
    """The connection that has the catalog's lock, as the server says."""
    with catalog.engine.connect() as connection:
        name = hub_lock._lock_name(connection)
    found = server.run("SELECT IS_USED_LOCK(%s)", name)[0][0]
    return None if found is None else int(found)


def _kept(lock: hub_lock._ServerLock) -> bool:
    """The killed connection gives its lock back a moment after."""
    try:
        lock.keep()
    except CatalogTaken:
        return False
    return True
