"""What a MariaDB or MySQL server refused, in words that say what to do."""

from typing import Final

from sqlalchemy import URL

from hub.catalog.catalog_url import shown

_REFUSED: Final = {1045, 1698, 1251, 2059}  # password, plug-in of the server, of the driver
_NOT_GRANTED: Final = {1044, 1142, 1143, 1227}
_UNKNOWN_DATABASE: Final = 1049
_UNREACHABLE: Final = {2002, 2003}
_LOST: Final = {1053, 1152, 1927, 2006, 2013, 2055}
_BUSY: Final = {1040, 1203, 1226}
_READ_ONLY: Final = {1290, 1836}
_UNKNOWN_VARIABLE: Final = 1193
_TLS: Final = 2026
_BROKEN: Final = "; put back a copy of the catalog"
_SQLITE_NEXT: Final = {
    "file is not a database": "; name the catalog's file as catalog_url, or put back a copy of it",
    "database disk image is malformed": _BROKEN,
}


def in_words(error: BaseException | None, url: URL) -> str:
    """One sentence; the driver's own words stand in it, which hold no password."""
    number, message = _number_of(error), _message_of(error)
    if url.get_backend_name() == "sqlite":
        return f"{shown(url)}: {message}{_SQLITE_NEXT.get(message, '')}"
    place, user = shown(url), url.username
    said = f"({place}; {message})"
    if number in _REFUSED:
        return (
            f"the server refuses user {user!r}, check catalog_password_file or "
            f"SENDENSE_HUB_CATALOG_PASSWORD, and the user's host {said}"
        )
    if number == _UNKNOWN_DATABASE:
        return f"there is no such database as {place}; as its administrator run: {_made(url)}"
    if number in _NOT_GRANTED:
        return (
            f"user {user!r} lacks rights, or the database is not there; "
            f"as its administrator run: {_made(url)} {said}"
        )
    if number in _UNREACHABLE:
        return f"the server cannot be reached {said}"
    if number in _LOST:
        return f"the connection was lost {said}"
    if number in _BUSY:
        return f"the server takes no more connections, see max_connections {said}"
    if number in _READ_ONLY:
        return f"the server takes no changes, it may be a replica {said}"
    if number == _UNKNOWN_VARIABLE and "innodb" in message:
        return (
            f"the server runs without InnoDB, so without transactions and foreign keys; "
            f"switch InnoDB on {said}"
        )
    if number == _TLS:
        return f"there is no TLS connection {said}"
    return f"the server refuses {said}"


def _number_of(error: BaseException | None) -> int | None:
    number = error.args[0] if error is not None and error.args else None
    return number if isinstance(number, int) else None


def _message_of(error: BaseException | None) -> str:
    if error is None:
        return "no reason was given"
    number = _number_of(error)
    if number is None or len(error.args) < 2:
        return str(error)
    return f"{error.args[1]} ({number})"


def _made(url: URL) -> str:
    # Of a GRANT's database name, "_" and "%" are patterns.
    name = str(url.database).replace("`", "``")
    granted = name.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
    account = f"'{url.username}'@'HOST-OF-THE-HUB'"
    return (
        f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin; "
        f"GRANT ALL PRIVILEGES ON `{granted}`.* TO {account};"
    )
