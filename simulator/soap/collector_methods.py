"""The methods of container views and property collectors."""

import threading
from dataclasses import dataclass
from itertools import count
from typing import Any

from simulator.behaviour import Behaviour
from simulator.faults.board import FaultBoard
from simulator.faults.collector_kinds import PropertyHidden
from simulator.faults.kind import Place
from simulator.soap.collector import Changes, Collector, Filter, contents
from simulator.soap.faults import invalid_argument, named_fault, object_not_found
from simulator.soap.inventory import Inventory
from simulator.soap.methods import Context, Method
from simulator.soap.objects import Managed
from simulator.soap.sessions import Sessions
from simulator.soap.vmomi import Fault, Reference, vim

_DEFAULT_COLLECTOR = "ha-property-collector"


@dataclass(frozen=True)
class ContainerView:
    """A view of the entities inside a container, of some types."""

    moid: str
    container: Reference
    types: list[Any]
    recursive: bool
    inventory: Inventory

    @property
    def managed(self) -> Managed:
        return Managed(
            vim.view.ContainerView(self.moid),
            {
                "view": self._members,
                "container": lambda: self.container,
                "type": lambda: self.types,
                "recursive": lambda: self.recursive,
            },
        )

    def _members(self) -> list[Reference]:
        inside = self.inventory.below(self.container, recursive=self.recursive)
        kinds = tuple(self.types) or (vim.ManagedEntity,)
        return [one for one in inside if issubclass(one.__class__, kinds)]


def _nothing_hidden(_managed: Managed, _path: str) -> None:
    """Filters tell of changes alone; none of a VM's properties is waited for."""


class CollectorMethods:
    """Views, collectors and filters belong to the caller's session and end with it."""

    def __init__(
        self,
        inventory: Inventory,
        sessions: Sessions,
        changes: Changes,
        behaviour: Behaviour,
        faults: FaultBoard,
    ) -> None:
        self._inventory = inventory
        self._sessions = sessions
        self._changes = changes
        self._behaviour = behaviour
        self._faults = faults
        self._numbers = count(1)
        self._create = threading.Lock()

    def methods(self) -> dict[str, Method]:
        """By WSDL name."""
        return {
            "CreateContainerView": self._create_view,
            "DestroyView": self._destroy,
            "RetrieveProperties": self._retrieve_all,
            "RetrievePropertiesEx": self._retrieve,
            "ContinueRetrievePropertiesEx": self._continue,
            "CancelRetrievePropertiesEx": self._cancel_retrieve,
            "CreatePropertyCollector": self._create_collector,
            "DestroyPropertyCollector": self._destroy,
            "CreateFilter": self._create_filter,
            "DestroyPropertyFilter": self._destroy_filter,
            "WaitForUpdates": self._wait,
            "WaitForUpdatesEx": self._wait,
            "CancelWaitForUpdates": self._cancel_wait,
        }

    def _own_moid(self, context: Context) -> str:
        with self._create:
            return f"session[{context.user.key}]{next(self._numbers):08x}"

    def _create_view(self, context: Context, arguments: dict[str, Any]) -> Any:
        if self._inventory.find(arguments["container"], context.session) is None:
            raise object_not_found(arguments["container"])
        view = ContainerView(
            self._own_moid(context),
            arguments["container"],
            list(arguments["type"] or []),
            bool(arguments["recursive"]),
            self._inventory,
        )
        context.user.objects[view.moid] = view
        return view.managed.reference

    def _destroy(self, context: Context, _arguments: dict[str, Any]) -> None:
        gone = context.user.objects.pop(context.call.this._moId, None)
        if isinstance(gone, Collector):
            gone.cancel_wait()
            for moid in gone.filters:
                context.user.objects.pop(moid, None)

    def _collector(self, context: Context) -> Collector:
        """The collector that the call is for; the default one is made at its first use."""
        moid = context.call.this._moId
        with self._create:
            found = context.user.objects.get(moid)
            if found is None and moid == _DEFAULT_COLLECTOR:
                found = context.user.objects[moid] = Collector(moid, self._changes)
        if not isinstance(found, Collector):
            raise object_not_found(context.call.this)
        return found

    def _page_size(self, asked: int | None) -> int | None:
        limits = [one for one in (asked, self._behaviour.page_objects) if one]
        return min(limits) if limits else None

    def _retrieve_all(self, context: Context, arguments: dict[str, Any]) -> Any:
        return [
            content
            for spec in arguments["specSet"]
            for content in contents(spec, context.find(self._inventory), self._hidden)
        ]

    def _hidden(self, managed: Managed, path: str) -> Fault | None:
        fired = self._faults.fire(
            PropertyHidden,
            Place(managed.reference._moId),
            lambda kind: issubclass(managed.kind, vim.VirtualMachine) and kind.hides(path),
            path=path,
        )
        return named_fault(fired.kind.fault, "was told to hide it").fault if fired else None

    def _retrieve(self, context: Context, arguments: dict[str, Any]) -> Any:
        found = self._retrieve_all(context, arguments)
        if not found:
            return None
        options = arguments["options"]
        return self._collector(context).page(found, self._page_size(options.maxObjects))

    def _continue(self, context: Context, arguments: dict[str, Any]) -> Any:
        page = self._collector(context).next_page(arguments["token"])
        if page is None:
            raise invalid_argument("token")
        return page

    def _cancel_retrieve(self, context: Context, arguments: dict[str, Any]) -> None:
        if not self._collector(context).cancel_page(arguments["token"]):
            raise invalid_argument("token")

    # Waiting.

    def _create_collector(self, context: Context, _arguments: dict[str, Any]) -> Any:
        collector = Collector(self._own_moid(context), self._changes)
        context.user.objects[collector.moid] = collector
        return collector.managed.reference

    def _create_filter(self, context: Context, arguments: dict[str, Any]) -> Any:
        collector = self._collector(context)
        for _ in contents(arguments["spec"], context.find(self._inventory), _nothing_hidden):
            pass  # a filter with bad paths or roots is refused now, not at the first wait
        made = Filter(self._own_moid(context), arguments["spec"], collector)
        collector.filters[made.moid] = made
        context.user.objects[made.moid] = made
        self._changes.touched()
        return made.managed.reference

    def _destroy_filter(self, context: Context, _arguments: dict[str, Any]) -> None:
        made = context.user.objects.pop(context.call.this._moId)
        made.collector.filters.pop(made.moid, None)

    def _wait(self, context: Context, arguments: dict[str, Any]) -> Any:
        options = arguments.get("options")
        limit_s = self._behaviour.longest_wait_s
        if options is not None and options.maxWaitSeconds is not None:
            limit_s = min(limit_s, options.maxWaitSeconds)
        session = context.user
        return self._collector(context).wait(
            arguments["version"],
            context.find(self._inventory),
            context.call.version,
            limit_s,
            lambda: self._sessions.alive(session),
        )

    def _cancel_wait(self, context: Context, _arguments: dict[str, Any]) -> None:
        self._collector(context).cancel_wait()
