"""sendense statistics: what there is, and what was done day by day."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from sendense import CurrentTotals, DayStatistics
from sendense.cli import text
from sendense.cli.options import RepositoryFilter
from sendense.cli.output import print_facts, print_json, print_table
from sendense.cli.state import HubOption, JsonOption, connected, out
from sendense.cli.tables import number


def statistics(
    context: typer.Context,
    days: Annotated[
        int, typer.Option(min=1, max=366, help="So many days, in UTC, today the last one.")
    ] = 30,
    repository: RepositoryFilter = "",
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count what there is, and the backups of the last days.

    Bytes are those of completed jobs; the rate is what they read per second at work.
    """
    with connected(context) as (client, state):
        found = client.get_statistics(days=days, repository=repository)
        if state.json:
            print_json(found)
            return
        print_facts(_facts(found.now))
        out().print()
        print_table(
            (
                "Day",
                number("Jobs"),
                number("Completed"),
                number("Failed"),
                number("Cancelled", spare=2),
                number("Full", spare=3),
                number("Read"),
                number("Sent", spare=1),
                number("Stored"),
                number("Rate"),
            ),
            [
                *(_row(_date(day), day) for day in found.days),
                _row(text.count(len(found.days), "day"), found.total),
            ],
            empty="no days",
        )


def _facts(now: CurrentTotals) -> dict[str, str]:
    return {
        "repositories": str(now.repositories),
        "agents": f"{now.agents}, {now.agents_connected} connected",
        "VMs": f"{now.virtual_machines}, {now.virtual_machines_not_protected} not protected",
        "contexts": str(now.contexts),
        "restore points": str(now.restore_points),
        "running jobs": str(now.jobs_running),
        "stored": text.size(now.bytes_stored),
    }


def _date(day: DayStatistics) -> str:
    return f"{datetime.fromtimestamp(day.day.seconds, UTC):%Y-%m-%d}"


def _row(name: str, of: DayStatistics) -> tuple[str, ...]:
    rate = of.bytes_read_per_second
    return (
        name,
        str(of.jobs),
        str(of.jobs_completed),
        str(of.jobs_failed),
        str(of.jobs_cancelled),
        str(of.jobs_full),
        text.size(of.bytes_read),
        text.size(of.bytes_transferred),
        text.size(of.bytes_stored),
        f"{text.size(rate)}/s" if rate else "",
    )
