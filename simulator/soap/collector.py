"""The PropertyCollector: selecting objects by traversal, reading them, waiting for changes."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from simulator.soap.envelope import serialize
from simulator.soap.faults import VimFault, invalid_property, object_not_found
from simulator.soap.objects import Managed
from simulator.soap.vmomi import Fault, Reference, vmodl

_PropertyCollector = vmodl.query.PropertyCollector

Find = Callable[[Reference], Managed | None]
Hidden = Callable[[Managed, str], Fault | None]
"""Why a property of an object is not shown; None when it is."""


def select(spec: Any, find: Find) -> Iterator[Managed]:
    """The objects of a FilterSpec, each once. Raises VimFault for a root that does not exist."""
    seen: set[str] = set()
    visited: set[tuple[str, int]] = set()
    for root in spec.objectSet:
        found = find(root.obj)
        if found is None:
            if spec.reportMissingObjectsInResults:
                continue
            raise object_not_found(root.obj)
        named = {one.name: one for one in _all_specs(root.selectSet) if one.name}
        yield from _walk(found, bool(root.skip), root.selectSet, named, find, seen, visited)


def _all_specs(selections: Any) -> Iterator[Any]:
    for one in selections or []:
        if isinstance(one, _PropertyCollector.TraversalSpec):
            yield one
            yield from _all_specs(one.selectSet)


def _walk(
    at: Managed,
    skip: bool,
    selections: Any,
    named: dict[str, Any],
    find: Find,
    seen: set[str],
    visited: set[tuple[str, int]],
) -> Iterator[Managed]:
    moid = at.reference._moId
    if not skip and moid not in seen:
        seen.add(moid)
        yield at
    for selection in selections or []:
        traversal = selection
        if not isinstance(selection, _PropertyCollector.TraversalSpec):
            traversal = named.get(selection.name)
            if traversal is None:
                raise invalid_property(selection.name)
        if not issubclass(at.kind, traversal.type) or (moid, id(traversal)) in visited:
            continue
        visited.add((moid, id(traversal)))
        value = at.value(traversal.path)
        for reference in value if isinstance(value, list) else [value]:
            found = find(reference) if reference is not None else None
            if found is not None:
                yield from _walk(
                    found,
                    bool(traversal.skip),
                    traversal.selectSet,
                    named,
                    find,
                    seen,
                    visited,
                )


def paths_for(spec: Any, managed: Managed) -> list[str]:
    """The property paths that a FilterSpec asks of an object, each once."""
    paths: dict[str, None] = {}
    for one in spec.propSet:
        if issubclass(managed.kind, one.type):
            paths.update(dict.fromkeys(managed.all_paths() if one.all else one.pathSet))
    return list(paths)


def wanted(spec: Any, managed: Managed) -> bool:
    """Whether the spec says anything about objects of this type."""
    return any(issubclass(managed.kind, one.type) for one in spec.propSet)


def contents(spec: Any, find: Find, hidden: Hidden) -> Iterator[Any]:
    """vmodl.query.PropertyCollector.ObjectContent of every selected object."""
    for managed in select(spec, find):
        if not wanted(spec, managed):
            continue
        properties = []
        missing = []
        for path in paths_for(spec, managed):
            value = managed.value(path)
            reason = hidden(managed, path)
            if reason is not None:
                missing.append(_PropertyCollector.MissingProperty(path=path, fault=reason))
            elif value is not None:
                properties.append(vmodl.DynamicProperty(name=path, val=value))
        yield _PropertyCollector.ObjectContent(
            obj=managed.reference, propSet=properties, missingSet=missing
        )


@dataclass
class Filter:
    """A PropertyFilter: what it watches and what it told last (moid → path → XML)."""

    moid: str
    spec: Any
    collector: "Collector"
    told: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def managed(self) -> Managed:
        return Managed(_PropertyCollector.Filter(self.moid), {"spec": lambda: self.spec})

    def update(self, find: Find, version: str) -> Any:
        """The FilterUpdate since the last call; None when nothing changed."""
        seen: dict[str, dict[str, str]] = {}
        updates = []
        for managed in self._selected(find):
            told = self.told.get(managed.reference._moId)
            values, changes = self._changes(managed, told, version)
            seen[managed.reference._moId] = values
            if told is None or changes:
                updates.append(
                    _PropertyCollector.ObjectUpdate(
                        kind="enter" if told is None else "modify",
                        obj=managed.reference,
                        changeSet=changes,
                    )
                )
        updates += [self._left(moid) for moid in self.told if moid not in seen]
        self.told = seen
        if not updates:
            return None
        return _PropertyCollector.FilterUpdate(
            filter=_PropertyCollector.Filter(self.moid), objectSet=updates
        )

    def _selected(self, find: Find) -> list[Managed]:
        try:
            return [one for one in select(self.spec, find) if wanted(self.spec, one)]
        except VimFault as error:
            if isinstance(error.fault, vmodl.fault.ManagedObjectNotFound) and self.told:
                return []  # it was deleted while being watched
            raise

    def _changes(
        self, managed: Managed, told: dict[str, str] | None, version: str
    ) -> tuple[dict[str, str], list[Any]]:
        values: dict[str, str] = {}
        changes = []
        for path in paths_for(self.spec, managed):
            value = managed.value(path)
            text = "" if value is None else serialize(value, object, version)
            values[path] = text
            if (told or {}).get(path, "") != text:
                changes.append(_PropertyCollector.Change(name=path, op="assign", val=value))
        return values, changes

    def _left(self, moid: str) -> Any:
        kind = next(
            (one.obj.__class__ for one in self.spec.objectSet if one.obj._moId == moid),
            self.spec.propSet[0].type,
        )
        return _PropertyCollector.ObjectUpdate(kind="leave", obj=kind(moid))


class Changes:
    """Counts what happens on the site; waiting clients sleep on it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0
        self._closed = False

    def touched(self) -> None:
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def close(self) -> None:
        """Wake everybody for good."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def seen(self) -> int:
        """A mark of the present moment for `wait_after`."""
        with self._condition:
            return self._count

    def wait_after(self, seen: int, timeout_s: float) -> None:
        """Sleep until something happened after `seen`, the time is over, or `close`."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._count != seen, timeout_s)


class Collector:
    """One PropertyCollector of one session: its filters and the pages still to be fetched."""

    def __init__(self, moid: str, changes: Changes) -> None:
        self.moid = moid
        self.filters: dict[str, Filter] = {}
        self._changes = changes
        self._pages: dict[str, tuple[list[Any], int]] = {}  # token → rest, page size
        self._tokens = count(1)
        self._version = 0
        self._cancelled = 0
        self._lock = threading.Lock()

    @property
    def managed(self) -> Managed:
        return Managed(
            _PropertyCollector(self.moid),
            {"filter": lambda: [_PropertyCollector.Filter(one) for one in self.filters]},
        )

    def page(self, objects: list[Any], size: int | None) -> Any:
        """A RetrieveResult with at most `size` objects; the rest stays for its token."""
        with self._lock:
            if not size or len(objects) <= size:
                return _PropertyCollector.RetrieveResult(objects=objects)
            token = str(next(self._tokens))
            self._pages[token] = objects[size:], size
            return _PropertyCollector.RetrieveResult(objects=objects[:size], token=token)

    def next_page(self, token: str) -> Any:
        """The next RetrieveResult, None for an unknown token; a token works once."""
        with self._lock:
            rest = self._pages.pop(token, None)
        return None if rest is None else self.page(*rest)

    def cancel_page(self, token: str) -> bool:
        """Forget the rest; whether the token was known."""
        with self._lock:
            return self._pages.pop(token, None) is not None

    def cancel_wait(self) -> None:
        """Make waits that are under way end with RequestCanceled."""
        with self._lock:
            self._cancelled += 1
        self._changes.touched()

    def wait(
        self,
        version: str | None,
        find: Find,
        api_version: str,
        timeout_s: float,
        alive: Callable[[], bool],
    ) -> Any:
        """The next UpdateSet; None when nothing changed in time. Raises VimFault."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            cancelled = self._cancelled
            if not version:
                for one in self.filters.values():
                    one.told = {}
            elif version != str(self._version):
                raise VimFault(
                    vmodl.query.InvalidCollectorVersion(), "Invalid or stale collector version."
                )
        while True:
            seen = self._changes.seen
            with self._lock:
                if self._cancelled != cancelled or self._changes.closed:
                    raise VimFault(vmodl.fault.RequestCanceled(), "The request was canceled.")
                updates = [
                    update
                    for one in list(self.filters.values())
                    if (update := one.update(find, api_version)) is not None
                ]
                if updates or not version:
                    self._version += 1
                    return _PropertyCollector.UpdateSet(
                        version=str(self._version), filterSet=updates
                    )
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not alive():
                return None
            self._changes.wait_after(seen, remaining)
