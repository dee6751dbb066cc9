"""`sendense-hub`: init, serve, db.

Exit codes: 0 stopped as told (or all well), 1 a defect, the catalog or a
repository cannot be used, the catalog was taken by another hub, or db check has
findings, 2 command line, configuration, a port or a catalog in use, or a schema
that is not this program's.
"""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from hub.catalog.catalog_url import has_password
from hub.catalog.change_schema import upgrade_catalog
from hub.catalog.engine import MAINTENANCE_STATEMENT_S, Catalog, sqlite_url
from hub.catalog.models import BackupRepository
from hub.catalog.repositories import all_repositories
from hub.cli_options import HELP_NAMES, ConfigOption
from hub.config import (
    CONFIG_NAME,
    HubSettings,
    catalog_of,
    load_hub_settings,
    loopback_address,
    password_in,
    warn_of_configuration,
)
from hub.db_commands import db
from hub.import_legacy_command import EXIT_CODES as IMPORT_EXIT_CODES
from hub.import_legacy_command import import_legacy
from hub.jobs.parts import Parts
from hub.jobs.repositories import create_repository
from hub.main import leave
from hub.main import serve as serve_hub
from shared.errors import ConfigurationError, SendenseError
from shared.logs import configure_logging

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_INTERRUPTED = 130
EXIT_CODES = (
    "Exit codes: 0 all well; 1 a defect, the catalog or a repository cannot be used, another "
    "hub took the catalog, or db check has findings; 2 command line or configuration cannot "
    "be used, a port or the catalog is in use, or the schema is not this program's."
)

app = typer.Typer(
    name="sendense-hub",
    help="The hub of Sendense: catalog and repository of VM backups.",
    epilog=EXIT_CODES,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=HELP_NAMES,
)
app.add_typer(db, name="db")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sendense-hub {installed_version('sendense-server')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """The hub of Sendense: catalog and repository of VM backups."""


@app.command(epilog=EXIT_CODES)
def init(
    state_dir: Annotated[Path, typer.Option(help="Folder for the hub's own files.")],
    repository: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the first repository, named default; STATE_DIR/repository if not given."
        ),
    ] = None,
    if_none: Annotated[
        bool,
        typer.Option(
            "--if-none", help="--repository is for a catalog without repositories; others stay."
        ),
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--catalog-url",
            metavar="URL",
            help="mysql+pymysql://USER@HOST/DATABASE; SQLite in STATE_DIR if not given.",
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option("--catalog-password-file", help="File with the database user's password."),
    ] = None,
) -> None:
    """Make a hub: folder, configuration, catalog, first repository. Repeating changes nothing.

    Of an older catalog the schema is upgraded. Repositories are an administrator's: a catalog
    that has one, whatever its name, keeps them as they are.
    """
    state = state_dir.absolute()
    config = state / CONFIG_NAME
    _check_catalog_options(url, password_file)
    try:
        state.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not config.exists():
            _write_config(config, url or sqlite_url(state / "catalog.db"), password_file)
    except OSError as error:
        raise ConfigurationError(str(state), f"cannot be made: {error.strerror}") from error
    settings = load_hub_settings(config)
    _require_catalog(url, settings, config)
    # An upgrade has statements that take their time on large tables.
    catalog = catalog_of(settings, statement_timeout_s=MAINTENANCE_STATEMENT_S)
    try:
        upgrade_catalog(catalog, typer.echo)
        with catalog.read() as session:
            repositories = all_repositories(session)
        if not repositories:
            folder = (repository or state / "repository").absolute()
            repositories = [
                create_repository(Parts(catalog), name="default", path=str(folder), default=False)
            ]
        elif repository is not None and not if_none:
            _require_known(repository, repositories)
    finally:
        catalog.close()
    typer.echo(f"configuration  {config}")
    typer.echo(f"catalog        {catalog}")
    for row in repositories:
        typer.echo(f"repository     {row.path} ({row.name}{', default' * row.is_default})")
    typer.echo(f"next           sendense-hub serve --config {config}")


@app.command(epilog=EXIT_CODES)
def serve(
    config: ConfigOption = None,
    listen: Annotated[
        str | None, typer.Option(help="host:port instead of the configured one; port 0: any free.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Written once the hub serves, with its address, as JSON.")
    ] = None,
) -> None:
    """Run the hub until SIGTERM."""
    settings = load_hub_settings(config)
    if listen is not None:
        loopback_address(listen, key="--listen")
        settings = settings.model_copy(update={"listen": listen})
    configure_logging(settings.log_level)
    warn_of_configuration(settings)
    serve_hub(settings, ready_file)


app.command("import-legacy", epilog=IMPORT_EXIT_CODES)(import_legacy)


def main() -> NoReturn:
    """`run`, as a process of its own."""
    leave(run())


def run() -> int:
    """Run the command line; an error is one line and the exit code."""
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        result: object = app(standalone_mode=False)
    except SendenseError as error:
        return _failed(
            str(error), EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_FAILED
        )
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        see = f"; see '{context.command_path} --help'" if context is not None else ""
        return _failed(f"{error.format_message().rstrip('.')}{see}", EXIT_CONFIGURATION)
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0


def _failed(sentence: str, code: int) -> int:
    sys.stderr.write(f"sendense-hub: {' '.join(sentence.split())}\n")
    return code


def _check_catalog_options(url: str | None, password_file: Path | None) -> None:
    """Raises ConfigurationError naming the option."""
    if password_file is not None:
        if url is None:
            raise ConfigurationError("--catalog-password-file", "goes with --catalog-url")
        password_in(password_file, key="--catalog-password-file")
    if url is None:
        return
    try:
        Catalog(url).close()
    except ConfigurationError as error:
        raise ConfigurationError("--catalog-url", error.problem) from error
    if has_password(url):
        raise ConfigurationError(
            "--catalog-url",
            "has a password in it, which does not belong into hub.toml; write it into a file "
            "and name that as --catalog-password-file",
        )


def _write_config(config: Path, url: str, password_file: Path | None) -> None:
    """Only once its catalog answers: a mistyped URL leaves nothing that is in the way.

    Raises ConfigurationError, CatalogUnavailable, OSError.
    """
    draft = config.with_name(config.name + ".new")
    try:
        draft.write_text(_config_text(config.parent, url, password_file), encoding="utf-8")
        catalog = catalog_of(load_hub_settings(draft))
        try:
            catalog.require_fit()
        finally:
            catalog.close()
        draft.rename(config)
    finally:
        draft.unlink(missing_ok=True)


def _require_catalog(wanted: str | None, settings: HubSettings, config: Path) -> None:
    """Raises ConfigurationError when the hub has another catalog than asked for."""
    if wanted is not None and wanted != settings.catalog_url:
        raise ConfigurationError(
            "--catalog-url",
            f"{config}, or SENDENSE_HUB_CATALOG_URL, names another catalog, "
            f"{catalog_of(settings)}, and stays so; init does not move a catalog",
        )


def _require_known(wanted: Path, repositories: Sequence[BackupRepository]) -> None:
    """Raises ConfigurationError when the folder is none of the catalog's repositories."""
    paths = {row.path for row in repositories}
    # As it is written first: resolving a path may hang with its mount.
    if str(wanted.absolute()) in paths or str(wanted.absolute().resolve()) in paths:
        return
    named = ", ".join(f"{row.name} in {row.path}" for row in repositories[:3])
    more = f" and {len(repositories) - 3} more" if len(repositories) > 3 else ""
    raise ConfigurationError(
        "--repository",
        f"the catalog has repositories, {named}{more}, which stay so; make a further one with: "
        f"sendense repository create NAME {wanted.absolute()}",
    )


def _config_text(state: Path, url: str, password_file: Path | None) -> str:
    password_line = (
        f"catalog_password_file = {_toml(str(password_file.absolute()))}\n"
        if password_file is not None
        else ""
    )
    return (
        "# Settings of sendense-hub. SENDENSE_HUB_<KEY> in the environment overrides a line.\n"
        f"state_dir = {_toml(str(state))}\n"
        f"catalog_url = {_toml(url)}\n"
        f"{password_line}"
        'listen = "127.0.0.1:8443"\n'
        'log_level = "info"\n'
        "# Prometheus endpoint, such as 127.0.0.1:9443; empty: off.\n"
        'metrics_listen = ""\n'
    )


def _toml(text: str) -> str:
    """A TOML string. JSON's escapes are TOML's but for characters beyond 16 bits and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


if __name__ == "__main__":
    main()
