"""`sendense-hub`: init, serve, db.

Exit codes: 0 stopped as told (or all well), 1 a defect, or the catalog or a
repository cannot be used, 2 command line, configuration, a port in use or a
schema that must be upgraded.
"""

import json
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from hub.catalog.engine import Catalog, newest_revision, sqlite_url
from hub.catalog.repositories import all_repositories
from hub.config import CONFIG_NAME, HubSettings, load_hub_settings, loopback_address
from hub.jobs.parts import Parts
from hub.jobs.repositories import create_repository
from hub.main import serve as serve_hub
from shared.errors import ConfigurationError, SendenseError
from shared.logs import configure_logging
from shared.settings import source_name, warn_of_unknown_variables

EXIT_FAILED = 1
EXIT_CONFIGURATION = 2
EXIT_CODES = (
    "Exit codes: 0 all well; 1 a defect, or the catalog or a repository cannot be used; "
    "2 command line or configuration cannot be used, a port is in use, or the schema "
    "must be upgraded."
)

app = typer.Typer(
    name="sendense-hub",
    help="The hub of Sendense: catalog and repository of VM backups.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
db = typer.Typer(help="The catalog's schema.", no_args_is_help=True)
app.add_typer(db, name="db")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file; without it, SENDENSE_HUB_* of the environment."),
]


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


@app.command()
def init(
    state_dir: Annotated[Path, typer.Option(help="Folder for the hub's own files.")],
    repository: Annotated[
        Path | None,
        typer.Option(help="Folder of the default repository; STATE_DIR/repository if not given."),
    ] = None,
) -> None:
    """Make a hub: folder, configuration, catalog, default repository. Repeating changes nothing."""
    state = state_dir.absolute()
    config = state / CONFIG_NAME
    try:
        state.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not config.exists():
            config.write_text(_config_text(state), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(str(state), f"cannot be made: {error.strerror}") from error
    catalog = _catalog(_load(config), config)
    try:
        catalog.upgrade()
        with catalog.read() as session:
            names = {row.name: row.path for row in all_repositories(session)}
        if "default" not in names:
            folder = (repository or state / "repository").absolute()
            row = create_repository(Parts(catalog), name="default", path=str(folder), default=True)
            names["default"] = row.path
        elif repository is not None:
            _require_default(repository, Path(names["default"]))
    finally:
        catalog.close()
    typer.echo(f"configuration  {config}")
    typer.echo(f"repository     {names['default']}")
    typer.echo(f"next           sendense-hub serve --config {config}")


@app.command()
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
    settings = _load(config)
    if listen is not None:
        loopback_address(listen, key="--listen")
        settings = settings.model_copy(update={"listen": listen})
    configure_logging(settings.log_level)
    warn_of_unknown_variables(HubSettings)
    serve_hub(settings, ready_file)


@db.command()
def upgrade(config: ConfigOption = None) -> None:
    """Bring the catalog's schema to what this program needs."""
    catalog = _catalog(_load(config), config)
    catalog.upgrade()
    typer.echo(f"catalog is at revision {catalog.revision()}")
    catalog.close()


@db.command()
def current(config: ConfigOption = None) -> None:
    """Show the schema's revision and the one this program needs."""
    catalog = _catalog(_load(config), config)
    typer.echo(f"catalog {catalog.revision() or 'none'}, program {newest_revision()}")
    catalog.close()


def main() -> None:
    """Run the command line; an error is one line and an exit code."""
    try:
        app()
    except SendenseError as error:
        sys.stderr.write(f"sendense-hub: {' '.join(str(error).split())}\n")
        sys.exit(EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else EXIT_FAILED)


def _load(config: Path | None) -> HubSettings:
    """Settings that were checked as far as reading them can. Raises ConfigurationError."""
    settings = load_hub_settings(config)
    _catalog(settings, config).close()
    return settings


def _catalog(settings: HubSettings, config: Path | None) -> Catalog:
    """The catalog, not opened yet. Raises ConfigurationError naming the file and the key."""
    try:
        return Catalog(settings.catalog_url)
    except ConfigurationError as error:
        raise ConfigurationError(source_name(config), str(error)) from error


def _require_default(wanted: Path, default: Path) -> None:
    """Raises ConfigurationError when the default repository is another one than asked for."""
    if wanted.absolute().resolve() != default.resolve():
        raise ConfigurationError(
            "--repository",
            f"the repository default is {default} and stays so; make a further one with: "
            f"sendense repository create NAME {wanted.absolute()}",
        )


def _config_text(state: Path) -> str:
    catalog_url = sqlite_url(state / "catalog.db")
    return (
        "# Settings of sendense-hub. SENDENSE_HUB_<KEY> in the environment overrides a line.\n"
        f"state_dir = {_toml(str(state))}\n"
        f"catalog_url = {_toml(catalog_url)}\n"
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
