"""Arguments and options that several commands have, each with what the shell may offer for it."""

from typing import Annotated, Final

import typer

from sendense.cli import completion

JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Job id.", autocompletion=completion.jobs)
]
RunningJobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Job id.", autocompletion=completion.running_jobs)
]
UnsuccessfulJobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Job id.", autocompletion=completion.unsuccessful_jobs),
]
RestorePointArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="Job id.", autocompletion=completion.restore_points)
]
# Indexes are int32 in the protos.
_MAX_INDEX: Final = (1 << 31) - 1
DiskArgument = Annotated[
    int,
    typer.Argument(
        metavar="DISK",
        min=0,
        max=_MAX_INDEX,
        help="Index of the disk.",
        autocompletion=completion.disk_indexes,
    ),
]
DiskOfVmArgument = Annotated[
    int,
    typer.Argument(
        metavar="DISK",
        min=0,
        max=_MAX_INDEX,
        help="Index of the disk in the last backup.",
        autocompletion=completion.disk_indexes_of_vm,
    ),
]
ContextArgument = Annotated[
    str,
    typer.Argument(metavar="CONTEXT", help="Context id.", autocompletion=completion.contexts),
]
RepositoryArgument = Annotated[
    str,
    typer.Argument(
        metavar="REPOSITORY", help="Name or id.", autocompletion=completion.repositories
    ),
]
SiteArgument = Annotated[
    str,
    typer.Argument(metavar="SITE", help="Name of the site.", autocompletion=completion.sites),
]

VmFilter = Annotated[
    str,
    typer.Option("--vm", help="Only VMs of this name.", autocompletion=completion.vms_backed_up),
]
ContextFilter = Annotated[
    str,
    typer.Option("--context", help="Only this context.", autocompletion=completion.contexts),
]
RepositoryFilter = Annotated[
    str,
    typer.Option(
        "--repository", help="Only this repository.", autocompletion=completion.repositories
    ),
]
SiteFilter = Annotated[
    str, typer.Option("--site", help="Only this site.", autocompletion=completion.sites)
]
# Of a VM that is named by its name.
SiteOfVm = Annotated[
    str,
    typer.Option(
        "--site",
        help="Site of the VM, where several have one of that name.",
        autocompletion=completion.sites,
    ),
]
RepositoryChoice = Annotated[
    str,
    typer.Option(
        "--repository",
        metavar="NAME",
        help="Repository, by name or id.  [default: the hub's]",
        autocompletion=completion.repositories,
    ),
]

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Show the job until it ended; fail when it does.")
]
