"""The methods of the API: what a call does, by its WSDL name."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from simulator.faults.api_kinds import MethodFail, SessionExpiry
from simulator.faults.board import FaultBoard
from simulator.faults.kind import Place
from simulator.soap.collector import Changes
from simulator.soap.envelope import Call
from simulator.soap.faults import (
    VimFault,
    invalid_argument,
    invalid_login,
    method_not_found,
    named_fault,
    no_permission,
    not_authenticated,
    object_not_found,
)
from simulator.soap.host_objects import service_content
from simulator.soap.inventory import Inventory, user_session
from simulator.soap.objects import Managed
from simulator.soap.privileges import REQUIRED
from simulator.soap.sessions import Session, Sessions
from simulator.soap.vmomi import Reference, support, vim, vmodl

_ANONYMOUS = {"RetrieveServiceContent", "Login"}


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

    def find(self, inventory: Inventory) -> Callable[[Reference], Managed | None]:
        """Looks references up for this caller."""
        return lambda reference: inventory.find(reference, self.session)


Method = Callable[[Context, dict[str, Any]], Any]


class Methods:
    """Dispatch, and the methods of sessions, single properties and search."""

    def __init__(
        self,
        inventory: Inventory,
        sessions: Sessions,
        changes: Changes,
        faults: FaultBoard,
        *,
        user: str,
        password: str,
    ) -> None:
        self.inventory = inventory
        self._sessions = sessions
        self._changes = changes
        self.faults = faults
        self._user = user
        self._password = password
        self._methods: dict[str, Method] = {
            "RetrieveServiceContent": lambda _context, _: service_content(inventory.behaviour.site),
            "CurrentTime": lambda _context, _: datetime.now(UTC),
            "Login": self._login,
            "Logout": self._logout,
            "TerminateSession": self._terminate,
            "SessionIsActive": self._session_is_active,
            "Fetch": self._fetch,
            "FindByUuid": self._find_by_uuid,
            "FindByInventoryPath": self._find_by_path,
        }

    def add(self, methods: dict[str, Method]) -> None:
        """More methods, by WSDL name."""
        self._methods.update(methods)

    def invoke(self, context: Context) -> tuple[Any, Any]:
        """(value, declared type) of a call's result. Raises VimFault."""
        call = context.call
        if context.session is not None and self.faults.fire(
            SessionExpiry,
            None,
            lambda kind: kind.on == "call" and kind.method in (None, call.method),
            method=call.method,
        ):
            self._sessions.end_all()
            self._changes.touched()
            context.session = None
        if context.session is None and not self._is_anonymous(call):
            raise not_authenticated(call.this)
        managed = self.inventory.find(call.this, context.session)
        if managed is None:
            raise object_not_found(call.this)
        method = self._methods.get(call.method)
        if method is None or not self._has_method(managed, call.method):
            raise method_not_found(call.this, call.method)
        privilege = REQUIRED.get(call.method)
        if privilege in self.inventory.behaviour.privileges_missing:
            raise no_permission(call.this, privilege)
        failed = self.faults.fire(MethodFail, _place(call), lambda kind: kind.method == call.method)
        if failed:
            raise named_fault(failed.kind.fault, f"{call.method} was told to fail")
        value = method(context, call.arguments)
        return value, self._result_type(managed, call)

    @staticmethod
    def _is_anonymous(call: Call) -> bool:
        is_content = call.method == "Fetch" and call.this._moId == "ServiceInstance"
        return call.method in _ANONYMOUS or is_content

    def _has_method(self, managed: Managed, name: str) -> bool:
        if name == "Fetch":
            return True
        if name.startswith("Nfc"):
            refused = self.inventory.behaviour.nfc_methods_refused
            return managed.reference._moId == self.inventory.nfc_moref and name not in refused
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
        if self.inventory.behaviour.site.api_type == "HostAgent":
            raise VimFault(vmodl.fault.NotImplemented(), "The method is not implemented.")
        wanted = arguments["sessionID"], arguments["userName"]
        return any((one.key, one.user) == wanted for one in self._sessions.all())

    # Properties and search.

    def _fetch(self, context: Context, arguments: dict[str, Any]) -> Any:
        managed = self.inventory.find(context.call.this, context.session)
        if managed is None:
            raise object_not_found(context.call.this)
        return managed.value(arguments["prop"])

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


def _place(call: Call) -> Place:
    """The VM that a call is about, where it names one: itself, by a snapshot, as an argument."""
    about = call.arguments.get("vm") or call.this
    if isinstance(about, vim.VirtualMachine | vim.vm.Snapshot):
        return Place(about._moId.partition("-snapshot-")[0])
    return Place()
