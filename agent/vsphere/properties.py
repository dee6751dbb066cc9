"""Reading properties in sets, and waiting for tasks."""

import threading
import time
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    wait_random_exponential,
)
from tenacity.nap import sleep_using_event

from agent.vsphere.api import vim, vmodl
from agent.vsphere.errors import TaskTimedOut, VsphereUnreachable
from agent.vsphere.session import VsphereSession

_Collector = vmodl.query.PropertyCollector
_PAGE = 200

UNREACHABLE_S = 300.0
"""A task goes on while vSphere's management agents restart: they take minutes."""
NEVER_ENDED = threading.Event()
"""Of waits that nobody ends early. Nobody sets it."""


class TaskFailed(Exception):
    """A task ended with a fault; `fault` is pyVmomi's."""

    def __init__(self, fault: Any) -> None:
        super().__init__(type(fault).__name__)
        self.fault = fault


def properties_of(session: VsphereSession, target: Any, paths: Sequence[str]) -> dict[str, Any]:
    """The properties of one managed object; unset ones are missing.

    Call inside `session.run`. Raises pyVmomi's ManagedObjectNotFound, and the fault
    by which vSphere holds one of the properties back: that is not the same as unset.
    """
    spec = _filter_spec(type(target), paths, _Collector.ObjectSpec(obj=target))
    found = _retrieve(session, spec)
    if not found:
        raise vmodl.MethodFault(msg="it shows nothing of the object, and does not say why")
    for hidden in found[0].missingSet or []:
        raise hidden.fault
    return _values(found[0])


def virtual_machines(
    session: VsphereSession, paths: Sequence[str]
) -> list[tuple[Any, dict[str, Any]]]:
    """Every VM of the site with its properties. Call inside `session.run`.

    What vSphere does not show of a VM, such as one whose host is disconnected, is
    missing as if it were unset.
    """
    content = session.content
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    try:
        to_members = _Collector.TraversalSpec(
            name="members", type=vim.view.ContainerView, path="view", skip=False
        )
        start = _Collector.ObjectSpec(obj=view, skip=True, selectSet=[to_members])
        found = _retrieve(session, _filter_spec(vim.VirtualMachine, paths, start))
        return [(one.obj, _values(one)) for one in found]
    finally:
        _destroy(view.DestroyView)


def _filter_spec(kind: Any, paths: Sequence[str], start: Any) -> Any:
    return _Collector.FilterSpec(
        propSet=[_Collector.PropertySpec(type=kind, pathSet=list(paths), all=False)],
        objectSet=[start],
    )


def _values(content: Any) -> dict[str, Any]:
    return {prop.name: prop.val for prop in content.propSet or []}


def _retrieve(session: VsphereSession, spec: Any) -> list[Any]:
    """An ObjectContent for each object."""
    # The shared collector will do: a retrieval leaves nothing behind on it,
    # its pages are told apart by tokens. Waiting is another matter (below).
    collector = session.content.propertyCollector
    found: list[Any] = []
    page = collector.RetrievePropertiesEx([spec], _Collector.RetrieveOptions(maxObjects=_PAGE))
    while page is not None:
        found.extend(page.objects)
        page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
    return found


def wait_for_task(
    session: VsphereSession,
    task: Any,
    doing: str,
    timeout_s: float,
    unreachable_s: float = UNREACHABLE_S,
    ended: threading.Event = NEVER_ENDED,
) -> Any:
    """Wait until the task ended, over any number of broken connections; returns its result.

    Raises TaskFailed, TaskTimedOut (the task may still run), VsphereErrors;
    VsphereUnreachable after `unreachable_s` without an answer (it may still run).
    `ended`, once set, is as the end of `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    contact = _Contact()

    def wait() -> Any:
        return _wait(session, task, TaskTimedOut(doing, timeout_s), end, contact, ended)

    def over(state: RetryCallState) -> bool:
        now = time.monotonic()
        return (
            session.closed or ended.is_set() or now >= end or now >= contact.last_s + unreachable_s
        )

    attempts = Retrying(
        retry=retry_if_exception_type(VsphereUnreachable),
        stop=over,
        wait=wait_random_exponential(multiplier=0.5, max=5),
        sleep=sleep_using_event(ended),
        reraise=True,
    )
    return attempts(session.run, doing, wait)


class _Contact:
    """When vSphere last answered."""

    def __init__(self) -> None:
        self.made()

    def made(self) -> None:
        self.last_s = time.monotonic()


def _wait(
    session: VsphereSession,
    task: Any,
    late: TaskTimedOut,
    end: float,
    contact: _Contact,
    ended: threading.Event,
) -> Any:
    # A collector of its own: WaitForUpdatesEx of two threads on one collector
    # disturb each other, and destroying it takes its filters along.
    collector = session.content.propertyCollector.CreatePropertyCollector()
    try:
        start = _Collector.ObjectSpec(obj=task)
        spec = _filter_spec(vim.Task, ["info.state", "info.error", "info.result"], start)
        collector.CreateFilter(spec, True)
        seen: dict[str, Any] = {}
        version = ""
        while True:
            left_s = end - time.monotonic()
            if left_s <= 0 or ended.is_set():
                raise late
            update = collector.WaitForUpdatesEx(
                version, _Collector.WaitOptions(maxWaitSeconds=_patience_s(session, left_s))
            )
            contact.made()
            if update is None:
                continue
            version = update.version
            for changed in _changes(update):
                seen[changed.name] = changed.val
            if update.truncated:
                continue
            if seen.get("info.state") == vim.TaskInfo.State.success:
                return seen.get("info.result")
            if seen.get("info.state") == vim.TaskInfo.State.error:
                raise TaskFailed(seen.get("info.error") or vmodl.MethodFault(msg="no reason given"))
    finally:
        _destroy(collector.DestroyPropertyCollector)


def _patience_s(session: VsphereSession, left_s: float) -> int:
    """How long the server may hold its answer: less than the socket's time-out."""
    return max(1, int(min(20.0, session.settings.timeout_s / 2, left_s)))


def _changes(update: Any) -> list[Any]:
    return [
        change
        for filters in update.filterSet or []
        for changed in filters.objectSet or []
        for change in changed.changeSet or []
    ]


def _destroy(method: Any) -> None:
    """Destroy a view or collector; one that is gone with its session is no error.

    Nor may a broken connection hide the error that led here.
    """
    try:
        method()
    except (vmodl.MethodFault, vmodl.RuntimeFault, OSError, HTTPException):
        return
