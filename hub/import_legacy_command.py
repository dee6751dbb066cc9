"""`sendense-hub import-legacy`: takes over the restore points of an earlier system (docs/import.md)."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Final

import typer

from hub.catalog.hub_lock import HubLock
from hub.catalog.legacy.known import known_catalog
from hub.catalog.legacy.read import read_old_catalog
from hub.catalog.legacy.write import WrittenContext, ids_of_new_jobs
from hub.catalog.repositories import is_free_id
from hub.cli_options import ConfigOption
from hub.config import catalog_of, load_hub_settings
from hub.jobs.parts import Parts
from hub.legacy.apply import apply_plan
from hub.legacy.known import KnownCatalog
from hub.legacy.old_catalog import understand
from hub.legacy.plan import make_plan
from hub.legacy.planned import ImportPlan
from hub.legacy.qemu import program
from hub.legacy.report import report_document, show_report
from hub.legacy.vms import Choices
from hub.main import only_hub_of
from shared.errors import ConfigurationError
from shared.logs import configure_logging
from shared.site_names import checked_site_name

EXIT_LEFT_OUT: Final = 3
EXIT_CODES: Final = (
    "Exit codes: 0 all restore points of the old catalog are placed; 1 it could not be done; "
    "2 command line or configuration cannot be used, or the hub is running; 3 done, but rows of "
    "restore points are left out: the report says which and why."
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def import_legacy(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="URL",
            envvar="SENDENSE_IMPORT_FROM",
            show_envvar=False,
            help="The old catalog, mysql+pymysql://USER:PASSWORD@HOST/DATABASE. In the "
            "environment as SENDENSE_IMPORT_FROM, the password is in no list of processes.",
        ),
    ],
    config: ConfigOption = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write; without it, report only.")] = False,
    repository: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD_ID=NAME_OR_PATH",
            help="Where an old repository's files are: a repository, or a folder to take over. "
            "Can be repeated.",
        ),
    ] = None,
    site: Annotated[
        str, typer.Option(help="The site of the old VMs, where their vCenter does not tell.")
    ] = "",
    new_site: Annotated[
        bool,
        typer.Option(
            "--new-site", help="Take --site although no agent of that site registered yet."
        ),
    ] = False,
    vm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=INSTANCE_UUID",
            help="The instance uuid of an old VM, where the old catalog has none. Can be repeated.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as one JSON document.")] = False,
) -> None:
    """Import the restore points of an earlier system. Its catalog and its files are not changed."""
    settings = load_hub_settings(config)
    configure_logging("warning")
    choices = Choices(
        _pairs(repository or (), "--repository"), _instance_uuids(vm or ()), _checked_site(site)
    )
    program("qemu-img")
    with ExitStack() as stack:
        parts = Parts(catalog_of(settings))
        stack.callback(parts.catalog.close)
        if apply:
            # A running hub would start and delete jobs among what is written.
            stack.enter_context(only_hub_of(settings.state_dir))
            stack.enter_context(HubLock(parts.catalog))
        parts.catalog.require_newest()
        with parts.catalog.read() as session:
            known = known_catalog(session)
        if not new_site:
            _require_known_site(known, choices.site)
        plan = _plan(parts, source, known, choices)
        with parts.catalog.read() as session:
            job_ids = ids_of_new_jobs(session, plan.contexts)
        written: Sequence[WrittenContext] | None = apply_plan(parts, plan) if apply else None
    if as_json:
        document = report_document(plan, written, job_ids)
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        show_report(plan, written, job_ids)
    if not plan.is_complete:
        raise typer.Exit(EXIT_LEFT_OUT)


def _plan(parts: Parts, source: str, known: KnownCatalog, choices: Choices) -> ImportPlan:
    old = understand(read_old_catalog(source))

    def id_is_free(repository_id: str) -> bool:
        with parts.catalog.read() as session:
            return is_free_id(session, repository_id)

    try:
        return make_plan(old, known, choices, id_is_free=id_is_free, on_file=_tell)
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def _tell(done: int, everything: int) -> None:
    """Checking terabytes takes its time: whoever watches sees that it goes on."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[Kchecked {done} of {everything} files")
        sys.stderr.flush()


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """Raises ConfigurationError."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ConfigurationError(option, f"{text!r} is not like NAME=VALUE")
        if pairs.setdefault(name, value) != value:
            raise ConfigurationError(option, f"{name!r} is given twice")
    return pairs


def _instance_uuids(texts: Sequence[str]) -> Mapping[str, str]:
    """By VM name. Raises ConfigurationError."""
    pairs = _pairs(texts, "--vm")
    for name, instance_uuid in pairs.items():
        if not _UUID.fullmatch(instance_uuid):
            raise ConfigurationError(
                "--vm",
                f"{instance_uuid!r}, for {name!r}, is no instance uuid like "
                "5020b2c4-0c3e-4f6a-9d1b-7e8f90a1b2c3; sendense --json vm list has that of each VM",
            )
    return pairs


def _checked_site(site: str) -> str:
    """As an agent's configuration would take it. Raises ConfigurationError."""
    try:
        return checked_site_name(site) if site else ""
    except ValueError as error:
        raise ConfigurationError("--site", f"{site!r}: {error}") from error


def _require_known_site(known: KnownCatalog, site: str) -> None:
    """Raises ConfigurationError: under a misspelt site no VM would ever be backed up."""
    sites = {each.site for each in known.sites}
    sites |= {each.site for each in known.contexts.values()}
    if not site or site in sites:
        return
    there = f"known are {', '.join(sorted(sites))}" if sites else "none is known yet"
    raise ConfigurationError(
        "--site",
        f"no agent of a site {site!r} has registered ({there}): let it connect once, "
        "or add --new-site",
    )
