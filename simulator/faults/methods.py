"""Options that name a WSDL method: of those that the site answers, as no other ever gives a chance."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import AfterValidator

TASK_METHODS: Final = (
    "ConsolidateVMDisks_Task",
    "CreateSnapshotEx_Task",
    "CreateSnapshot_Task",
    "PowerOffVM_Task",
    "PowerOnVM_Task",
    "ReconfigVM_Task",
    "RemoveAllSnapshots_Task",
    "RemoveSnapshot_Task",
    "RevertToSnapshot_Task",
    "SuspendVM_Task",
)
"""Those that start a task."""

METHODS: Final = (
    *TASK_METHODS,
    "CancelRetrievePropertiesEx",
    "CancelWaitForUpdates",
    "ContinueRetrievePropertiesEx",
    "CreateContainerView",
    "CreateFilter",
    "CreatePropertyCollector",
    "CurrentTime",
    "DestroyPropertyCollector",
    "DestroyPropertyFilter",
    "DestroyView",
    "Fetch",
    "FindByInventoryPath",
    "FindByUuid",
    "Login",
    "Logout",
    "NfcGetServerNfcLibVersion",
    "NfcGetVmFiles",
    "NfcRandomAccessOpenDisk",
    "NfcRandomAccessOpenReadonly",
    "QueryChangedDiskAreas",
    "RetrieveProperties",
    "RetrievePropertiesEx",
    "RetrieveServiceContent",
    "SessionIsActive",
    "TerminateSession",
    "WaitForUpdates",
    "WaitForUpdatesEx",
)
"""All that the site answers. Kept here as well, as the API's own code takes long to import."""


def _of_site(name: str) -> str:
    return _one_of(name, METHODS, "the site has no method")


def _of_tasks(name: str) -> str:
    return _one_of(name, TASK_METHODS, "no task is started by")


def _one_of(name: str, known: Sequence[str], problem: str) -> str:
    if name in known:
        return name
    folded = {one.lower(): one for one in known}
    near = [folded[one] for one in get_close_matches(name.lower(), folded, n=4, cutoff=0.5)]
    if near:
        raise ValueError(f"{problem} {name!r}; near it are: {', '.join(near)}")
    raise ValueError(f"{problem} {name!r}; there are: {', '.join(known)}")


MethodName = Annotated[str, AfterValidator(_of_site)]
TaskMethodName = Annotated[str, AfterValidator(_of_tasks)]
