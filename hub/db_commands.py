"""`sendense-hub db`: the catalog's schema, and whether the catalog is what it should be."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hub.catalog.change_schema import downgrade_catalog, upgrade_catalog
from hub.catalog.check import Finding, check_database, check_rows, check_schema
from hub.catalog.engine import MAINTENANCE_STATEMENT_S, Catalog, newest_revision
from hub.catalog.hub_lock import HubLock
from hub.catalog.schema import problem_of
from hub.cli_options import HELP_NAMES, ConfigOption
from hub.config import catalog_of, load_hub_settings
from hub.jobs.check_layers import check_layers

EXIT_FINDINGS = 1

db = typer.Typer(help="The catalog's schema and state.", context_settings=HELP_NAMES)
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]


@db.command()
def upgrade(config: ConfigOption = None) -> None:
    """Bring the catalog's schema to what this program needs.

    No hub may be serving from it. An SQLite catalog is copied first, beside itself. An
    upgrade that was interrupted is run again.
    """
    with _catalog(config) as catalog:
        if not upgrade_catalog(catalog, typer.echo):
            typer.echo("nothing to do")
        typer.echo(f"catalog is at revision {catalog.revision()}")
        for each in check_schema(catalog):
            typer.echo(f"remark  {each.problem}", err=True)


@db.command()
def downgrade(
    revision: Annotated[str, typer.Argument(help="An older revision; base empties the database.")],
    config: ConfigOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Lose what the older schema cannot hold.")
    ] = False,
) -> None:
    """Bring the catalog's schema to an older revision, for an older program.

    Run it with the newer program. No hub may be serving from the catalog. Refused while
    there is something that the older schema cannot hold, and for base while there are jobs.
    """
    with _catalog(config) as catalog:
        catalog.require_there()
        downgrade_catalog(catalog, revision, typer.echo, force=force)
        left = catalog.revision()
        typer.echo(f"catalog is at revision {left or 'none'}")
        if left is None:
            typer.echo("next  sendense-hub init makes the schema and a first repository anew")


@db.command()
def current(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the schema's revision and the one this program needs."""
    with _catalog(config) as catalog:
        catalog.require_there()
        state = catalog.schema_state()
    problem = problem_of(state)
    if as_json:
        facts = {"catalog": state.revision, "program": newest_revision(), "problem": problem}
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"catalog {state.revision or 'none'}, program {newest_revision()}")
    if problem:
        typer.echo(problem)


@db.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check schema, database, rows, and that the layers are there. Changes nothing.

    Exit code 1 when there are findings. A hub may serve meanwhile. The layers' content is
    not read: a restore does that.
    """
    with _catalog(config) as catalog:
        catalog.require_there()
        remarks = []
        if HubLock(catalog).is_held_elsewhere():
            remarks.append("a hub serves from this catalog, or its schema is being changed")
        findings = check_schema(catalog)
        facts: dict[str, int] = {}
        if not findings:
            findings += check_database(catalog)
            rows, broken = check_rows(catalog)
            layers = check_layers(catalog)
            findings += broken + layers.findings
            remarks += layers.remarks
            facts = asdict(rows) | {"layers": layers.layers}
        else:
            remarks.append("rows and files are checked once the schema is right")
    _show(findings, remarks, facts, as_json)
    raise typer.Exit(EXIT_FINDINGS if findings else 0)


@contextmanager
def _catalog(config: Path | None) -> Iterator[Catalog]:
    """Statements on large tables take their time. Raises ConfigurationError."""
    settings = load_hub_settings(config)
    catalog = catalog_of(settings, statement_timeout_s=MAINTENANCE_STATEMENT_S)
    try:
        yield catalog
    finally:
        catalog.close()


def _show(
    findings: list[Finding], remarks: list[str], facts: dict[str, int], as_json: bool
) -> None:
    if as_json:
        shown = [asdict(each) for each in findings]
        typer.echo(json.dumps({"findings": shown, "remarks": remarks, "checked": facts}))
        return
    for remark in remarks:
        typer.echo(f"remark   {remark}", err=True)
    if findings:
        widths = [max(len(each.area) for each in findings), max(len(f.subject) for f in findings)]
        for each in findings:
            typer.echo(f"{each.area:<{widths[0]}}  {each.subject:<{widths[1]}}  {each.problem}")
    if facts:
        counted = ", ".join(f"{count} {what}" for what, count in facts.items())
        typer.echo(f"checked  {counted}")
    typer.echo(f"findings {len(findings)}" if findings else "findings none")
