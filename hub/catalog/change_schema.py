"""Upgrade and downgrade as an administrator asks for them: no hub beside, nothing lost unasked."""

from collections.abc import Callable
from datetime import UTC, datetime

from hub.catalog.engine import Catalog
from hub.catalog.hub_lock import HubLock
from hub.catalog.losses import jobs, losses
from hub.catalog.schema import BASE, Report, newest_revision, problem_of, revisions
from hub.catalog.sqlite_copy import copy_before
from shared.errors import ConfigurationError

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def upgrade_catalog(catalog: Catalog, report: Report, now: Clock = utc_now) -> bool:
    """To the newest revision; a copy of an SQLite catalog first. False when it was there already.

    Raises ConfigurationError (also while a hub serves from it), CatalogUnavailable.
    """
    catalog.require_fit()
    if catalog.schema_state().revision == newest_revision():
        return False
    with HubLock(catalog):
        state = catalog.schema_state()
        if state.revision == newest_revision():
            return False
        _copy(catalog, state.revision, newest_revision(), report, now)
        catalog.upgrade(report)
    return True


def downgrade_catalog(
    catalog: Catalog, target: str, report: Report, *, force: bool = False, now: Clock = utc_now
) -> None:
    """To an older revision, or to BASE, an empty database.

    Raises ConfigurationError when a hub serves from it, when the target is not
    older, and when something would be lost: without `force` for what an older
    schema cannot hold, in any case for the jobs that BASE would take along.
    """
    catalog.require_fit()
    with HubLock(catalog):
        current = _checked(catalog, target)
        with catalog.translated(), catalog.engine.connect() as connection:
            count = jobs(connection) if target == BASE else 0
            lost = losses(connection, current, target)
        if count:
            raise ConfigurationError(
                "catalog",
                f"it has {count} jobs: a downgrade to {BASE} would delete their rows and leave "
                "their files; delete the backups first, or drop the database",
            )
        if lost and not force:
            told = "; ".join(str(each) for each in lost)
            raise ConfigurationError(
                "catalog",
                f"revision {target} cannot hold all that is there: {told}. "
                "With --force these are lost",
            )
        for each in lost:
            report(f"lost  {each.count} {each.what}")
        _copy(catalog, current, target, report, now)
        catalog.downgrade(target, report)


def _checked(catalog: Catalog, target: str) -> str:
    """The current revision, when the target is an older one."""
    state = catalog.schema_state()
    names = [each.name for each in revisions()]
    if target not in (BASE, *names):
        raise ConfigurationError(
            "REVISION", f"{target!r} is none; there are {BASE}, {', '.join(names)}"
        )
    if state.revision not in names:
        raise ConfigurationError("catalog", problem_of(state))
    if target != BASE and names.index(target) >= names.index(state.revision):
        raise ConfigurationError(
            "REVISION", f"the catalog is at {state.revision}, and {target} is not older"
        )
    return state.revision


def _copy(catalog: Catalog, current: str | None, target: str, report: Report, now: Clock) -> None:
    if current is None:
        return
    if catalog.is_sqlite:
        report(f"copy  {copy_before(catalog, target, now())}")
    else:
        report("copy  none is made of a server's database: a dump is yours to take")
