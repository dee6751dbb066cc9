"""sendense hub: recovery."""

import typer

from sendense import RecoveredDisk, RecoveredLayer, RecoveryReportResponse
from sendense.cli import text
from sendense.cli.output import print_facts, print_json, print_table
from sendense.cli.state import HubOption, JsonOption, connected, out
from sendense.cli.tables import words

app = typer.Typer(help="Look at the hub itself.")


@app.callback()
def group() -> None:
    """With it, a group of one command stays a group."""


@app.command()
def recovery(
    context: typer.Context,
    hub: HubOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the hub found of its last run when it started, and what it did about it."""
    with connected(context) as (client, state):
        report = client.recovery_report()
        if state.json:
            print_json(report)
            return
        print_facts(_facts(report))
        out().print()
        print_table(
            ("Job", words("VM"), "Decision", words("Why"), words("Disks")),
            [
                (
                    job.job_id,
                    job.vm_name,
                    text.recovery_decision(job.decision),
                    job.reason,
                    "; ".join(_disk(disk) for disk in job.disks),
                )
                for job in report.jobs
            ],
            empty="no job had been left",
        )
        for path in report.removed_paths:
            out().print(f"removed {text.plain(path)}", soft_wrap=True)


def _facts(report: RecoveryReportResponse) -> dict[str, str]:
    facts = {
        "started": text.when(report.started_at),
        "finished": text.when(report.finished_at),
        "jobs left": str(len(report.jobs)),
        "removed": text.count(report.removed_count, "path"),
    }
    for position, problem in enumerate(report.problems, 1):
        facts[f"problem {position}"] = problem
    return facts


def _disk(disk: RecoveredDisk) -> str:
    found = f"{disk.disk_index} {text.recovered_layer(disk.layer)}"
    if RecoveredLayer(disk.layer) is RecoveredLayer.REOPENED:
        found += f" behind {text.size(disk.durable_payload_bytes)}"
    cut = disk.journal_bytes_cut + disk.layer_bytes_cut
    return f"{found}, {text.size(cut)} cut" if cut else found
