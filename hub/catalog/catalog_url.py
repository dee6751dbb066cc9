"""The URL of the catalog's database: checked before anything is opened, shown without its password."""

from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from shared.errors import ConfigurationError

KEY: Final = "catalog_url"
_SERVERS: Final = ("mysql+pymysql", "mariadb+pymysql")
_FILES: Final = ("ssl_ca", "ssl_cert", "ssl_key")
_PARAMETERS: Final = (
    *("unix_socket", "charset", *_FILES),
    *("ssl_capath", "ssl_cipher", "ssl_check_hostname"),
)


def catalog_url(text: str, password: str | None = None) -> URL:
    """The URL that `text` is, with `password` instead of its own if there is one.

    Raises ConfigurationError; it never repeats the text, which may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # ValueError: of the port
        raise ConfigurationError(KEY, "is not a database URL") from error
    backend = url.get_backend_name()
    if backend == "sqlite":
        _check_file(url)
        return url
    if backend not in ("mysql", "mariadb"):
        raise ConfigurationError(
            KEY,
            f"{backend} is no catalog database; give sqlite:////PATH or mysql+pymysql://USER@HOST/DATABASE",
        )
    _check_server(url)
    return url if password is None else url.set(password=password)


def has_password(text: str) -> bool:
    """Whether a URL that `catalog_url` takes holds a password."""
    return bool(make_url(text).password)


def shown(url: URL) -> str:
    """Where the catalog is, for people: a file, or user, server and database."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    socket = url.query.get("unix_socket")
    server = str(socket) if socket else f"{url.host or 'localhost'}:{url.port or 3306}"
    return f"{url.database} on {server}"


def sqlite_url(path: Path) -> str:
    """The URL of a catalog in that file, whatever its name has in it.

    Raises ConfigurationError when no URL can say it.
    """
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    if make_url(url).database != str(path):
        raise ConfigurationError(KEY, f"no database URL can name {path}")
    return url


def _check_file(url: URL) -> None:
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise ConfigurationError(KEY, f"{url.drivername} is not supported, sqlite is")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(KEY, "names no SQLite file")


def _check_server(url: URL) -> None:
    if url.drivername not in _SERVERS:
        raise ConfigurationError(KEY, f"{url.drivername} is not supported, mysql+pymysql is")
    if not url.username:
        raise ConfigurationError(KEY, "names no user: mysql+pymysql://USER@HOST/DATABASE")
    if not url.database:
        raise ConfigurationError(KEY, "names no database: mysql+pymysql://USER@HOST/DATABASE")
    for name, value in url.query.items():
        if name not in _PARAMETERS:
            raise ConfigurationError(
                KEY, f"has the unknown parameter {name}; known are {', '.join(_PARAMETERS)}"
            )
        if not isinstance(value, str):
            raise ConfigurationError(KEY, f"has the parameter {name} twice")
    if url.query.get("charset", "utf8mb4") != "utf8mb4":
        raise ConfigurationError(KEY, "charset: the catalog's is utf8mb4")
    _check_tls(url)


def _check_tls(url: URL) -> None:
    """The driver would take files that are not there for defects, and TLS without a CA for safe."""
    named = [name for name in url.query if name.startswith("ssl_")]
    if named and not {"ssl_ca", "ssl_capath"} & set(named):
        raise ConfigurationError(
            KEY, f"has {named[0]} without ssl_ca: the server's certificate would not be checked"
        )
    for name in named:
        path = Path(str(url.query[name]))
        if (name in _FILES and not path.is_file()) or (name == "ssl_capath" and not path.is_dir()):
            raise ConfigurationError(KEY, f"{name}: there is no {path}")
    if url.query.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise ConfigurationError(KEY, "ssl_check_hostname: must be true or false")
