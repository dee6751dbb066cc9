"""A server that refuses, is away, is too old, or speaks TLS: what the catalog says of it."""

import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from hub.catalog.change_schema import downgrade_catalog, upgrade_catalog
from hub.catalog.check import check_database, check_rows, check_schema
from hub.catalog.engine import Catalog
from hub.catalog.hub_lock import HubLock
from hub.catalog.server_check import version_problem
from hub.errors import CatalogUnavailable
from shared.errors import ConfigurationError, SendenseError
from tests.mariadb_server import MariadbServer, private_mariadb
from tests.unit.hub.catalog.tls_files import make_tls_files

SECRET = "p:ss/w@rd %s"
USER = "sendense"


@pytest.fixture
def database(mariadb: MariadbServer) -> Iterator[str]:
    """The name of an empty database, and a user with the documented rights on it alone."""
    with mariadb.database() as url:
        name = str(make_url(url).database)
        mariadb.run(f"CREATE USER '{USER}'@'localhost' IDENTIFIED BY %s", SECRET)
        granted = name.replace("_", "\\_")
        mariadb.run(f"GRANT ALL PRIVILEGES ON `{granted}`.* TO '{USER}'@'localhost'")
        try:
            yield name
        finally:
            mariadb.run(f"DROP USER '{USER}'@'localhost'")


@pytest.fixture
def opened() -> Iterator[Callable[..., Catalog]]:
    """Catalogs that are closed at the end."""
    made: list[Catalog] = []

    def make(url: str, **options: object) -> Catalog:
        made.append(Catalog(url, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for catalog in made:
        catalog.close()


def told(catalog: Catalog, refused: type[SendenseError] = CatalogUnavailable) -> str:
    """What the start of a hub says; neither it nor the traceback repeats the password."""
    with pytest.raises(refused) as caught:
        catalog.require_newest()
    everything = "".join(traceback.format_exception(caught.value)) + str(catalog) + repr(catalog)
    assert SECRET not in everything
    assert "p%3Ass" not in everything
    return str(caught.value)


@pytest.mark.mariadb
def test_rights_on_its_own_database_are_all_that_a_catalog_needs(
    mariadb: MariadbServer, database: str, opened: Callable[..., Catalog]
) -> None:
    catalog = opened(mariadb.url(database, user=USER), password=SECRET)
    assert upgrade_catalog(catalog, print)
    with HubLock(catalog):
        catalog.require_newest()
        assert check_schema(catalog) == check_database(catalog) == check_rows(catalog)[1] == []
    downgrade_catalog(catalog, "base", print)


@pytest.mark.mariadb
def test_mariadbs_own_scheme_means_the_same(
    mariadb: MariadbServer, database: str, opened: Callable[..., Catalog]
) -> None:
    url = mariadb.url(database, user=USER).replace("mysql+", "mariadb+")
    catalog = opened(url, password=SECRET)
    upgrade_catalog(catalog, print)
    assert check_schema(catalog) == []
    downgrade_catalog(catalog, "0001", print)
    upgrade_catalog(catalog, print)
    assert check_schema(opened(mariadb.url(database))) == []


@pytest.mark.mariadb
def test_password_of_its_own_goes_before_the_urls(
    mariadb: MariadbServer, database: str, opened: Callable[..., Catalog]
) -> None:
    for url_password, password in ((SECRET, None), ("wrong", SECRET), (None, SECRET)):
        url = mariadb.url(database, user=USER, password=url_password)
        opened(url, password=password).upgrade()


@pytest.mark.mariadb
def test_wrong_password_is_told_with_the_setting_to_look_at(
    mariadb: MariadbServer, database: str, opened: Callable[..., Catalog]
) -> None:
    said = told(opened(mariadb.url(database, user=USER), password=SECRET + "x"))
    assert f"refuses user '{USER}'" in said
    assert "catalog_password_file" in said
    assert "Access denied" in said


@pytest.mark.mariadb
def test_missing_database_is_told_with_the_statements_that_make_it(
    mariadb: MariadbServer, opened: Callable[..., Catalog]
) -> None:
    said = told(opened(mariadb.url("not_there")))
    assert "there is no such database" in said
    assert "CREATE DATABASE IF NOT EXISTS `not_there` CHARACTER SET utf8mb4" in said
    assert "GRANT ALL PRIVILEGES ON `not\\_there`.* TO 'root'@'HOST-OF-THE-HUB'" in said


@pytest.mark.mariadb
def test_missing_rights_are_told_with_the_statements_that_give_them(
    mariadb: MariadbServer, database: str, opened: Callable[..., Catalog]
) -> None:
    said = told(opened(mariadb.url("mysql", user=USER), password=SECRET))
    assert f"user '{USER}' lacks rights" in said
    assert "GRANT ALL PRIVILEGES ON `mysql`.*" in said
    mariadb.run(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM '{USER}'@'localhost'")
    mariadb.run(f"GRANT SELECT ON `{database}`.* TO '{USER}'@'localhost'")
    catalog = opened(mariadb.url(database, user=USER), password=SECRET)
    with pytest.raises(CatalogUnavailable, match=r"lacks rights.*CREATE command denied"):
        catalog.upgrade()


def test_server_that_does_not_run_is_told_with_its_address(
    opened: Callable[..., Catalog], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"mysql+pymysql://{USER}@127.0.0.1:{port}/sendense"
    said = told(opened(url, password=SECRET))
    assert f"the server cannot be reached (sendense on 127.0.0.1:{port}; " in said
    assert "Connection refused" in said
    url = f"mysql+pymysql://{USER}@localhost/sendense?unix_socket={tmp_path}/none"
    assert f"cannot be reached (sendense on {tmp_path}/none; " in told(opened(url))


def test_host_without_an_address_is_told(opened: Callable[..., Catalog]) -> None:
    said = told(opened(f"mysql+pymysql://{USER}@no-such-host.invalid/sendense"))
    assert "cannot be reached (sendense on no-such-host.invalid:3306; " in said


def test_server_that_says_nothing_is_not_waited_for_for_ever(
    opened: Callable[..., Catalog],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        catalog = opened(
            f"mysql+pymysql://{USER}@127.0.0.1:{port}/sendense",
            password=SECRET,
            statement_timeout_s=1,
        )
        assert "timed out" in told(catalog)


@pytest.mark.mariadb
def test_server_that_is_too_old_is_refused_with_what_is_needed(
    opened: Callable[..., Catalog],
) -> None:
    with private_mariadb("--version=10.4.30-MariaDB") as server, server.database() as url:
        said = told(opened(url), ConfigurationError)
        assert "MariaDB 10.4.30-MariaDB, which is too old: the catalog needs 10.5.0" in said
        with pytest.raises(ConfigurationError, match="too old"):
            opened(url).upgrade()
        assert opened(url).schema_state().tables == set()


@pytest.mark.mariadb
def test_server_without_innodb_is_refused(opened: Callable[..., Catalog]) -> None:
    with (
        private_mariadb("--innodb=OFF", "--default-storage-engine=Aria") as server,
        server.database() as url,
    ):
        assert "switch InnoDB on" in told(opened(url))


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        ("10.11.19-MariaDB-0+deb12u1", ""),
        ("5.5.5-10.5.1-MariaDB-log", ""),
        ("11.4.2-MariaDB", ""),
        ("8.0.16", ""),
        ("8.4.0-commercial", ""),
        ("10.4.99-MariaDB", "needs 10.5.0"),
        ("8.0.15", "MySQL 8.0.15, which is too old: the catalog needs 8.0.16"),
        ("5.7.44-log", "needs 8.0.16"),
        ("5.5.5-10.1.48-MariaDB", "needs 10.5.0"),
        ("", "not understood"),
        ("new", "not understood"),
    ],
)
def test_version_of_a_server_decides(version: str, problem: str) -> None:
    found = version_problem(version)
    assert problem in found
    assert bool(found) == bool(problem)


@pytest.mark.mariadb
def test_tls_is_used_and_the_servers_certificate_checked(
    opened: Callable[..., Catalog], tmp_path: Path
) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    ca, certificate, key = make_tls_files(tmp_path / "ours", "db.example")
    other_ca = make_tls_files(tmp_path / "theirs", "db.example")[0]
    with (
        private_mariadb(f"--ssl-cert={certificate}", f"--ssl-key={key}") as server,
        server.database() as url,
    ):
        database = str(make_url(url).database)

        def catalog(host: str, **parameters: str) -> Catalog:
            return opened(server.url(database, **parameters).replace("@localhost/", f"@{host}/"))

        sound = catalog("db.example", ssl_ca=str(ca))
        sound.upgrade()
        with sound.engine.connect() as connection:
            assert connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1]
        catalog("localhost", ssl_ca=str(ca), ssl_check_hostname="false").require_newest()
        assert "Hostname mismatch" in told(catalog("localhost", ssl_ca=str(ca)))
        assert "certificate verify failed" in told(catalog("db.example", ssl_ca=str(other_ca)))


@pytest.mark.mariadb
def test_server_without_tls_is_refused_when_tls_is_asked_for(
    mariadb: MariadbServer, database: str, opened: Callable[..., Catalog], tmp_path: Path
) -> None:
    assert mariadb.run("SELECT @@have_ssl") == (("DISABLED",),)
    ca = make_tls_files(tmp_path, "localhost")[0]
    url = mariadb.url(database, user=USER, ssl_ca=str(ca))
    assert "no TLS connection" in told(opened(url, password=SECRET))


def test_file_that_is_no_certificate_is_told(
    opened: Callable[..., Catalog], tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("not PEM")
    url = f"mysql+pymysql://{USER}@127.0.0.1/sendense?ssl_ca={tmp_path}/ca.pem"
    assert "no TLS connection" in told(opened(url, password=SECRET))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://u@h/d", "mysql is not supported, mysql+pymysql is"),
        ("mysql+mysqldb://u@h/d", "mysql+mysqldb is not supported"),
        ("sqlite+aiosqlite:///x", "sqlite+aiosqlite is not supported"),
        ("sqlite://", "names no SQLite file"),
        ("postgresql://u@h/d", "postgresql is no catalog database"),
        ("mysql+pymysql://h/d", "names no user"),
        ("mysql+pymysql://u@h", "names no database"),
        ("mysql+pymysql://u@h:x/d", "is not a database URL"),
        ("mysql+pymysql://u@h/d?password=x", "unknown parameter password"),
        ("mysql+pymysql://u@h/d?charset=latin1", "utf8mb4"),
        ("mysql+pymysql://u@h/d?charset=utf8mb4&charset=x", "twice"),
        ("mysql+pymysql://u@h/d?ssl_cert=/x", "ssl_cert without ssl_ca"),
        ("mysql+pymysql://u@h/d?ssl_ca=/no/such", "ssl_ca: there is no /no/such"),
        ("mysql+pymysql://u@h/d?ssl_capath=/no/such", "ssl_capath: there is no /no/such"),
        ("mysql+pymysql://u@h/d?ssl_capath=/&ssl_check_hostname=no", "must be true or false"),
    ],
)
def test_url_that_cannot_be_used_is_refused_before_anything_is_opened(
    url: str, problem: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Catalog(url)
    assert refused.value.source == "catalog_url"
    assert problem in str(refused.value)


def test_url_that_cannot_be_read_is_not_repeated() -> None:
    for url in (f"mysql+pymysql//{USER}:{SECRET}@h/d", f"mysql+pymysql://u:{SECRET}@h:port/d"):
        with pytest.raises(ConfigurationError) as refused:
            Catalog(url)
        assert SECRET not in str(refused.value)
