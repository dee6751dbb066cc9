"""SOAP envelopes: requests to method calls, results and faults to bytes."""

import re
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from typing import Any
from xml.parsers.expat import ExpatError, ParserCreate

from simulator.soap.vmomi import (
    NAMESPACE,
    SERVER_VERSION,
    Fault,
    Reference,
    adapter,
    support,
    vim,
)

_BODY = f"{adapter.XMLNS_SOAPENV} Body"
_VERSION_URI = re.compile(r'"?urn:(?P<version>[^"]*)"?')
_OPTIONAL: int = support.F_OPTIONAL

_START = (
    f"{adapter.XML_HEADER}\n"
    f'<soapenv:Envelope xmlns:soapenc="{adapter.XMLNS_SOAPENC}" '
    f'xmlns:soapenv="{adapter.XMLNS_SOAPENV}" xmlns:xsd="{support.XMLNS_XSD}" '
    f'xmlns:xsi="{support.XMLNS_XSI}">\n<soapenv:Body>\n'
)
_END = "\n</soapenv:Body>\n</soapenv:Envelope>"


class BadRequest(Exception):
    """The bytes are no request this API knows; the text is for the caller."""


@dataclass(frozen=True, slots=True)
class Call:
    """A method call: `this` and the arguments by their WSDL names (None: not given)."""

    method: str
    this: Reference
    arguments: dict[str, Any]
    version: str


def _parameter(name: str, kind: Any, optional: bool = False) -> Any:
    return support.Object(
        name=name,
        type=kind,
        version="vim.version.version1",
        flags=_OPTIONAL if optional else 0,
    )


def _nfc_method(result: Any, *parameters: Any) -> Any:
    return support.Object(
        params=parameters, result=result, resultFlags=0, version="vim.version.version1"
    )


def _extra_methods() -> dict[str, Any]:
    """Methods that pyVmomi has no WSDL for, declared without touching its global tables."""
    vm = _parameter("vm", vim.VirtualMachine)
    one_disk = (
        vm,
        _parameter("diskDeviceKey", support.GetVmodlType("int")),
        _parameter("hostForAccess", vim.HostSystem, optional=True),
    )
    return {
        "Fetch": _nfc_method(object, _parameter("prop", str)),
        "NfcGetVmFiles": _nfc_method(vim.HostServiceTicket, vm),
        "NfcRandomAccessOpenReadonly": _nfc_method(vim.HostServiceTicket, *one_disk),
        "NfcRandomAccessOpenDisk": _nfc_method(vim.HostServiceTicket, *one_disk),
        "NfcGetServerNfcLibVersion": _nfc_method(
            support.GetVmodlType("int"), _parameter("hostForAccess", vim.HostSystem, optional=True)
        ),
    }


_EXTRA_METHODS = _extra_methods()


def method_info(method: str) -> Any:
    """Parameters, result and version of a WSDL method. Raises BadRequest."""
    if method in _EXTRA_METHODS:
        return _EXTRA_METHODS[method]
    try:
        return support.GetWsdlMethod(NAMESPACE, method).info
    except KeyError:
        raise BadRequest(f"Unable to resolve WSDL method name {method}") from None


def version_of(soap_action: str | None) -> str:
    """The API version a request is answered in: the one it asks for, or the host's own.

    Clients that are newer than the host ask for a version that it does not know; it
    serves them its newest. Raises BadRequest for a namespace that is not the host's.
    """
    match = _VERSION_URI.fullmatch((soap_action or "").strip())
    if not match or "/" not in match["version"]:
        return SERVER_VERSION
    namespace, _, _ = match["version"].partition("/")
    if f"urn:{namespace}" != NAMESPACE:
        raise BadRequest(f'Unsupported version URI "urn:{match["version"]}"')
    version = support.versionMap.get(match["version"])
    if version is None or not support.IsChildVersion(SERVER_VERSION, version):
        return SERVER_VERSION
    return str(version)


class _Deserializer(adapter.SoapDeserializer):  # type: ignore[misc]
    def LookupWsdlType(self, ns: str, name: str, allowManagedObjectReference: bool = False) -> Any:
        """NfcService is in no WSDL: a reference to it is a plain managed object."""
        if name == "NfcService":
            return support.ManagedObject
        return super().LookupWsdlType(ns, name, allowManagedObjectReference)


@lru_cache(maxsize=256)
def _request_type(method: str) -> Any:
    """A data type whose properties are `_this` and the method's parameters."""
    properties = [_parameter("_this", support.ManagedObject), *method_info(method).params]
    return type(
        f"{method}Request",
        (support.DataObject,),
        {
            "_wsdlName": method,
            "_version": support.BASE_VERSION,
            "_propList": properties,
            "_propInfo": {one.name: one for one in properties},
        },
    )


class _RequestParser:
    """Finds the call in the body of an envelope; pyVmomi takes it apart."""

    def __init__(self, version: str) -> None:
        self.method = ""
        self._depth = 0
        self._in_body = False
        self._deserializer = _Deserializer(None, version)
        self._namespaces = adapter.ExpatDeserializerNSHandlers()
        self._parser = ParserCreate(namespace_separator=adapter.NS_SEP)
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartNamespaceDeclHandler = self._namespaces.StartNamespaceDeclHandler
        self._parser.EndNamespaceDeclHandler = self._namespaces.EndNamespaceDeclHandler

    def parse(self, body: bytes) -> Any:
        """The request object. Raises BadRequest."""
        try:
            self._parser.Parse(body, True)
        except ExpatError as error:
            raise BadRequest(f"Malformed request: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BadRequest(f"Cannot deserialize the request: {error}") from error
        request = self._deserializer.GetResult()
        if request is None or request._this is None:
            raise BadRequest("The request has no method or no _this")
        return request

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if self._in_body and self._depth == 2 and not self.method:
            self.method = tag.rsplit(adapter.NS_SEP, 1)[-1]
            self._deserializer.Deserialize(
                self._parser, _request_type(self.method), False, self._namespaces.nsMap
            )
            self._deserializer.StartElementHandler(tag, attributes)
            return
        self._depth += 1
        self._in_body = self._in_body or tag == _BODY

    def _end(self, _tag: str) -> None:
        self._depth -= 1


def read_call(body: bytes, version: str) -> Call:
    """The method call of a request envelope. Raises BadRequest."""
    parser = _RequestParser(version)
    request = parser.parse(body)
    info = method_info(parser.method)
    arguments: dict[str, Any] = {}
    for parameter in info.params:
        value = getattr(request, parameter.name)
        if value is None and not parameter.flags & _OPTIONAL:
            raise BadRequest(f"{parser.method}: parameter {parameter.name} is missing")
        arguments[parameter.name] = value
    return Call(parser.method, request._this, arguments, version)


class _Serializer(adapter.SoapSerializer):  # type: ignore[misc]
    def _QName(self, typ: Any, defNS: str) -> Any:
        """A reference in an `anyType` is a ManagedObjectReference, the only name the schema has."""
        attributes, name = super()._QName(typ, defNS)
        return attributes, f"{name}Reference" if typ is support.ManagedObject else name


def _serializer(writer: StringIO, version: str) -> Any:
    prefixes = {**adapter.SOAP_NSMAP, NAMESPACE: ""}
    serializer = _Serializer(writer, version, prefixes)
    serializer.outermostAttrs = ""  # the envelope says all that these would
    return serializer


def serialize(value: Any, kind: Any, version: str) -> str:
    """One value as XML text, for comparing."""
    writer = StringIO()
    info = support.Object(name="value", type=kind, version=support.BASE_VERSION, flags=_OPTIONAL)
    _serializer(writer, version).Serialize(value, info)
    return writer.getvalue()


def write_result(method: str, kind: Any, value: Any, version: str) -> bytes:
    """The response envelope of a call that returned `value` (None: nothing)."""
    writer = StringIO()
    if value is not None and kind is not type(None):
        info = support.Object(
            name="returnval", type=kind, version=support.BASE_VERSION, flags=_OPTIONAL
        )
        _serializer(writer, version).Serialize(value, info)
    text = f'{_START}<{method}Response xmlns="{NAMESPACE}">{writer.getvalue()}</{method}Response>{_END}'
    return text.encode()


def write_fault(fault: Fault | None, text: str, version: str = SERVER_VERSION) -> bytes:
    """The envelope of a fault; None for one without detail. `text` is what a person reads."""
    detail = ""
    if fault is not None:
        fault.msg = None
        name = f"{support.GetWsdlName(support.Type(fault))}Fault"
        writer = StringIO()
        info = support.Object(name=name, type=object, version=support.BASE_VERSION, flags=0)
        _serializer(writer, version).SerializeFaultDetail(fault, info)
        detail = writer.getvalue().replace(f"<{name}", f'<{name} xmlns="{NAMESPACE}"', 1)
    return (
        f"{_START}<soapenv:Fault><faultcode>ServerFaultCode</faultcode>"
        f"<faultstring>{adapter.XmlEscape(text)}</faultstring><detail>{detail}</detail>"
        f"</soapenv:Fault>{_END}"
    ).encode()
