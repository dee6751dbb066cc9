"""What callers are told: what happened to which object, and what to do next."""

import pytest

from hub.errors import (
    AgentAway,
    AgentNotFound,
    AgentRemoved,
    BackupRunning,
    CatalogUnavailable,
    ContextNotFound,
    DiskNotFound,
    JobHasDependants,
    JobNotFound,
    NoDefaultRepository,
    NotARestorePoint,
    RepositoryNotEmpty,
    VmNotFound,
    VmUnheardOf,
)
from hub.jobs.states import LIVE, Status
from shared.errors import SendenseError


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (
            BackupRunning("job-1", "ctx-1"),
            "wait for its end, or cancel it with sendense job cancel job-1",
        ),
        (CatalogUnavailable("all its connections are in use"), "try again later"),
        (JobHasDependants("job-1", ["job-2"]), "sendense job delete --cascade job-1"),
        (JobHasDependants("job-1", ["job-2"]), '"cascade": true in a request'),
        (AgentAway("lab"), "start it and try again"),
        (AgentRemoved("lab"), "start an agent with that site's name, then try again"),
        (AgentNotFound("lab"), "sendense agent list"),
        (NoDefaultRepository(), "sendense repository set-default"),
        (JobNotFound("job-1"), "sendense job list"),
        (DiskNotFound("job-1", 7), "sendense disk list job-1"),
        (ContextNotFound("ctx-1"), "sendense context list"),
        (VmNotFound("web"), "sendense vm list"),
        (VmUnheardOf("web"), "sendense context list"),
        (VmUnheardOf("web", "lab"), "sendense context list"),
        (RepositoryNotEmpty("cold", 2, "without jobs"), "sendense context list --repository cold"),
        (RepositoryNotEmpty("cold", 0, "3 files are left"), "see its log"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, SendenseError) else "",
)
def test_text_says_what_to_do_next(error: SendenseError, advice: str) -> None:
    assert advice in str(error)


@pytest.mark.parametrize("status", Status)
def test_job_that_may_still_complete_is_told_from_one_that_will_not(status: Status) -> None:
    said = str(NotARestorePoint("job-1", status))
    assert said.startswith(f"backup job job-1 is {status}")
    assert ("sendense job watch job-1" in said) == (status in LIVE)


def test_vm_of_the_catalog_is_not_looked_for_at_connected_sites_alone() -> None:
    assert "no connected site" not in str(VmUnheardOf("web"))
    assert "site 'lab'" in str(VmUnheardOf("web", "lab"))
    assert VmUnheardOf("web", "lab").facts() == VmNotFound("web", "lab").facts()


def test_agent_that_was_removed_has_the_code_of_one_that_is_away() -> None:
    away, removed = AgentAway("lab"), AgentRemoved("lab")
    assert (removed.code, removed.status, removed.retryable) == (
        *(away.code, away.status),
        away.retryable,
    )
    assert "it was removed" in str(removed)
