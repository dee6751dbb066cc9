"""The methods of the API: what a call does, by its WSDL name."""

import hmac
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from simulator.behaviour import Behaviour, Faults, InjectedFault
from simulator.soap.collector import Changes, Collector, Filter, contents
from simulator.soap.envelope import Call
from simulator.soap.faults import (
    VimFault,
    invalid_argument,
    invalid_login,
    method_not_found,
    not_authenticated,
    object_not_found,
)
from simulator.soap.inventory import Inventory, user_session
from simulator.soap.objects import Managed
from simulator.soap.sessions import Session, Sessions
from simulator.soap.vmomi import Reference, support, vim, vmodl

_ANONYMOUS = {"RetrieveServiceContent", "Login"}
_DEFAULT_COLLECTOR = "ha-property-collector"


@dataclass
class Context:
    """A call under way: who calls, and the session that a Login made."""

    call: Call
    session: Session | None
    address: str
    user_agent: str
    opened: Session | None = None

    @property
    def user(self) -> Session:
        """The caller's session. Raises VimFault (NotAuthenticated)."""
        if self.session is None:
            raise not_authenticated(self.call.this)
        return self.session


Method = Callable[[Context, dict[str, Any]], Any]


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


class Methods:
    """Dispatch, and the methods of sessions, views and property collectors."""

    def __init__(
        self,
        inventory: Inventory,
        sessions: Sessions,
        changes: Changes,
        behaviour: Behaviour,
        faults: Faults,
        *,
        user: str,
        password: str,
    ) -> None:
        self.inventory = inventory
        self._sessions = sessions
        self._changes = changes
        self._behaviour = behaviour
        self._faults = faults
        self._user = user
        self._password = password
        self._numbers = count(1)
        self._create = threading.Lock()
        self._methods: dict[str, Method] = {
            "RetrieveServiceContent": lambda _context, _: self.inventory.service_content(),
            "CurrentTime": lambda _context, _: datetime.now(UTC),
            "Login": self._login,
            "Logout": self._logout,
            "TerminateSession": self._terminate,
            "SessionIsActive": self._session_is_active,
            "Fetch": self._fetch,
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
            "FindByUuid": self._find_by_uuid,
            "FindByInventoryPath": self._find_by_path,
        }

    def add(self, methods: dict[str, Method]) -> None:
        """More methods, by WSDL name."""
        self._methods.update(methods)

    def invoke(self, context: Context) -> tuple[Any, Any]:
        """(value, declared type) of a call's result. Raises VimFault."""
        call = context.call
        if context.session is None and not self._is_anonymous(call):
            raise not_authenticated(call.this)
        managed = self.inventory.find(call.this, context.session)
        if managed is None:
            raise object_not_found(call.this)
        method = self._methods.get(call.method)
        if method is None or not self._has_method(managed, call.method):
            raise method_not_found(call.this, call.method)
        try:
            self._faults.method_called(call.method)
        except InjectedFault as error:
            raise VimFault(
                vmodl.fault.SystemError(reason=str(error)),
                f"A general system error occurred: {error}",
            ) from error
        value = method(context, call.arguments)
        return value, self._result_type(managed, call)

    @staticmethod
    def _is_anonymous(call: Call) -> bool:
        is_content = call.method == "Fetch" and call.this._moId == "ServiceInstance"
        return call.method in _ANONYMOUS or is_content

    @staticmethod
    def _has_method(managed: Managed, name: str) -> bool:
        if name == "Fetch":
            return True
        if name.startswith("Nfc"):
            return bool(managed.reference._moId == "ha-nfc")
        owner: type = support.GetWsdlMethod("urn:vim25", name).info.type
        return issubclass(managed.kind, owner)

    @staticmethod
    def _result_type(managed: Managed, call: Call) -> Any:
        if call.method == "Fetch":
            return managed.kind._GetPropertyInfo(call.arguments["prop"]).type
        if call.method == "NfcGetServerNfcLibVersion":
            return int
        if call.method.startswith("Nfc"):
            return vim.HostServiceTicket
        info = support.GetWsdlMethod("urn:vim25", call.method).info
        return vim.Task if info.isTask else info.result

    def find(self, context: Context) -> Callable[[Reference], Managed | None]:
        """Looks references up for this caller."""
        return lambda reference: self.inventory.find(reference, context.session)

    # Sessions.

    def _login(self, context: Context, arguments: dict[str, Any]) -> Any:
        right = hmac.compare_digest(arguments["userName"].encode(), self._user.encode())
        right &= hmac.compare_digest(arguments["password"].encode(), self._password.encode())
        if not right or context.session is not None:
            raise invalid_login()
        context.opened = self._sessions.open(self._user, context.address, context.user_agent)
        return user_session(context.opened)

    def _logout(self, context: Context, _arguments: dict[str, Any]) -> None:
        self._sessions.end(context.user.key)
        self._changes.touched()

    def _terminate(self, context: Context, arguments: dict[str, Any]) -> None:
        keys = list(arguments["sessionId"])
        if context.user.key in keys:
            raise invalid_argument("sessionId")
        if not self._sessions.end(*keys):
            raise VimFault(vim.fault.NotFound(), "The session was not found.")
        self._changes.touched()

    def _session_is_active(self, _context: Context, arguments: dict[str, Any]) -> bool:
        return any(one.key == arguments["sessionID"] for one in self._sessions.all())

    # Properties.

    def _fetch(self, context: Context, arguments: dict[str, Any]) -> Any:
        managed = self.inventory.find(context.call.this, context.session)
        if managed is None:
            raise object_not_found(context.call.this)
        return managed.value(arguments["prop"])

    def _own_moid(self, context: Context) -> str:
        with self._create:
            return f"session[{context.user.key}]{next(self._numbers):08x}"

    def _create_view(self, context: Context, arguments: dict[str, Any]) -> Any:
        if self.inventory.find(arguments["container"], context.session) is None:
            raise object_not_found(arguments["container"])
        view = ContainerView(
            self._own_moid(context),
            arguments["container"],
            list(arguments["type"] or []),
            bool(arguments["recursive"]),
            self.inventory,
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
            for content in contents(spec, self.find(context))
        ]

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
        for _ in contents(arguments["spec"], self.find(context)):
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
            self.find(context),
            context.call.version,
            limit_s,
            lambda: self._sessions.alive(session),
        )

    def _cancel_wait(self, context: Context, _arguments: dict[str, Any]) -> None:
        self._collector(context).cancel_wait()

    # Search.

    def _find_by_uuid(self, _context: Context, arguments: dict[str, Any]) -> Any:
        if not arguments["vmSearch"]:
            return None
        for reference in self.inventory.below(vim.Folder("ha-folder-vm"), recursive=False):
            vm = self.inventory.vm(reference)
            uuid = (vm.instance_uuid if arguments["instanceUuid"] else vm.uuid) if vm else ""
            if uuid.lower() == arguments["uuid"].lower():
                return reference
        return None

    def _find_by_path(self, context: Context, arguments: dict[str, Any]) -> Any:
        at = vim.Folder("ha-folder-root")
        for name in filter(None, arguments["inventoryPath"].split("/")):
            for child in self.inventory.below(at, recursive=False):
                managed = self.inventory.find(child, context.session)
                if managed and managed.value("name") == name:
                    at = child
                    break
            else:
                return None
        return at
